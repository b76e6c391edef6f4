"""Are the values under a pointer those of the figure, at their place in it?"""

import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from implicit_attr import report
from implicit_attr.report import canvas, hover


def saved(axes, folder):
  """(the image, the sets of its points) of a panel."""
  image = canvas.save(axes.figure, folder, 'a', 'a panel')
  return image, json.loads(image.values or '[]')


@pytest.mark.parametrize('scale', ['linear', 'log'])
def test_a_point_lies_where_it_is_drawn(tmp_path, scale):
  with canvas.drawing():
    axes = canvas.panel('λ_max', 'updates', 'λ_max [a]')
    axes.plot([10, 100, 1000], [1.0, 2.0, 3.0], lw=0, marker='o', ms=1)
    axes.plot([40], [2.5], 'o', color='#ff0000', mec='none', label='red')
    axes.set_xscale(scale)
    image, (grey, red) = saved(axes, tmp_path)
  assert (red['x'], red['y']) == ('updates', 'λ_max [a]')
  assert (grey['name'], red['name']) == ('', 'red')
  assert [p[2:] for p in grey['points']] == [
    ['10', '1'], ['100', '2'], ['1000', '3']
  ]  # fmt: skip
  pixels = np.asarray(Image.open(image.path).convert('RGB')).astype(int)
  drawn = np.argwhere((pixels[..., 0] > 200) & (pixels[..., 1:] < 60).all(-1))
  place = drawn.mean(0) / pixels.shape[:2]
  np.testing.assert_allclose(red['points'][0][1::-1], place, atol=0.004)


def test_intervals_and_names_of_a_list_are_told(tmp_path):
  with canvas.drawing():
    axes = canvas.panel('', 'share', '')
    axes.errorbar([0.5, 0.7], [0, 1], xerr=[[0.1, 0], [0.2, 0]], fmt='o',
                  label='attack')  # fmt: skip
    canvas.rows(axes, ['gradient', 'rollout'])
    _, (found,) = saved(axes, tmp_path)
  assert found['name'] == 'attack'
  assert [point[2:] for point in found['points']] == [
    ['0.5 [0.4, 0.7]', 'gradient'], ['0.7', 'rollout']
  ]  # fmt: skip


def test_a_point_that_is_undefined_takes_no_bar_from_the_others(tmp_path):
  with canvas.drawing():
    axes = canvas.panel('', 'x', 'y')
    axes.errorbar([1.0, 2.0, 3.0], [1, np.nan, 3], yerr=[[1, np.nan, 0.5]] * 2)
    _, (found,) = saved(axes, tmp_path)
  assert [p[2:] for p in found['points']] == [
    ['1', '1 [0, 2]'], ['3', '3 [2.5, 3.5]']
  ]  # fmt: skip


def test_both_bars_of_a_point_are_its_own(tmp_path):
  with canvas.drawing():
    axes = canvas.panel('', 'x', 'y')
    axes.errorbar([1.0], [2.0], xerr=[[0.5], [0.5]], yerr=[[1.0], [2.0]])
    _, (found,) = saved(axes, tmp_path)
  assert found['points'][0][2:] == ['1 [0.5, 1.5]', '2 [1, 4]']


def test_lines_across_axes_and_missing_values_are_no_points(tmp_path):
  with canvas.drawing():
    axes = canvas.panel('', 'x', 'y')
    axes.axhline(1)
    axes.axvline(1)
    axes.scatter([1, np.nan], [1, 1], label='_cloud')
    _, (found,) = saved(axes, tmp_path)
  assert found['name'] == 'cloud' and len(found['points']) == 1


def test_too_many_points_are_left_out_and_so_are_none(tmp_path):
  with canvas.drawing():
    axes = canvas.panel('', 'x', 'y')
    assert saved(axes, tmp_path)[1] == []
    axes.plot(np.zeros(hover.MOST + 1))
    assert saved(axes, tmp_path)[1] == []


SCRIPT = pathlib.Path(report.__file__).parent / 'page.js'
TABLE = """
const cell = (text, small = [], v) => ({
  dataset: v === undefined ? {} : {v}, firstChild: {textContent: text},
  textContent: text, querySelector: () => small[0],
  querySelectorAll: () => small.map(textContent => ({textContent})),
});
const row = (...cells) => ({cells});
process.stdout.write(csv({
  tHead: {rows: [row(cell('Map'), cell('τ'), cell('n'))]},
  tBodies: [{rows: [
    row(cell('a "b", c'), cell('−0.5', ['[−0.6, −0.4]']),
        cell('1', [], '1.25')),
    row(cell(''), cell('–'), cell('2')),
  ]}],
}));
"""


@pytest.mark.skipif(
  not shutil.which('node'),
  reason='the script of a page is JavaScript: it takes node, no Python package',
)
def test_a_table_is_saved_with_intervals_apart_and_every_name():
  code = re.search(r'function csv\(.*?\n}\n', SCRIPT.read_text(), re.S)[0]
  done = subprocess.run(
    ['node', '-e', code + TABLE], capture_output=True, text=True, check=True
  )
  assert done.stdout.splitlines() == [
    'Map,τ,"τ, interval",n',
    '"a ""b"", c",-0.5,"[-0.6, -0.4]",1.25',
    '"a ""b"", c",,,2',
  ]
