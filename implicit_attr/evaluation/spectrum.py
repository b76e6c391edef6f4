"""Hessian spectrum of a finished network, and its Gauss–Newton split H = G + R.

A few eigenvalues at both ends and the trace of the whole and of both parts;
of the whole also the norm and the density, by stochastic Lanczos quadrature.
Over many examples in the memory of one microbatch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature, keys, numerics
from implicit_attr.runtime.programs import Program
from implicit_attr.train import State, frozen
from implicit_attr.train.experiment import Experiment
from implicit_attr.types import Array, Batch, Mvp

MICROBATCH = 64
TOP, ORDER, DRAWS = 5, 60, 8
PARTS = {
  'gauss_newton': curvature.gauss_newton,
  'residual': curvature.residual_part,
}
"""(model, loss, params) -> the product of a part of the Hessian."""


class Spectrum:
  """The spectrum of the loss in the parameters, compiled once for all states.

  Of the mean loss over `evaluation.curvature` training images (rounded up to
  microbatches of 64, at most the set), in evaluation mode.
  """

  def __init__(self, experiment: Experiment):
    examples = experiment.settings.evaluation.curvature
    size = min(MICROBATCH, len(experiment.train_set))
    count = min(-(-examples // size), len(experiment.train_set) // size)
    batch = experiment.probe_batch(count * size)
    self._experiment, self._examples = experiment, count * size
    batches = {
      name: batch[name].reshape(count, size, *batch[name].shape[1:])
      for name in ('image', 'label')
    }
    seed = experiment.settings.seed
    streams = [keys.stream(seed, 'spectrum', i) for i in range(3)]
    self._rest = experiment.mesh.replicate((batches, streams))
    self._measure = Program(self._measured)

  def __call__(
    self, state: State
  ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(numbers for the JSON, arrays for the npz).

    Returns:
      'top' and 'bottom' eigenvalues with residual bounds (an eigenvalue lies
      that close to each), 'trace' and 'frobenius' with standard errors, and
      'examples'. Under 'gauss_newton' and 'residual' the same of G and of
      R = H - G, without 'bottom'; all three traces are of the same draws, so
      that they add up. Arrays 'grid', 'density' and 'density_se', in
      eigenvalues per parameter.
    """
    numbers, arrays = jax.device_get(self._measure(state, *self._rest))
    numbers = jax.tree.map(lambda a: np.asarray(a).tolist(), numbers)
    return {**numbers, 'examples': self._examples}, arrays

  def _measured(
    self, state: State, batches: Batch, keys: list[Array]
  ) -> tuple[dict, dict]:
    params = state.params
    apply_fn = frozen(self._experiment.module, state.model_state)
    count, loss = len(batches['label']), self._experiment.loss
    model = lambda batch: lambda params: apply_fn(params, batch['image'])[0]
    mean = lambda batch: (
      lambda logits: jnp.mean(loss(logits, batch['label'])) / count
    )
    total = curvature.microbatched(lambda p, b: mean(b)(model(b)(p)))

    def part(make_mvp):
      make = lambda batch: make_mvp(model(batch), mean(batch), params)
      return curvature.summed(make, batches)

    with numerics.exact():
      mvp = curvature.linearize_hvp(lambda p: total(p, batches), params)
      start = curvature.rademacher(keys[0], params)
      order = min(ORDER, sum(p.size for p in jax.tree.leaves(params)))

      def end(mvp: Mvp, which: str, k: int) -> dict[str, Array]:
        pairs = curvature.eigenpairs(mvp, start, k=k, which=which, order=order)
        return {which: pairs.values, f'{which}_residuals': pairs.residuals}

      def sizes(mvp: Mvp) -> dict[str, Array]:
        moments = curvature.moments(mvp, params, keys[1], draws=4 * DRAWS)
        return moments._asdict()

      numbers: dict[str, Any] = end(mvp, 'top', TOP) | end(mvp, 'bottom', 1)
      numbers |= sizes(mvp)
      for name, make_mvp in PARTS.items():
        one = part(make_mvp)
        numbers[name] = end(one, 'top', TOP) | sizes(one)
      rule = curvature.spectral_quadrature(
        mvp, params, keys[2], order=order, draws=DRAWS
      )
      grid, width = curvature.default_grid(rule, 512)
      density, error = curvature.smoothed(rule, grid, width)
    return numbers, {'grid': grid, 'density': density, 'density_se': error}
