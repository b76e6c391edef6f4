"""Does the report show ε50 and the curves over radii as they were measured?"""

import dataclasses
import json

import numpy as np
import pytest

from implicit_attr import report
from implicit_attr.report import canvas, radii, rates, robustness, tables
from implicit_attr.report.sweep_runs import Tree, Trial
from implicit_attr.runs.reading import Evaluation

EPS = [1 / 255, 4 / 255, 16 / 255]


def mean(value):
  return {'mean': value, 'low': value - 0.25, 'high': value + 0.25, 'n': 4}


def row(attack='topk', start=1.0, **more):
  share = start - np.array([0.0, 0.25, 0.5])
  curve = {'mean': share, 'low': share - 0.125, 'high': share + 0.125}
  return {
    'attribution': 'gradient', 'attack': attack, 'eps': 0.03, 'n': 4,
    'n_kept': 4, 'faithfulness': {},
    'metrics': {'topk': mean(0.5), 'log2_eps50': mean(-5.0)},
    'curve': {'eps': EPS, 'topk': curve, 'ssim': curve},
    'censored': {'below': 0.0, 'above': 0.25}, 'area': mean(0.5), **more,
  }  # fmt: skip


def evaluation(*rows):
  return Evaluation('last', 3, {}, {'k': 0.1}, list(rows), {})


@pytest.fixture
def figures(monkeypatch):
  """Name -> figure, of all that would have been rendered."""
  drawn = {}

  def save(target, folder, name, alt):
    drawn[name] = target
    return canvas.Image(folder / name, alt, 3.5)

  monkeypatch.setattr(canvas, 'save', save)
  return drawn


def test_the_table_has_the_radius_its_interval_and_the_share_censored():
  table = tables.robustness(evaluation(row(), row('random_sign')))
  attack, noise = (
    dict(zip(table.head, cells, strict=True)) for cells, _ in table.rows
  )
  assert attack['ε50 [1/255]'] == ('7.97', '[6.70, 9.48]')  # 255 / 2 ** 5
  assert attack['ε50 censored'] == ('25.0 % above',)
  assert attack['Area to noise'] == ('0.500', '[0.250, 0.750]')
  assert noise['Area to noise'] == ('–',)
  assert not any('log2' in head for head in table.head)
  both = row(censored={'below': 0.5, 'above': 0.25})
  assert tables.radii(both)[1] == ('50.0 % below, 25.0 % above',)
  none = row(censored={'below': 0.0, 'above': 0.0})
  assert tables.radii(none)[1] == ('none',)
  text = report.as_text(evaluation(row(), row('random_sign')))
  assert 'ε50 [1/255]' in text and '7.97 [6.70, 9.48]' in text


def test_curves_are_those_of_the_evaluation_beside_those_of_noise(
  figures, tmp_path
):
  rows = row(), row('random_sign', start=1.125)
  radii.draw(evaluation(*rows), tmp_path)
  (figure,) = figures.values()
  topk, ssim = figure.axes
  assert (topk.get_ylabel(), ssim.get_ylabel()) == ('Top-k kept', 'SSIM')
  for axes in (topk, ssim):
    found = {c.get_label(): c.lines[0] for c in axes.containers}
    for name, one in zip(('top-k attack', 'random signs'), rows, strict=True):
      x, y = found[name].get_data()
      np.testing.assert_allclose(x, [1, 4, 16])
      np.testing.assert_allclose(y, one['curve']['topk']['mean'])
    (area,) = (c for c in axes.collections if c.get_alpha())
    assert np.isclose(area.get_paths()[0].vertices[:, 1].max(), 1.125)
  (half,) = (c for c in topk.containers if c.get_label() == '_ε50')
  np.testing.assert_allclose(half.lines[0].get_xydata(), [[255 / 32, 0.5]])


def test_the_panel_of_the_radius_has_an_axis_of_radii(figures, tmp_path):
  found = {'last': evaluation(row(), row('random_sign'))}
  robustness.draw_radius(found, tmp_path)
  robustness.draw_points(found, tmp_path)
  assert set(figures) == {'robustness_log2_eps50', 'robustness_topk'}
  (axes,) = figures['robustness_log2_eps50'].axes
  assert axes.get_xscale() == 'log'
  for container in axes.containers:
    np.testing.assert_allclose(container.lines[0].get_xdata(), 255 / 32)


def test_an_evaluation_at_one_radius_says_so_and_has_no_column(
  figures, tmp_path
):
  one = row(metrics={'topk': mean(0.5)})
  del one['curve'], one['censored'], one['area']
  found = evaluation(one)
  for exhibit in (
    radii.draw(found, tmp_path),
    robustness.draw_radius({'last': found}, tmp_path),
  ):
    assert exhibit.images == () and 'one radius' in exhibit.missing
  assert not any('ε50' in head for head in tables.robustness(found).head)


@pytest.mark.parametrize('damage', [
  {'curve': None}, {'curve': {'eps': 'x', 'topk': 3}}, {'censored': [1]},
  {'curve': {'eps': [0.1, None], 'topk': {'mean': [1.0, 0.5]}}},
  {'curve': {'eps': [0.1, 0.2], 'topk': {'mean': [1.0]}}}, {'area': 'x'},
  {'curve': {'eps': [0.1, 1e308], 'topk': {'mean': [1.0, 0.5]}}},
  {'metrics': {'log2_eps50': {'mean': None}}},
  {'metrics': {'log2_eps50': {'mean': -3, 'low': -1e308, 'high': 1e308}}},
])  # fmt: skip
def test_a_damaged_curve_does_not_stop_the_page(figures, tmp_path, damage):
  ends = {end: [1.0, 0.5] for end in ('mean', 'low', 'high')}
  whole = row() | {'curve': {'eps': [0.1, 0.2], 'topk': ends}}
  (tmp_path / 'evaluation').mkdir()
  path = tmp_path / 'evaluation' / 'last.json'
  path.write_text(json.dumps({'rows': [whole | damage]}))
  (found,) = report.load(tmp_path).evaluations['last'].rows
  assert found['attack'] == 'topk'
  last = report.load(tmp_path).evaluations['last']
  report.as_text(last)
  radii.draw(last, tmp_path)
  robustness.draw_radius({'last': last}, tmp_path)


def record(seed, lr, log2, rule='train_loss', above=0.0):
  trial = Trial(
    f'{seed}{lr}', None, 'finished', 9.0, '', lr, 16.0, seed, 'MLP', 'none',
    {}, {}, 'MLP, digits',
  )  # fmt: skip
  return {
    'trial': trial, 'rule': rule, 'map': 'gradient', 'attack': 'topk',
    'lr': lr, 'log2_eps50': log2, 'random_log2_eps50': -2.0,
    'censored_below': 0.0, 'censored_above': above,
  }  # fmt: skip


def test_a_point_of_a_sweep_is_the_geometric_mean_at_equal_loss(
  figures, tmp_path
):
  records = [
    record(0, 0.1, -5.0), record(1, 0.1, -3.0), record(0, 0.3, -2.0),
    record(1, 0.3, -2.0, above=0.5), record(0, 0.1, -9.0, rule='last'),
  ]  # fmt: skip
  trials = [r['trial'] for r in records]
  tree = Tree(tmp_path, trials, records, {}, {})
  rates.draw(tree, tmp_path)
  (axes,) = figures['rates_0'].axes
  points = {
    line.get_xdata()[0]: line
    for line in axes.lines
    if line.get_label() == '_batch 16'
  }
  np.testing.assert_allclose(points[0.1].get_ydata(), 255 / 2**4)
  np.testing.assert_allclose(points[0.3].get_ydata(), 255 / 2**2)
  faces = {lr: p.get_markerfacecolor() for lr, p in points.items()}
  assert faces[0.3] == 'white' != faces[0.1]
  assert [t.get_text() for t in axes.get_xticklabels()] == ['0.1', '0.3']
  only = dataclasses.replace(tree, records=records[:2])
  assert 'no two learning rates' in rates.draw(only, tmp_path).missing
