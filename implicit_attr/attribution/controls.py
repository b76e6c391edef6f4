"""Occlusion, and two controls: random maps and edges of the image.

`occlusion` needs values of the network only. `random_map` and `edges` do not
look at the network at all: a measure that cannot tell them from a method says
nothing about the method (Adebayo et al., arXiv 1810.03292).
"""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.attribution.inputs import (
  check,
  check_images,
  check_key,
  full,
)
from implicit_attr.attribution.targets import target as target_of
from implicit_attr.types import ApplyFn, Array, Params


def _starts(n: int, window: int, stride: int) -> np.ndarray:
  """Where windows start along n pixels; the last one ends at the edge."""
  starts = np.arange(0, n - window, stride)
  return np.append(starts, n - window)


def occlusion(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  window: int = 4,
  stride: int = 2,
  baseline: float | Array = 0.0,
) -> Array:
  """What the target loses when a window is covered (arXiv 1311.2901, sec. 4.2).

  Each pixel gets the mean over the windows that cover it, shared equally by
  its channels. Windows are taken one after the other.

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    params: what `apply_fn` takes.
    x: [B, H, W, C], floating, pixel units.
    y: the classes asked about; int [B].
    key: not used.
    target: one of `TARGETS`.
    window: side of the square window in pixels.
    stride: pixels between windows.
    baseline: what covers: a number, an image [H, W, C] or [B, H, W, C].

  Returns:
    Signed, in units of the target, with the shape of x.

  Raises:
    InputError: as `gradient`; a window larger than the image or a stride
      larger than the window.
  """
  del key
  x, y = check(apply_fn, params, x, y)
  check_images(x)
  _, height, width, channels = x.shape
  errors.number('window', window, 1, min(height, width), integer=True)
  errors.number('stride', stride, 1, window, integer=True)
  cover = full('baseline', baseline, x)
  corners = np.stack(
    np.meshgrid(
      _starts(height, window, stride),
      _starts(width, window, stride),
      indexing='ij',
    ),
    axis=-1,
  ).reshape(-1, 2)

  def score(x: Array) -> Array:
    return target_of(target, apply_fn(params, x)[0], y)

  def mask(corner: Array) -> Array:
    rows, columns = (
      (jnp.arange(n) >= c) & (jnp.arange(n) < c + window)
      for n, c in zip((height, width), corner, strict=True)
    )
    return rows[:, None] & columns[None, :]

  whole = score(x)
  wide = jnp.promote_types(whole.dtype, jnp.float32)

  @jax.checkpoint
  def lost(x: Array, cover: Array, whole: Array, corner: Array) -> Array:
    covered = mask(corner)[None, :, :, None]
    return whole - score(jnp.where(covered, cover, x))

  def step(carry, corner):
    total, count = carry
    here = mask(corner).astype(wide)
    loss = lost(x, cover, whole, corner)
    return (total + loss[:, None, None] * here[None], count + here), None

  zero = jnp.zeros(x.shape[:3], wide), jnp.zeros(x.shape[1:3], wide)
  (total, count), _ = jax.lax.scan(step, zero, jnp.asarray(corners))
  mean = (total / count[None]).astype(x.dtype)
  return jnp.broadcast_to(mean[..., None] / channels, x.shape)


def random_map(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
) -> Array:
  """Normal noise from `key`, the same for every example and every x.

  Perfectly robust and perfectly useless: the ceiling of every stability
  measure and the floor of every faithfulness measure.

  Raises:
    InputError: as `gradient`; no key.
  """
  del target
  x, y = check(apply_fn, params, x, y)
  noise = jax.random.normal(check_key(key), (1, *x.shape[1:]), x.dtype)
  return jnp.broadcast_to(noise, x.shape)


def edges(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
) -> Array:
  """Magnitude of the Sobel gradient of each channel, per pixel step.

  √(s + δ²) - δ of the squared magnitude s, δ = 0.001: smooth also where the
  image is flat, and 0 there. Borders are repeated. Not negative.

  Raises:
    InputError: as `gradient`; x not [B, H, W, C].
  """
  del key, target
  x, y = check(apply_fn, params, x, y)
  check_images(x)
  down = _across(_along(x, 1, (-1, 0, 1)), 2)
  right = _across(_along(x, 2, (-1, 0, 1)), 1)
  delta = 1e-3
  return jnp.sqrt(down**2 + right**2 + delta**2) - delta


def _along(x: Array, axis: int, weights: tuple[int, int, int]) -> Array:
  """Correlation with three weights along `axis`, borders repeated."""
  n = x.shape[axis]
  pads = [(0, 0)] * x.ndim
  pads[axis] = (1, 1)
  padded = jnp.pad(x, pads, mode='edge')
  before, here, after = (
    w * jax.lax.slice_in_dim(padded, i, i + n, axis=axis)
    for i, w in enumerate(weights)
  )
  return (before + here + after) / sum(map(abs, weights))


def _across(x: Array, axis: int) -> Array:
  return _along(x, axis, (1, 2, 1))
