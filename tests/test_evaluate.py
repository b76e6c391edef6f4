"""Does an evaluation write what its options ask for, measured once a step?"""

import collections
import json

import numpy as np
import pytest

from implicit_attr import report
from implicit_attr.configs import digits_mlp
from implicit_attr.evaluation import evaluate
from implicit_attr.train import experiment
from implicit_attr.train.lanes import Lanes

OFF = {'certificates': False, 'sanity': False, 'similarities': ()}


def small(**options):
  config = digits_mlp.get_config('smoke')
  config.model.widths = (6,)
  config.train.duration = '4 steps'
  config.evaluation.update({'steps': 1, 'checkpoints': ('last', 'train_loss')})
  config.evaluation.update(options)
  return experiment.build(config.to_dict())


def evaluated(built, path):
  """The JSON of the last state, which also is the one of a milestone."""
  state = built.init()
  known = [{'last': state, 'train_loss': state}]
  evaluate.evaluate(Lanes.of([built]), [path], known=known)
  return json.loads((path / 'evaluation' / 'last.json').read_text())


def counted(calls, cls, method):
  original = getattr(cls, method)

  def call(*args):
    calls[f'{cls.__name__}.{method}'] += 1
    return original(*args)

  return call


@pytest.fixture(scope='module')
def everything(tmp_path_factory):
  """(folder, its JSON, calls): all options on."""
  path, calls = tmp_path_factory.mktemp('run'), collections.Counter()
  built = small(
    certificates=True, sanity=True, curvature=16,
    similarities=('ssim', 'lens_recall'),
  )  # fmt: skip
  with pytest.MonkeyPatch.context() as patch:
    for cls in (evaluate.Spectrum, evaluate.Sanity):
      for method in ('__init__', '__call__'):
        patch.setattr(cls, method, counted(calls, cls, method))
    return path, evaluated(built, path), calls


def test_two_checkpoints_of_one_step_are_measured_once(everything):
  path, _, calls = everything
  assert len(calls) == 4 and set(calls.values()) == {1}
  for folder in ('evaluation', 'spectrum'):
    texts = [
      (path / folder / f'{name}.json').read_text()
      for name in ('last', 'train_loss')
    ]
    assert texts[0] == texts[1].replace('"train_loss"', '"last"', 1)


def test_options_are_rows_arrays_and_columns(everything):
  path, value, _ = everything
  for row in value['rows']:
    assert {'ssim', 'lens_recall'} <= set(row['metrics'])
    assert set(row['certificate']) == {'radius', 'certified', 'unbroken'}
  assert [row['test'] for row in value['sanity']] == [
    'parameters', 'parameters', 'labels'
  ]  # fmt: skip
  arrays = np.load(path / 'evaluation' / 'last.npz')
  assert arrays['sanity/gradient'].shape == (3, 8)
  assert arrays['certificate/gradient'].shape == (8,)
  numbers = json.loads((path / 'spectrum' / 'last.json').read_text())
  assert {'gauss_newton', 'residual'} <= set(numbers)
  text = report.as_text(report.load(path).evaluations['last'])
  for head in ('SSIM', 'LENS recall', 'Certified radius'):
    assert head in text


def test_radii_give_eps50_and_curves_for_the_attack_and_the_noise(tmp_path):
  # Wide radii, so that some images lose half of the set and some do not.
  radii = (0.01, 0.1, 1.0)
  value = evaluated(
    small(radii=radii, steps=4, examples=64, batch_size=32), tmp_path
  )
  arrays = np.load(tmp_path / 'evaluation' / 'last.npz')
  for row in value['rows']:
    name = f'gradient/{row["attack"]}'
    log2 = arrays[f'score/{name}/log2_eps50']
    right = arrays['correct/gradient']
    ends, share = arrays[f'radius/{name}/censored'], row['curve']['topk']
    left = arrays[f'radius/{name}/topk']
    assert right.any() and left.shape == (64, 3)
    assert row['curve']['eps'] == list(radii)
    np.testing.assert_allclose(share['mean'], left[right].mean(0), rtol=1e-6)
    np.testing.assert_array_equal(ends == -1, left[:, 0] <= 0.5)
    np.testing.assert_array_equal(ends == 1, (left > 0.5).all(1))
    inside = ends == 0
    assert np.all((log2[inside] > np.log2(0.01)) & (log2[inside] < 0))
    np.testing.assert_allclose(log2[ends == 1], 0, atol=1e-6)
    np.testing.assert_allclose(
      row['censored']['above'], (ends[right] == 1).mean(), rtol=1e-6
    )
    np.testing.assert_allclose(
      row['metrics']['log2_eps50']['mean'], log2[right].mean(), rtol=1e-5
    )
  attack, noise = value['rows']
  gap = np.subtract(
    noise['curve']['topk']['mean'], attack['curve']['topk']['mean']
  )
  want = np.trapezoid(gap, np.log2(radii)) / np.ptp(np.log2(radii))
  np.testing.assert_allclose(attack['area']['mean'], want, rtol=1e-5)
  assert gap.sum() > 0


def test_options_are_off_unless_asked_for(tmp_path):
  built = small()
  for name, value in OFF.items():
    assert getattr(built.settings.evaluation, name) == value
  value = evaluated(built, tmp_path)
  assert 'sanity' not in value
  assert not (tmp_path / 'spectrum').exists()
  for row in value['rows']:
    assert 'certificate' not in row
    assert set(row['metrics']) == {
      'topk', 'kendall', 'spearman', 'cosine', 'pearson'
    }  # fmt: skip


def test_a_run_from_before_an_option_is_evaluated_without_it(tmp_path):
  config = small().config
  for name in OFF:
    del config['evaluation'][name]
  evaluation = experiment.build(config).settings.evaluation
  assert {name: getattr(evaluation, name) for name in OFF} == OFF
