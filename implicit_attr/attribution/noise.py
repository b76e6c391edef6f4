"""SmoothGrad, SmoothGrad-Squared, VarGrad: moments of the gradient under noise.

Every example of a batch meets the same noise, drawn from `key`. So a map does
not depend on the batch it was computed in, and the map before and after an
attack differ by the attack only. Noise is not clipped: the average is then
exactly a gradient of the Gaussian-smoothed target, and smooth in x. Sums are
in float32 at least.

Samples are taken one after the other and recomputed when differentiated:
memory is that of one gradient and does not grow with `samples`.
"""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attribution.gradients import gradient_of
from implicit_attr.attribution.inputs import check, check_key, known
from implicit_attr.types import ApplyFn, Array, Params


def _moments(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  key: Array | None,
  target: str,
  samples: int,
  sigma: float | Array,
) -> tuple[Array, Array]:
  """Mean and variance (1 / samples) of the gradient over the noise."""
  x, y = check(apply_fn, params, x, y)
  errors.number('samples', samples, 1, integer=True)
  if known(sigma):
    errors.number('sigma', sigma, 0)
  grad = gradient_of(apply_fn, params, target)

  @jax.checkpoint
  def at(x: Array, key: Array) -> Array:
    noise = jax.random.normal(key, (1, *x.shape[1:]), x.dtype)
    return grad(x + jnp.asarray(sigma, x.dtype) * noise, y)

  def step(carry, draw):
    # Welford: no difference of large squares, and no variance where the
    # gradient is constant.
    mean, squares = carry
    i, key = draw
    change = at(x, key) - mean
    n = (i + 1).astype(mean.dtype)
    return (mean + change / n, squares + change**2 * (n - 1) / n), None

  zero = jnp.zeros_like(x, dtype=jnp.promote_types(x.dtype, jnp.float32))
  draws = jnp.arange(samples), jax.random.split(check_key(key), samples)
  (mean, squares), _ = jax.lax.scan(step, (zero, zero), draws)
  return mean, squares / samples


def smoothgrad(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  samples: int = 25,
  sigma: float | Array = 0.15,
) -> Array:
  """Mean gradient at x + N(0, sigma²) (Smilkov et al., arXiv 1706.03825).

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    params: what `apply_fn` takes.
    x: [B, ...], floating, pixel units.
    y: the classes asked about; int [B].
    key: where the noise comes from; the same key, the same map.
    target: one of `TARGETS`.
    samples: gradients per map.
    sigma: standard deviation of the noise in pixel units; may be traced.

  Returns:
    Signed, per pixel unit, with the shape of x.

  Raises:
    InputError: as `gradient`; no key; samples below one.
  """
  mean, _ = _moments(apply_fn, params, x, y, key, target, samples, sigma)
  return mean.astype(jnp.result_type(x))


def smoothgrad_squared(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  samples: int = 25,
  sigma: float | Array = 0.15,
) -> Array:
  """Mean squared gradient under noise (Hooker et al., arXiv 1806.10758).

  Not negative, per pixel unit squared: a gradient below 1e-19 gives 0 in
  float32, here and in `vargrad`. Arguments as `smoothgrad`.
  """
  mean, variance = _moments(apply_fn, params, x, y, key, target, samples, sigma)
  return (mean**2 + variance).astype(jnp.result_type(x))


def vargrad(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  samples: int = 25,
  sigma: float | Array = 0.15,
) -> Array:
  """Variance (1 / samples) of the gradient under noise (arXiv 1810.03307).

  Not negative, per pixel unit squared, exactly 0 for a linear target;
  arguments as `smoothgrad`.
  """
  _, variance = _moments(apply_fn, params, x, y, key, target, samples, sigma)
  return variance.astype(jnp.result_type(x))
