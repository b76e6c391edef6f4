"""Are bounds drawn where they are, and is it said how loose they are?"""

import pathlib

import numpy as np
import pytest

from implicit_attr.report import canvas, correlations, sweep_runs

KEYS = {
  'align/w1_sq_lambda': 8.0, 'align/mean_input_lambda': 2.0,
  'input_loss/lambda_max': 3.0,
}  # fmt: skip
ROWS = {
  'attention/entropy_ratio': 0.5, 'attention/spread_floor': 0.5,
  'attention/entropy': 2.0, 'attention/gap_cap': 0.3, 'attention/gap': 0.1,
}  # fmt: skip


def tree_of(ends: dict[str, float]) -> sweep_runs.Tree:
  """Three runs whose numbers are `ends` times 1, 2 and 3."""
  trials = [
    sweep_runs.Trial(
      name=f'{i}', path=pathlib.Path(f'{i}'), status='finished', step=1.0,
      message='', lr=0.1, batch=16.0, seed=i, family='MLP', group='MLP',
      objective='none', curves={},
      ends={key: i * value for key, value in ends.items()},
    )
    for i in (1, 2, 3)
  ]  # fmt: skip
  return sweep_runs.Tree(pathlib.Path('.'), trials, [], {}, {})


@pytest.fixture
def drawn(monkeypatch):
  """name -> axes of every panel, none of them rendered."""
  found = {}

  def save(target, folder, name, alt):
    found[name] = target.axes[0]
    return canvas.Image(folder / f'{name}.png', alt, 3.5)

  monkeypatch.setattr(canvas, 'save', save)
  return found


def points(axes):
  return np.array(axes.collections[0].get_offsets())


def assert_overlaid(axes, bounds, measured):
  """Points at (bound, measured), and y = x over the range of the bound."""
  np.testing.assert_allclose(points(axes), np.stack([bounds, measured], 1))
  (line,) = axes.lines
  x, y = line.get_data()
  np.testing.assert_array_equal(x, y)
  assert (x.min(), x.max()) == (min(bounds), max(bounds))


def test_both_ceilings_of_the_mean_input_hessian_are_overlaid(drawn, tmp_path):
  found = correlations.draw_bound(tree_of(KEYS), tmp_path)
  assert list(drawn) == ['link_bound_0', 'link_bound_1']
  measured = np.array([2.0, 4.0, 6.0])
  assert_overlaid(drawn['link_bound_0'], 4 * measured, measured)
  assert_overlaid(drawn['link_bound_1'], 1.5 * measured, measured)
  assert 'λ_max over λ_max of mean H in x: MLP 4.0.' in found.caption
  assert '‖H‖ of the loss over λ_max of mean H in x: MLP 1.5.' in found.caption


def test_bounds_of_attention_rows_are_overlaid_where_logged(drawn, tmp_path):
  found = correlations.draw_entropy(tree_of(ROWS), tmp_path)
  i = np.arange(1, 4)
  assert_overlaid(drawn['link_rows_0'], 0.5 * i, 2.0 * i)
  assert_overlaid(drawn['link_rows_1'], 0.3 * i, 0.1 * i)
  assert len(found.images) == 2
  assert 'Least entropy at this spread over Entropy: MLP 0.25.' in found.caption


def test_without_them_the_exhibit_is_as_it_was(drawn, tmp_path):
  only = {'attention/entropy_ratio': 0.5}
  found = correlations.draw_entropy(tree_of(only), tmp_path)
  assert not drawn and not found.images and 'dashed' not in found.caption
  assert correlations.draw_entropy(tree_of(KEYS), tmp_path) is None


def test_scatters_without_a_bound_have_no_line(drawn, tmp_path):
  ends = {'param/lambda_max': 1.0, 'input/lambda_max': 2.0}
  correlations.draw_curvature(tree_of(ends), tmp_path)
  assert not drawn['link_curvature_0'].lines
