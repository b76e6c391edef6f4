"""What does tracking cost, and what does each measurement leave behind?"""

import logging
import pathlib
import time

import jax
import numpy as np

from implicit_attr import keys, numerics, probes
from implicit_attr.cadence import clock
from implicit_attr.experiment import Experiment
from implicit_attr.train import State, frozen
from implicit_attr.types import Tree

LOG = logging.getLogger(__name__)


class Tracker:
  """All probes as one compiled function, on examples that never change.

  Parameter and input curvature are measured at the same step on the same
  examples. `memory` is what the next measurement starts from (the last top
  eigenvector); it is part of the checkpoint, so that a resumed run measures
  the same numbers.
  """

  def __init__(self, experiment: Experiment, workdir: pathlib.Path):
    config = experiment.config['track']
    self._seed = experiment.config['seed']
    self._workdir = workdir
    self._mesh = experiment.mesh
    self.measurements, self.seconds = 0, 0.0
    self._compiled = None
    self._batch = experiment.probe_batch(config['examples'])
    self._sharp = jax.tree.map(
      lambda *a: np.stack(a),
      *(
        {k: b[k] for k in ('image', 'label')}
        for b in map(
          experiment.train_set.batch_at, range(config['sharpness_batches'])
        )
      ),
    )

    def measure(params, model_state, batch, sharp, memory, key):
      apply_fn = frozen(experiment.module, model_state)
      with numerics.exact():
        parameter, vector = probes.parameter_curvature(
          apply_fn, experiment.loss, params, batch, memory, key,
          order=config['order'], tol=config['tol'], draws=config['draws'],
        )  # fmt: skip
        found = {
          **parameter,
          **probes.batch_sharpness(apply_fn, experiment.loss, params, sharp),
          **probes.input_curvature(
            apply_fn, experiment.loss, params, batch, key,
            order=config['input_order'],
            tol=config['input_tol'],
          ),
          **probes.confounders(apply_fn, params, batch),
        }  # fmt: skip
      found['param/w1_sq_lambda'] = (
        found['param/w1_norm'] ** 2 * found['param/lambda_max']
      )
      return found, vector

    self._measure = jax.jit(measure)

  def memory(self, params: Tree) -> Tree:
    """Where the first measurement starts: noise shaped like `params`."""
    leaves, tree = jax.tree.flatten(params)
    draw = np.random.default_rng(0)
    return jax.tree.unflatten(
      tree, [draw.standard_normal(p.shape).astype(p.dtype) for p in leaves]
    )

  def __call__(
    self, step: int, state: State, memory: Tree
  ) -> tuple[dict[str, float], Tree]:
    """(record, new memory); per-example arrays go to probes/<step>.npz."""
    key = keys.stream(self._seed, 'track', step)
    args = (
      state.params, state.model_state, self._mesh.split(self._batch),
      self._mesh.replicate(self._sharp), memory, key,
    )  # fmt: skip
    if self._compiled is None:
      started = time.perf_counter()
      self._compiled = self._measure.lower(*args).compile()
      spent = time.perf_counter() - started
      LOG.info('compiled the probes in %s', clock(spent))
    jax.block_until_ready(state.params)
    started = time.perf_counter()
    found, memory = self._compiled(*args)
    found = jax.device_get(found)
    self.seconds += time.perf_counter() - started
    self.measurements += 1
    arrays = {name: a for name, a in found.items() if np.ndim(a)}
    folder = self._workdir / 'probes'
    folder.mkdir(exist_ok=True)
    np.savez(folder / f'{step:08d}.npz', index=self._batch['index'], **arrays)
    return {name: float(np.mean(a)) for name, a in found.items()}, memory

  def summary(self, wall: float) -> None:
    """Logs what tracking cost of `wall` seconds of training and tracking."""
    training = max(wall - self.seconds, 1e-9)
    LOG.info(
      'tracking: %d measurements in %s, %.1f%% of %s of training',
      self.measurements, clock(self.seconds), 100 * self.seconds / training,
      clock(training),
    )  # fmt: skip
