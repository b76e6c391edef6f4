"""Do two maps point in the same direction, or lie close in value?"""

import jax.numpy as jnp

from implicit_attr.similarity.maps import pair
from implicit_attr.types import Array


def cosine(a: Array, b: Array, *, absolute: bool = False) -> Array:
  """a·b / (‖a‖‖b‖) of maps [B, ...] -> [B]; NaN where a map is zero.

  Signed maps give a value in [-1, 1]; `absolute` compares |a| with |b|, which
  forgives a change of sign and lies in [0, 1].
  """
  a, b = pair(a, b)
  if absolute:
    a, b = jnp.abs(a), jnp.abs(b)
  # Scaled first: the squares of a saturated network's map would underflow.
  a = a / jnp.max(jnp.abs(a), -1, keepdims=True)
  b = b / jnp.max(jnp.abs(b), -1, keepdims=True)
  norm = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
  return jnp.clip(jnp.sum(a * b, -1) / norm, -1, 1)


def pearson(a: Array, b: Array) -> Array:
  """Cosine of the maps less their means; [B, ...] -> [B].

  NaN where a map is constant.
  """
  a, b = pair(a, b)
  a = a - jnp.mean(a, -1, keepdims=True)
  b = b - jnp.mean(b, -1, keepdims=True)
  return cosine(a, b)


def mse(a: Array, b: Array) -> Array:
  """Mean squared difference of the maps' mass; [B, ...] -> [B].

  Each map is first made |a| / Σ|a|, so the scale of a map does not count:
  the normalisation of Dombrowski et al. (arXiv 1906.07983). The value is of
  the order 1 / n² for n entries.
  """
  a, b = (jnp.abs(m) for m in pair(a, b))
  a = a / jnp.sum(a, -1, keepdims=True)
  b = b / jnp.sum(b, -1, keepdims=True)
  return jnp.mean(jnp.square(a - b), -1)
