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
