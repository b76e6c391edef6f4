"""Balls of ℓ∞, ℓ2, ℓ0 and patches inside the pixel box, and projections.

All radii are in pixel units. `eps` may be traced everywhere.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.similarity import images
from implicit_attr.types import Array


class Ball(NamedTuple):
  """The admissible images around x: inside a ball and inside the pixel box."""

  x: Array  # [B, H, W, C]
  eps: Array  # [], radius; for 'l0' a number of pixels
  norm: str
  bounds: tuple[float | Array, float | Array]
  mask: Array | None = None  # [B, H, W] or [H, W], for 'patch' only


class Projection(Protocol):
  def __call__(self, delta: Array, eps: Array, mask: Array | None) -> Array: ...


def _linf(delta: Array, eps: Array, mask: Array | None) -> Array:
  return jnp.clip(delta, -eps, eps)


def _l2(delta: Array, eps: Array, mask: Array | None) -> Array:
  # In rows, so that an image's sum is rounded alike in every batch.
  rows = delta.reshape(delta.shape[0], -1)
  # Scaled by the largest entry: squares of small steps underflow otherwise.
  top = jnp.max(jnp.abs(rows), -1, keepdims=True)
  unit = rows / jnp.where(top > 0, top, 1)
  norm = top * jnp.sqrt(jnp.sum(jnp.square(unit), -1, keepdims=True))
  shrink = jnp.where(norm > eps, eps / jnp.where(norm > 0, norm, 1), 1)
  return (rows * shrink).reshape(delta.shape)


def _l0(delta: Array, eps: Array, mask: Array | None) -> Array:
  size = jnp.sum(jnp.square(delta), -1).reshape(delta.shape[0], -1)
  order = jnp.argsort(size, axis=-1, stable=True, descending=True)
  keep = jnp.argsort(order, axis=-1) < eps
  return jnp.where(keep.reshape(*delta.shape[:-1], 1), delta, 0)


def _patch(delta: Array, eps: Array, mask: Array | None) -> Array:
  assert mask is not None  # `ball` asks for one
  mask = jnp.broadcast_to(mask, delta.shape[:-1])[..., None]
  return jnp.where(mask, jnp.clip(delta, -eps, eps), 0)


NORMS: dict[str, Projection] = {
  'linf': _linf,
  'l2': _l2,
  'l0': _l0,
  'patch': _patch,
}


def ball(
  x: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  bounds: tuple[float | Array, float | Array] = (0.0, 1.0),
  mask: Array | None = None,
) -> Ball:
  """The images within `eps` of x under `norm` and within `bounds`.

  Norms: 'linf' and 'l2' as usual; 'l0' counts changed pixels (all channels of
  a pixel are one), each changed without limit inside the box; 'patch' is
  'linf' on the pixels of `mask` ([H, W] or [B, H, W], bool) and nothing
  elsewhere.

  Raises:
    InputError: an unknown norm, or a mask missing, superfluous or misshapen.
  """
  errors.choose('norm', norm, NORMS)
  if norm == 'patch':
    shape = None if mask is None else jnp.shape(mask)
    fits = shape in (x.shape[1:3], x.shape[:3])
    errors.require('mask.shape', shape, fits, f'{x.shape[1:3]} or [B, H, W]')
    mask = jnp.asarray(mask, bool).reshape((-1, *x.shape[1:3]))
  else:
    errors.require('mask', 'an array', mask is None, "None unless norm='patch'")
  return Ball(x, jnp.asarray(eps, x.dtype), norm, bounds, mask)


def project(space: Ball, z: Array) -> Array:
  """The image z brought into the ball, then into the box; idempotent.

  Clipping to the box only shrinks a perturbation of an x inside the box, so
  the result lies in both, up to one rounding of x + delta.
  """
  delta = NORMS[space.norm](z - space.x, space.eps, space.mask)
  return jnp.clip(space.x + delta, *space.bounds)


def random_start(key: Array, space: Ball) -> Array:
  """An image drawn uniformly from the ball, then clipped to the box.

  'l0' draws the pixels uniformly and their new values uniformly in the box.
  The draw is a function of `key` and the image, see `images.keys`.
  """
  shape, kind, (low, high) = space.x.shape[1:], space.x.dtype, space.bounds

  def linf(key: Array, x: Array) -> Array:
    return space.eps * jax.random.uniform(key, shape, kind, -1, 1)

  def l2(key: Array, x: Array) -> Array:
    normal, radius = jax.random.split(key)
    delta = jax.random.normal(normal, shape, kind)
    shrink = jax.random.uniform(radius, (), kind) ** (1 / x.size)
    return space.eps * shrink * delta / jnp.linalg.norm(delta)

  def l0(key: Array, x: Array) -> Array:
    place, value = jax.random.split(key)
    order = jax.random.permutation(place, x[..., 0].size)
    new = jax.random.uniform(value, shape, kind, low, high)
    chosen = order.reshape(*shape[:-1], 1) < space.eps
    return jnp.where(chosen, new - x, 0)

  draw = {'l2': l2, 'l0': l0}.get(space.norm, linf)
  delta = jax.vmap(draw)(images.keys(key, space.x), space.x)
  return project(space, space.x + delta)
