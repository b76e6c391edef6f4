"""Does bfloat16 touch the passes of training, and nothing else?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import losses, models, objectives, train
from implicit_attr.configs import digits_mlp
from implicit_attr.train import experiment
from implicit_attr.train.advance import make_train_step
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.tracking import Tracker


@pytest.mark.parametrize(
  'name, options',
  [
    ('mlp', {'widths': (32,)}),
    ('cnn', {'width': 8}),
    ('resnet8', {'width': 8, 'norm': 'batch'}),
  ],
)
def test_a_gradient_in_bfloat16_is_that_of_float32_to_its_rounding(
  name, options
):
  module = models.build(name, num_classes=3, activation='gelu', **options)
  draw = np.random.default_rng(0)
  x = jnp.array(draw.random((64, 8, 8, 1)), jnp.float32)
  batch = {'image': x, 'label': jnp.array(draw.integers(0, 3, 64))}
  state = train.init(module, train.optimizer(), jax.random.key(0), x[:1])
  loss = losses.make('cross_entropy')
  make = objectives.make('none', loss, weight=None, options={})

  def sums(precision):
    run = train.make_sums(module, make, precision)
    key = jax.random.key(1)
    return jax.jit(run)(state.params, state.model_state, batch, key)

  exact, rounded = sums('float32'), sums('bfloat16')
  types = lambda tree: jax.tree.map(lambda a: a.dtype, tree)
  assert types(rounded) == types(exact)
  a, b = (ravel_pytree(s['grad'])[0] for s in (exact, rounded))
  error = jnp.linalg.norm(a - b) / jnp.linalg.norm(a)
  assert 1e-5 < error < 8 * 2**-8
  assert rounded['loss'] == pytest.approx(float(exact['loss']), rel=2**-7)


def test_tracking_and_the_state_are_float32_whatever_the_precision(tmp_path):
  config = digits_mlp.get_config('smoke')
  config.model.widths = (6,)
  rows = []
  for precision in ('float32', 'bfloat16'):
    config.train.precision = precision
    built = experiment.build(config.to_dict())
    state = built.init()
    tracker = Tracker(Lanes.of([built]), [tmp_path / precision])
    yes = np.array([True])
    memory = tracker.memory(state.params)
    rows.append(tracker(0, state, memory, yes, ~yes)[0])
    batch = built.train_set.batch_at(0)
    step = jax.jit(make_train_step(built))
    after, _ = step(state, batch, np.float32(0.1), np.uint32(0))
    rows[-1].append(after)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(after.params))
  (first, one), (second, other) = rows
  assert first == second
  pair = ravel_pytree(one.params)[0], ravel_pytree(other.params)[0]
  assert not np.array_equal(*pair)  # the option reached the step
