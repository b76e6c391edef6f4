"""Spectrum of the loss Hessian of a finished network, over many examples.

The offline measurement: a few eigenvalues at both ends, the trace, the norm
and the density, over many examples in the memory of one microbatch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature, keys, numerics
from implicit_attr.runtime.programs import Program
from implicit_attr.train import State, frozen
from implicit_attr.train.experiment import Experiment
from implicit_attr.types import Array, Batch, Tree

MICROBATCH = 64
TOP, ORDER, DRAWS = 5, 60, 8


class Spectrum:
  """The measurement as one program, for the states of one experiment.

  Of the mean loss over `evaluation.curvature` training images (rounded up to
  microbatches of 64, at most the set), in evaluation mode.
  """

  def __init__(self, experiment: Experiment):
    train_set = experiment.train_set
    size = min(MICROBATCH, len(train_set))
    wanted = experiment.settings.evaluation.curvature
    self._count = min(-(-wanted // size), len(train_set) // size)
    self._examples = self._count * size
    batch = experiment.probe_batch(self._examples)
    batches = {
      name: batch[name].reshape(self._count, size, *batch[name].shape[1:])
      for name in ('image', 'label')
    }
    seed = experiment.settings.seed
    streams = [keys.stream(seed, 'spectrum', i) for i in range(3)]
    self._rest = experiment.mesh.replicate((batches, streams))
    self._experiment = experiment
    self._program = Program(self._measure)

  def __call__(
    self, state: State
  ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(numbers for the JSON, arrays for the npz) of the loss Hessian in θ.

    Returns:
      'top' and 'bottom' eigenvalues with residual bounds (an eigenvalue lies
      that close to each), 'trace' and 'frobenius' with standard errors; arrays
      'grid', 'density' and 'density_se' of stochastic Lanczos quadrature, in
      eigenvalues per parameter.
    """
    numbers, arrays = jax.device_get(self._program(state, *self._rest))
    numbers = {name: np.asarray(v).tolist() for name, v in numbers.items()}
    return {**numbers, 'examples': self._examples}, arrays

  def _measure(self, state: State, batches: Batch, keys: list[Array]) -> Tree:
    experiment, params = self._experiment, state.params
    apply_fn = frozen(experiment.module, state.model_state)

    def batch_mean(params, batch):
      logits, _ = apply_fn(params, batch['image'])
      return jnp.mean(experiment.loss(logits, batch['label'])) / self._count

    with numerics.exact():
      total = curvature.microbatched(batch_mean)
      mvp = curvature.linearize_hvp(lambda p: total(p, batches), params)
      start = curvature.rademacher(keys[0], params)
      dimension = sum(p.size for p in jax.tree.leaves(params))
      order = min(ORDER, dimension)
      top = curvature.eigenpairs(mvp, start, k=TOP, which='top', order=order)
      low = curvature.eigenpairs(mvp, start, k=1, which='bottom', order=order)
      moments = curvature.moments(mvp, params, keys[1], draws=4 * DRAWS)
      rule = curvature.spectral_quadrature(
        mvp, params, keys[2], order=order, draws=DRAWS
      )
      grid, width = curvature.default_grid(rule, 512)
      density, error = curvature.smoothed(rule, grid, width)
    numbers = {
      'top': top.values, 'top_residuals': top.residuals,
      'bottom': low.values, 'bottom_residuals': low.residuals,
      'trace': moments.trace, 'trace_se': moments.trace_se,
      'frobenius': moments.frobenius, 'frobenius_se': moments.frobenius_se,
    }  # fmt: skip
    return numbers, {'grid': grid, 'density': density, 'density_se': error}
