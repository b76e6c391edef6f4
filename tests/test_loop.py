"""Does the loop compile once, keep the first of its kind, and stop in time?"""

import dataclasses

import jax
import numpy as np
import pytest

from configs import digits_mlp
from implicit_attr.runs.checkpoint import Checkpoints
from implicit_attr.train import experiment, loop


@pytest.fixture(scope='module')
def built():
  config = digits_mlp.get_config('smoke')
  config.optim.update({'momentum': 0.9, 'schedule': 'cosine'})
  return experiment.build(config.to_dict())


def test_a_run_compiles_its_step_once(built):
  traces = []
  make = built.make_loss_fn

  def counted(apply_fn):
    traces.append(1)
    return make(apply_fn)

  train_step = loop.make_train_step(
    dataclasses.replace(built, make_loss_fn=counted)
  )
  state = built.mesh.replicate(built.init())
  for i, seed in enumerate((0, 0, 1, 2)):
    batch = built.mesh.split(built.train_set.batch_at(i))
    rate = built.learning_rates[i]
    state, _ = train_step(state, batch, rate, np.uint32(seed))
  assert int(state.step) == 4 and len(traces) == 1


def test_a_milestone_is_the_first_state_that_reached_it(built, tmp_path):
  state = built.init()
  milestones = loop.Milestones(
    tmp_path, {'train_loss': 0.5, 'test_accuracy': 0.9}
  )
  record = lambda loss, accuracy: {
    'eval/train_loss': loss, 'eval/accuracy': accuracy,
  }  # fmt: skip
  at = lambda step: dataclasses.replace(state, step=np.int32(step))
  assert milestones(0, record(2.0, 0.1), at(0)) == {}
  assert milestones(5, record(0.5, 0.8), at(5)) == {'milestone/train_loss': 5}
  assert milestones(10, record(0.9, 0.7), at(10)) == {}
  assert milestones(15, record(0.1, 0.95), at(15)) == {
    'milestone/test_accuracy': 15
  }
  assert milestones(20, record(0.0, 0.99), at(20)) == {}
  milestones.close()
  for name, step in (('train_loss', 5), ('test_accuracy', 15)):
    kept = Checkpoints(tmp_path / name)
    assert kept.steps() == [step]
    like = jax.device_get(state)
    assert kept.restore(step, {'state': like})[0]['state'].step == step
    kept.close()


def test_divergence_is_found_at_the_update_that_diverged():
  sums = [{'loss': v, 'correct': 1.0, 'n': 2.0} for v in (4.0, 2.0, np.inf)]
  rates = np.ones(10, np.float32)
  means = loop.means(7, sums[:2], rates)
  assert means['train/loss'] == 1.5 and means['train/accuracy'] == 0.5
  with pytest.raises(loop.Diverged, match='diverged at step 6'):
    loop.means(7, sums, rates)
  with pytest.raises(loop.Diverged, match='param/trace'):
    loop.finite(3, {'param/trace': float('nan'), 'eval/loss': 1.0})


def test_a_state_that_is_not_finite_is_never_saved(built):
  state = built.init()
  bad = jax.tree.map(lambda p: p * np.nan, state.params)
  with pytest.raises(loop.Diverged, match='a weight'):
    loop.check(3, [], dataclasses.replace(state, params=bad))
