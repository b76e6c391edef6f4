"""Attribution maps as numbers that can be ranked, weighed and measured.

Integers and booleans become float32 at the door: sums of uint8 would wrap.
"""

import math

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array


def floating(a: Array) -> Array:
  """`a` in float32, or float64 if it is; integers and booleans too."""
  a = jnp.asarray(a)
  return a.astype(jnp.result_type(a, jnp.float32))


def rows(a: Array) -> Array:
  """[B, ...] as [B, n] in a floating type, also for B = 0."""
  return floating(a).reshape(a.shape[0], math.prod(a.shape[1:]))


def pair(a: Array, b: Array) -> tuple[Array, Array]:
  """Two maps [B, ...] as [B, n] in one floating type.

  Raises:
    InputError: the shapes differ, or a map has no entries.
  """
  a, b = jnp.asarray(a), jnp.asarray(b)
  ok = a.ndim > 1 and 0 not in a.shape[1:]
  errors.require('a.shape', a.shape, ok, '[B, ...] with an entry a map')
  errors.require('b.shape', b.shape, a.shape == b.shape, f'{a.shape} as a is')
  kind = jnp.result_type(a, b, jnp.float32)
  return rows(a.astype(kind)), rows(b.astype(kind))


def planes(*maps: Array) -> tuple[Array, ...]:
  """Spatial maps [B, H, W] in a floating type, checked to have one shape.

  Raises:
    InputError: another number of axes, shapes that differ, or no pixel.
  """
  maps = tuple(floating(m) for m in maps)
  for name, m in zip('ab', maps, strict=False):
    ok = m.ndim == 3 and m.shape == maps[0].shape and 0 not in m.shape[1:]
    errors.require(f'{name}.shape', m.shape, ok, '[B, H, W], alike for both')
  return maps


def ordered(*maps: Array) -> Array:
  """Has every map something to rank: no NaN, and two different values? [B].

  False for a constant map, so for all zeros and for a single pixel.
  """
  flat = [rows(m) for m in maps]
  # A NaN is the largest and the smallest, and not above itself.
  spread = [jnp.max(m, -1) > jnp.min(m, -1) for m in flat]
  return jnp.all(jnp.stack(spread), 0)


def norms(a: Array) -> Array:
  """‖a‖₂ of each example; [B, ...] -> [B].

  Scaled by the largest entry, so that squares neither underflow nor overflow;
  the derivative at 0 is 0.
  """
  a = rows(a)
  top = jax.lax.stop_gradient(jnp.max(jnp.abs(a), -1, keepdims=True))
  top = jnp.where(top > 0, top, 1)
  square = jnp.sum(jnp.square(a / top), -1)
  nothing = square == 0
  root = jnp.sqrt(jnp.where(nothing, 1, square))
  return jnp.where(nothing, 0, top[:, 0] * root)


def magnitude(a: Array) -> Array:
  """Sum over channels of |a|: [B, H, W, C] -> [B, H, W]; the rest only |a|.

  This is the map whose top-k set, ranks and mass every attack and table here
  speaks of, as in Ghorbani et al. (arXiv 1710.10547).
  """
  a = jnp.abs(floating(a))
  if a.ndim != 4:
    return a
  # On a CPU a product with ones takes a third of the time of XLA's sum.
  return jnp.matmul(a, jnp.ones(a.shape[-1], a.dtype), precision='highest')


def mass(a: Array) -> Array:
  """`magnitude` divided by its sum over the map.

  A zero map stays zero; one with a NaN is NaN throughout.
  """
  a = magnitude(a)
  return share(a, jnp.sum(a, tuple(range(1, a.ndim)), keepdims=True))


def share(part: Array, total: Array) -> Array:
  """part / total, 0 where both are; slopes too neither under- nor overflow."""
  # The slope of a quotient asks for the square of what is below the line.
  scale = jax.lax.stop_gradient(jnp.where(total == 0, 1, total))
  total = total / scale
  return part / scale / jnp.where(total == 0, 1, total)
