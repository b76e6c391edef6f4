"""How does a signed map become numbers that can be ranked or weighed?"""

import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array


def pair(a: Array, b: Array) -> tuple[Array, Array]:
  """Two maps [B, ...] as [B, n] in one floating type.

  Raises:
    InputError: the shapes differ, or there is no axis beside the batch.
  """
  a, b = jnp.asarray(a), jnp.asarray(b)
  errors.require('a.shape', a.shape, a.ndim > 1, '[B, ...]')
  errors.require('b.shape', b.shape, a.shape == b.shape, f'{a.shape} as a is')
  kind = jnp.result_type(a, b, jnp.float32)
  n = a.size // max(a.shape[0], 1)
  return tuple(m.reshape(a.shape[0], n).astype(kind) for m in (a, b))


def planes(*maps: Array) -> tuple[Array, ...]:
  """Spatial maps [B, H, W], checked to have one shape.

  Raises:
    InputError: another number of axes, or shapes that differ.
  """
  maps = tuple(jnp.asarray(m) for m in maps)
  for name, m in zip('ab', maps, strict=False):
    ok = m.ndim == 3 and m.shape == maps[0].shape
    errors.require(f'{name}.shape', m.shape, ok, '[B, H, W], alike for both')
  return maps


def magnitude(a: Array) -> Array:
  """Sum over channels of |a|: [B, H, W, C] -> [B, H, W]; the rest only |a|.

  This is the map whose top-k set, ranks and mass every attack and table here
  speaks of, as in Ghorbani et al. (arXiv 1710.10547).
  """
  a = jnp.abs(a)
  if a.ndim != 4:
    return a
  # On a CPU a product with ones takes a third of the time of XLA's sum.
  return jnp.matmul(a, jnp.ones(a.shape[-1], a.dtype), precision='highest')


def mass(a: Array) -> Array:
  """`magnitude` divided by its sum over the map; a zero map stays zero."""
  a = magnitude(a)
  total = jnp.sum(a, tuple(range(1, a.ndim)), keepdims=True)
  return a / jnp.where(total > 0, total, 1)
