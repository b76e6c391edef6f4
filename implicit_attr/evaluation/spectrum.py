"""What does the whole Hessian spectrum of a finished network look like?

The offline measurement: a few eigenvalues at both ends, the trace, the norm
and the density, over many examples in the memory of one microbatch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature, keys, numerics
from implicit_attr.train import State, frozen
from implicit_attr.train.experiment import Experiment

MICROBATCH = 64
TOP, ORDER, DRAWS = 5, 60, 8


def spectrum(
  experiment: Experiment, state: State, examples: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """(numbers for the JSON, arrays for the npz) of the loss Hessian in θ.

  The mean loss over `examples` training images (rounded up to microbatches of
  64, at most the set), in evaluation mode.

  Returns:
    'top' and 'bottom' eigenvalues with residual bounds (an eigenvalue lies
    that close to each), 'trace' and 'frobenius' with standard errors; arrays
    'grid', 'density' and 'density_se' of stochastic Lanczos quadrature, in
    eigenvalues per parameter.
  """
  size = min(MICROBATCH, len(experiment.train_set))
  count = min(-(-examples // size), len(experiment.train_set) // size)
  found = experiment.probe_batch(count * size)
  batches = {
    name: found[name].reshape(count, size, *found[name].shape[1:])
    for name in ('image', 'label')
  }

  def measure(params, model_state, batches, keys):
    apply_fn = frozen(experiment.module, model_state)

    def batch_mean(params, batch):
      logits, _ = apply_fn(params, batch['image'])
      return jnp.mean(experiment.loss(logits, batch['label'])) / count

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

  seed = experiment.config['seed']
  streams = [keys.stream(seed, 'spectrum', i) for i in range(3)]
  numbers, arrays = jax.device_get(
    jax.jit(measure)(state.params, state.model_state, batches, streams)
  )
  numbers = {name: np.asarray(v).tolist() for name, v in numbers.items()}
  return {**numbers, 'examples': count * size}, arrays
