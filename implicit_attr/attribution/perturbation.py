"""Does a map foretell what the target loses when the image is changed?

The changes are given, so that two methods, or two libraries, can be scored on
the same ones; functions below draw those of the papers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.attribution.faithfulness import pixel_map
from implicit_attr.attribution.inputs import check, check_images, full
from implicit_attr.attribution.targets import target as target_of
from implicit_attr.types import ApplyFn, Array, Params


def infidelity(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  a: Array,
  changes: Array,
  *,
  target: str = 'logit',
  scaled: bool = False,
) -> Array:
  """E_I [(Iᵀ a - (f(x) - f(x - I)))²] (arXiv 1901.09392, definition 2.1).

  The map is read as a slope: the gradient of a linear target has 0, whatever
  the changes. Maps in units of the target (gradient times input, integrated
  gradients, LRP …) go through `per_unit` first. Changes are taken one after
  the other.

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    params: what `apply_fn` takes.
    x: [B, ...], floating, pixel units.
    y: the classes asked about; int [B].
    a: the map, signed, with the shape of x.
    changes: what is subtracted from x, [S, B, ...] or, the same for every
      example, [S, 1, ...]; pixel units.
    target: one of `TARGETS`.
    scaled: multiply each map by the number that fits it best to these
      changes, Σ Iᵀa Δf / Σ (Iᵀa)², 0 for 0 / 0, so that maps of different
      scale can be compared.

  Returns:
    [B], in units of the target, squared; low for a faithful map.

  Raises:
    InputError: shapes that do not fit, an unknown target.
  """
  x, y = check(apply_fn, params, x, y)
  a, changes = jnp.asarray(a, x.dtype), jnp.asarray(changes, x.dtype)
  errors.require('map.shape', a.shape, a.shape == x.shape, f'{x.shape}')
  wanted = [(1, *x.shape[1:]), x.shape]
  fits = changes.ndim > 0 and len(changes) and changes.shape[1:] in wanted
  errors.require(
    'changes.shape', changes.shape, bool(fits),
    ' or '.join(f'[S, {", ".join(map(str, w))}]' for w in wanted),
  )  # fmt: skip
  score = _scores(apply_fn, params, y, target)
  whole = score(x)

  def sides(change: Array) -> tuple[Array, Array]:
    foretold = jnp.sum(change * a, axis=tuple(range(1, x.ndim)))
    return foretold, whole - score(x - change)

  foretold, lost = jax.lax.map(sides, changes)
  if scaled:
    below = jnp.sum(foretold**2, axis=0)
    zero = below == 0
    best = jnp.sum(foretold * lost, axis=0) / jnp.where(zero, 1, below)
    foretold = jnp.where(zero, 0, best)[None] * foretold
  return jnp.mean((foretold - lost) ** 2, axis=0)


def per_unit(a: Array, x: Array, baseline: float | Array = 0.0) -> Array:
  """a / (x - baseline), 0 for 0 / 0: a map in units of the target as a slope.

  `baseline` as the method took it: a number, an image [...] or [B, ...].
  """
  difference = x - full('baseline', baseline, x)
  zero = difference == 0
  return jnp.where(zero, 0, a / jnp.where(zero, 1, difference))


def noisy_baselines(
  key: Array,
  x: Array,
  *,
  draws: int,
  sigma: float | Array = 0.2,
  baseline: float | Array = 0.0,
) -> Array:
  """x - (baseline + N(0, sigma²)), the paper's noisy baseline.

  Args:
    key: where the noise comes from, fresh for every example and draw.
    x: [B, ...], pixel units.
    draws: how many, S.
    sigma: of the noise, pixel units; may be traced.
    baseline: a number, an image [...] or one per example [B, ...].

  Returns:
    Changes for `infidelity`, [S, *x.shape].

  Raises:
    InputError: draws below one, a baseline that does not fit.
  """
  errors.number('draws', draws, 1, integer=True)
  start = full('baseline', baseline, x)
  noise = jax.random.normal(key, (draws, *x.shape), x.dtype)
  return (x - start)[None] - jnp.asarray(sigma, x.dtype) * noise


def squares(
  x: Array,
  *,
  window: int,
  stride: int = 1,
  baseline: float | Array = 0.0,
) -> Array:
  """x - baseline inside a square, 0 outside; the paper's square removal.

  Args:
    x: [B, H, W, C], pixel units.
    window: side of the square, pixels.
    stride: pixels between squares.
    baseline: what stands where a pixel is missing; as in `noisy_baselines`.

  Returns:
    Changes for `infidelity`, [S, *x.shape], row by row; all squares at
    multiples of the stride that lie inside the image.

  Raises:
    InputError: x not [B, H, W, C], a window larger than the image, a stride
      below one, a baseline that does not fit.
  """
  check_images(x)
  _, height, width, _ = x.shape
  errors.number('window', window, 1, min(height, width), integer=True)
  errors.number('stride', stride, 1, integer=True)
  rows, columns = (
    (np.arange(n) - start[:, None]) % n < window
    for n, start in (
      (n, np.arange(0, n - window + 1, stride)) for n in (height, width)
    )
  )
  inside = rows[:, None, :, None] & columns[None, :, None, :]
  inside = jnp.asarray(inside.reshape(-1, 1, height, width, 1))
  difference = x - full('baseline', baseline, x)
  return jnp.where(inside, difference[None], 0)


def sensitivity_n(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  a: Array,
  subsets: Array,
  *,
  target: str = 'logit',
  baseline: float | Array = 0.0,
) -> Array:
  """Correlation of Σ_{i ∈ S} a_i with what the target loses without S.

  Ancona et al. (arXiv 1711.06104): Pearson's, over the subsets, which there
  have n pixels each. 1 for gradient times input of a linear
  target, baseline 0. Subsets are taken one after the other.

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    params: what `apply_fn` takes.
    x: [B, H, W, C], floating, pixel units.
    y: the classes asked about; int [B].
    a: the map, signed, [B, H, W, C], or [B, H, W].
    subsets: bool [S, H, W], most often `random_subsets`.
    target: one of `TARGETS`.
    baseline: what stands where a pixel is missing: a number, [H, W, C] or
      [B, H, W, C].

  Returns:
    [B], -1 to 1; NaN where it is not defined, that is where one side is the
    same for all subsets (a constant map, all pixels at once).

  Raises:
    InputError: shapes that do not fit, subsets not bool, fewer than two, an
      unknown target.
  """
  x, y = check(apply_fn, params, x, y)
  check_images(x)
  a = pixel_map(a, x.shape[:3])
  fits = subsets.ndim == 3 and subsets.shape[1:] == x.shape[1:3]
  errors.require(
    'subsets.shape', subsets.shape, fits and len(subsets) > 1,
    f'(S, {x.shape[1]}, {x.shape[2]}) with S > 1',
  )  # fmt: skip
  errors.require(
    'subsets.dtype', str(subsets.dtype), subsets.dtype == bool, 'bool'
  )
  missing = full('baseline', baseline, x)
  score = _scores(apply_fn, params, y, target)
  whole = score(x)

  def sides(subset: Array) -> tuple[Array, Array]:
    without = jnp.where(subset[None, :, :, None], missing, x)
    foretold = jnp.sum(jnp.where(subset[None], a, 0), axis=(1, 2))
    return foretold, whole - score(without)

  foretold, lost = jax.lax.map(sides, subsets)
  return _pearson(foretold, lost)


def random_subsets(
  key: Array, shape: tuple[int, int], n: int | Array, *, draws: int
) -> Array:
  """`draws` random sets of exactly n pixels; bool [draws, H, W].

  `shape` is (H, W); n may be traced.
  """
  errors.number('draws', draws, 1, integer=True)
  height, width = shape
  noise = jax.random.uniform(key, (draws, height * width))
  ranks = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
  return (ranks < n).reshape(draws, height, width)


def _scores(apply_fn, params, y, target):
  return lambda x: target_of(target, apply_fn(params, x)[0], y)


def _pearson(u: Array, v: Array) -> Array:
  """Pearson's correlation along axis 0; NaN where one side is constant."""

  def unit(w: Array) -> tuple[Array, Array]:
    largest = lambda w: jnp.max(jnp.abs(w), axis=0, keepdims=True)
    centred = w - jnp.mean(w, axis=0, keepdims=True)
    spread = largest(centred)
    # Sums of the same numbers in another order differ by some roundings.
    flat = spread <= 32 * jnp.finfo(w.dtype).eps * largest(w)
    # Unit size, so that squares of small numbers do not underflow.
    return flat[0], centred / jnp.where(flat, 1, spread)

  (flat, u), (level, v) = unit(u), unit(v)
  size = jnp.sqrt(jnp.sum(u**2, axis=0) * jnp.sum(v**2, axis=0))
  undefined = flat | level
  both = jnp.sum(u * v, axis=0) / jnp.where(undefined, 1, size)
  return jnp.where(undefined, jnp.nan, both)
