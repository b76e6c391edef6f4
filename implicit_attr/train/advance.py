"""Programs that make a span of updates, of a run or of lanes, in one call."""

from collections.abc import Callable

import jax
import numpy as np

from implicit_attr import data, keys
from implicit_attr.runtime.programs import Program
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.step import make_advance, make_sums, make_update

REPORTED = ('loss', 'correct', 'n')
"""What an update says of itself: sums over the examples of its batch."""


def make_train_step(experiment: Experiment) -> Callable:
  """(state, batch, lr, seed) -> (state, sums `REPORTED`), to be jitted.

  Learning rate and seed are traced: one compilation serves a whole run and,
  through the persistent cache, a sweep over both.
  """
  sums = experiment.mesh.sums(
    make_sums(
      experiment.module,
      experiment.make_loss_fn,
      experiment.settings.train.precision,
    )
  )
  optim = experiment.settings.optim
  update = make_update(experiment.tx, optim.average)
  if experiment.mesh.mode == 'pmap':  # `sums` is spread and compiled already
    update = jax.jit(update, donate_argnums=0)

  def train_step(state, batch, lr, seed):
    key = keys.stream(seed, 'train', state.step)
    new = sums(state.params, state.model_state, batch, key)
    return update(state, new, lr), {name: new[name] for name in REPORTED}

  return train_step


def make_program(lanes: Lanes) -> Callable:
  """(values, active, state, rates, draws, n, table) -> (state, sums).

  Makes `n` updates. All but `draws`, `n` and `table` begin with the lane axis
  where there is one; rates and sums then have one [K] for the updates. The
  updates of a lane that is not active are no-ops. The state is donated. A
  `Program`, or for pmap a function that compiles when it is called.
  """
  mesh = lanes.template.mesh
  if mesh.mode == 'pmap':
    return _one_by_one(lanes.template)

  def advance(values, active, state, rates, draws, n, table):
    train_step = make_train_step(lanes.bind(values))
    table = lanes.pick_images(table, values)

    def step(state, one):
      lr, draw = one
      batch = data.assemble(table, draw)
      move = lambda: train_step(state, batch, lr, values['seed'])
      return lanes.only(active, move, state)

    return make_advance(step)(state, (rates, lanes.pick(draws, values)), n)

  spread = lanes.spread(advance, shared=(4, 5, 6))
  return Program(spread, donate_argnums=2, out_shardings=mesh.whole)


def _one_by_one(experiment: Experiment) -> Callable:
  """What `make_program` does, an update a call: pmap is a call by itself."""
  train_step, assemble = make_train_step(experiment), jax.jit(data.assemble)

  def advance(values, active, state, rates, draws, n, table):
    sums = []
    for i in range(n):
      batch = assemble(table, jax.tree.map(lambda a: a[i], draws))
      state, new = train_step(state, batch, rates[i], values['seed'])
      sums.append(new)
    return state, jax.tree.map(lambda *a: np.stack(a), *sums)

  return advance
