"""Are the columns of options, and what is undefined, written as they are?"""

import json

import numpy as np
import pytest

from implicit_attr import report
from implicit_attr.report import sanity, summary, tables
from implicit_attr.runs.reading import Evaluation

EMPTY = {'mean': None, 'low': None, 'high': None, 'n': 0}


def interval(mean, n=4):
  return {'mean': mean, 'low': mean - 0.125, 'high': mean + 0.125, 'n': n}


def row(**more):
  return {
    'attribution': 'gradient', 'attack': 'topk', 'eps': 0.03, 'n': 4,
    'n_kept': 4, 'n_stalled': 0, 'n_undefined': 0,
    'metrics': {'topk': interval(0.5)}, 'faithfulness': {}, **more,
  }  # fmt: skip


def evaluation(*rows, **settings):
  return Evaluation('last', 3, {}, settings, list(rows), {})


def cells(*rows, **settings):
  """The first line of the table by its head."""
  table = tables.robustness(evaluation(*rows, **settings))
  return dict(zip(table.head, table.rows[0][0], strict=True))


def test_what_no_image_has_is_undefined_and_its_images_are_counted():
  dead = row(metrics={'topk': EMPTY, 'ssim': EMPTY}, n_undefined=4)
  found = cells(dead)
  assert found['Top-k kept'] == found['SSIM'] == ('undefined',)
  assert found['undefined'] == ('4',)
  assert 'undefined' in report.as_text(evaluation(dead))
  assert summary._robustness(evaluation(dead)).value == 'undefined'
  nobody = cells(row(n=0, metrics={'topk': EMPTY}))  # no image labelled rightly
  assert nobody['Top-k kept'] == ('–',) and 'undefined' not in nobody


def test_options_that_are_off_have_no_column():
  assert list(cells(row())) == [
    'Map',
    'Perturbation',
    'Top-k kept',
    'n',
    'kept',
  ]


@pytest.mark.parametrize(
  ('k', 'name'),
  [(1, '1 pixel'), (1.0, 'all pixels'), (6, '6 pixels'), (0.1, '10 %')],
)
def test_one_pixel_and_all_of_them_are_told_apart(k, name):
  settings = json.loads(json.dumps({'k': k}))  # as it comes from a file
  assert f'Top-k kept ({name})' in cells(row(), **settings)


def test_a_certificate_is_three_numbers_or_the_reason_for_none():
  proved = {'radius': interval(0.25), 'certified': interval(0.5),
            'unbroken': interval(0.75)}  # fmt: skip
  absent = {'absent': 'only the gradient'}
  found = cells(row(certificate=proved), row(certificate=absent))
  assert found['Certified radius'] == ('0.25', '[0.125, 0.375]')
  assert found['Certified at ε'] == ('0.500', '[0.375, 0.625]')
  assert found['Top-k set unbroken'] == ('0.750', '[0.625, 0.875]')
  found = cells(row(certificate=absent), row(certificate=proved))
  assert found['Certified radius'] == ('n/a', 'only the gradient')
  assert found['Certified at ε'] == ('–',)
  text = report.as_text(evaluation(row(certificate=absent)))
  assert 'n/a only the gradient' in text


def test_the_sanity_checks_are_drawn_in_the_order_of_the_test(
  tmp_path, monkeypatch
):
  lines, run = [], lambda name, **more: {'attribution': name, 'n': 4, **more}
  rows = [
    run(name, **test, spearman=interval(mean))
    for name, mean in (('gradient', 0.25), ('edges', 0.875))
    for test in (
      {'test': 'parameters', 'replaced': 'logits'},
      {'test': 'parameters', 'replaced': 'first'},
      {'test': 'labels', 'fitted': 0.5},
    )
  ]
  rows[0]['spearman'] = EMPTY  # a point that is not there breaks nothing

  def save(target, *args):
    (axes,) = target.axes
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    lines.append((ticks, axes.containers))
    return args

  monkeypatch.setattr(sanity.canvas, 'save', save)
  found = Evaluation('last', 3, {}, {}, [], {}, rows)
  exhibit = sanity.draw(found, tmp_path)
  assert 'it learnt 50.0 %' in exhibit.caption
  ((ticks, (gradient, edges)),) = lines
  assert ticks == ['down to logits', 'down to first', 'random labels']
  np.testing.assert_array_equal(
    gradient.lines[0].get_xdata(), [np.nan, 0.25, 0.25]
  )
  np.testing.assert_array_equal(edges.lines[0].get_xdata(), [0.875] * 3)
  assert sanity.draw(evaluation(row()), tmp_path) is None
