"""Integrated gradients and expected gradients: what pixels add along a path.

The target's gradient is averaged along the straight line between the two and
multiplied by their difference, so that a map sums to the change of the target
(completeness; Sundararajan et al., arXiv 1703.01365, proposition 1), up to
the error of the rule that replaces the integral.

Points are taken `chunk` at a time: memory is that of `chunk` gradients and does
not grow with the number of points. Chunks are recomputed when differentiated,
unless one holds all. Sums are in float32 at least.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.attribution.gradients import gradient_of
from implicit_attr.attribution.inputs import check, check_key, full
from implicit_attr.types import ApplyFn, Array, Params


def _right(n: int) -> tuple[np.ndarray, np.ndarray]:
  return np.arange(1, n + 1) / n, np.full(n, 1 / n)


def _trapezoid(n: int) -> tuple[np.ndarray, np.ndarray]:
  errors.number('steps', n, 2, integer=True)
  weights = np.full(n, 1 / (n - 1))
  weights[[0, -1]] /= 2
  return np.linspace(0, 1, n), weights


def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
  nodes, weights = np.polynomial.legendre.leggauss(n)
  return (1 + nodes) / 2, weights / 2


RULES: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
  'right': _right,
  'trapezoid': _trapezoid,
  'gauss_legendre': _gauss_legendre,
}
"""Name -> function of n that returns n points in [0, 1] and their weights.

The error falls as 1/n, 1/n² and, for smooth targets, faster than any power.
"""

# Input numbers of a chunk that nobody sized: 1365 images of 32 x 32 x 3, with
# which 64 images of 16 points are one chunk.
CHUNK_NUMBERS = 2**22


def integrated_gradients(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  baseline: float | Array = 0.0,
  rule: str = 'gauss_legendre',
  steps: int = 16,
  chunk: int | None = None,
) -> Array:
  """(x - baseline) times the mean gradient between (arXiv 1703.01365, eq. 1).

  Args:
    apply_fn: (params, x) -> (logits [n, C], out), row by row: the points of a
      chunk come as one batch of n = chunk B rows.
    params: what `apply_fn` takes.
    x: [B, ...], floating, pixel units.
    y: the classes asked about; int [B].
    key: not used.
    target: one of `TARGETS`.
    baseline: a number, an image [...] or one per example [B, ...].
    rule: one of `RULES`.
    steps: points on the line, which is gradients per map.
    chunk: points evaluated together; time against memory, same map. None
      takes as many as `CHUNK_NUMBERS` has room for.

  Returns:
    Signed, in units of the target, with the shape of x. Differentiation
    follows the gradients along the line as well as the factor in front.

  Raises:
    InputError: as `gradient`; unknown rule; steps or chunk below one (two
      steps for the trapezoid); a baseline that does not fit.
  """
  del key
  x, y = check(apply_fn, params, x, y)
  errors.choose('rule', rule, RULES)
  errors.number('steps', steps, 1, integer=True)
  if chunk is None:
    parts = max(1, math.ceil(steps * x.size / CHUNK_NUMBERS))
    chunk = math.ceil(steps / parts)
  errors.number('chunk', chunk, 1, integer=True)
  points, weights = RULES[rule](steps)
  # Points of weight 0 fill the last chunk.
  chunk = min(chunk, steps)
  missing = -steps % chunk
  points = np.pad(points, (0, missing)).reshape(-1, chunk)
  weights = np.pad(weights, (0, missing)).reshape(-1, chunk)
  difference = x - full('baseline', baseline, x)
  grad = gradient_of(apply_fn, params, target)
  wide = jnp.promote_types(x.dtype, jnp.float32)

  def part(x: Array, difference: Array, points: Array, weights: Array) -> Array:
    back = jnp.reshape(1 - points, (chunk,) + (1,) * x.ndim)
    path = x[None] - back * difference[None]
    flat = path.reshape(-1, *x.shape[1:])
    gradients = grad(flat, jnp.tile(y, chunk)).reshape(path.shape)
    return jnp.tensordot(weights, gradients.astype(wide), axes=1)

  def step(total, nodes):
    return total + jax.checkpoint(part)(x, difference, *nodes), None

  nodes = jnp.asarray(points, x.dtype), jnp.asarray(weights, wide)
  if chunk == steps:
    mean = part(x, difference, *(a[0] for a in nodes))
  else:
    mean, _ = jax.lax.scan(step, jnp.zeros_like(x, dtype=wide), nodes)
  return (difference * mean).astype(x.dtype)


def expected_gradients(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  references: Array | None = None,
  samples: int = 25,
) -> Array:
  """Integrated gradients, averaged over baselines (arXiv 1906.10670, eq. 4).

  Each sample draws a reference and a point on its line; all examples of a
  batch meet the same draws.

  Args:
    apply_fn, params, x, y, target: as `integrated_gradients`.
    key: where the draws come from.
    references: images [N, ...] to draw baselines from, most often training
      images; None draws images of uniform noise in [0, 1].
    samples: gradients per map.

  Returns:
    Signed, in units of the target, with the shape of x. Its expectation sums
    to target(x) - E target(reference).

  Raises:
    InputError: as `gradient`; no key; references that do not fit.
  """
  x, y = check(apply_fn, params, x, y)
  errors.number('samples', samples, 1, integer=True)
  shape = x.shape[1:]
  if references is not None:
    references = jnp.asarray(references, x.dtype)
    fits = references.shape[1:] == shape and references.shape[:1] != (0,)
    errors.require('references.shape', references.shape, fits, f'[N, *{shape}]')
  grad = gradient_of(apply_fn, params, target)

  @jax.checkpoint
  def at(x: Array, key: Array) -> Array:
    reference_key, point_key = jax.random.split(key)
    if references is None:
      reference = jax.random.uniform(reference_key, shape, x.dtype)
    else:
      i = jax.random.randint(reference_key, (), 0, references.shape[0])
      reference = references[i]
    difference = x - reference[None]
    point = jax.random.uniform(point_key, (), x.dtype)
    return difference * grad(reference[None] + point * difference, y)

  def step(total, key):
    return total + at(x, key), None

  keys = jax.random.split(check_key(key), samples)
  wide = jnp.promote_types(x.dtype, jnp.float32)
  total, _ = jax.lax.scan(step, jnp.zeros_like(x, dtype=wide), keys)
  return (total / samples).astype(x.dtype)
