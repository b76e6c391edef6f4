"""Cosine, Pearson's correlation and mean squared error of two maps."""

import jax.numpy as jnp

from implicit_attr.similarity.maps import pair
from implicit_attr.types import Array


def cosine(a: Array, b: Array, *, absolute: bool = False) -> Array:
  """a·b / (‖a‖‖b‖) of maps [B, ...] -> [B], at any scale.

  Signed maps give a value in [-1, 1]; `absolute` compares |a| with |b|, which
  forgives a change of sign and lies in [0, 1]. NaN where a map is zero or has
  a NaN; ±1 for constant maps and for single pixels.
  """
  a, b = pair(a, b)
  if absolute:
    a, b = jnp.abs(a), jnp.abs(b)
  # Scaled first: the squares of a saturated network's map would underflow.
  a = a / jnp.max(jnp.abs(a), -1, keepdims=True)
  b = b / jnp.max(jnp.abs(b), -1, keepdims=True)
  norm = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
  return jnp.clip(jnp.sum(a * b, -1) / norm, -1, 1)


def centred(a: Array) -> Array:
  """[B, n] less its mean; exactly 0 for a constant map."""
  # Less an entry of its own first: the mean of equal entries is rounded.
  a = a - a[:, :1]
  return a - jnp.mean(a, -1, keepdims=True)


def pearson(a: Array, b: Array) -> Array:
  """Cosine of the maps less their means; [B, ...] -> [B], in [-1, 1].

  NaN where a map is constant (zero, a single pixel) or has a NaN.
  """
  a, b = pair(a, b)
  return cosine(centred(a), centred(b))


def mse(a: Array, b: Array) -> Array:
  """Mean squared difference of the maps' mass; [B, ...] -> [B].

  Each map is first made |a| / Σ|a|, so the scale of a map does not count:
  the normalisation of Dombrowski et al. (arXiv 1906.07983). The value is of
  the order 1 / n² for n entries. NaN where a map is zero or has a NaN; 0 for
  constant maps and for single pixels.
  """
  a, b = (jnp.abs(m) for m in pair(a, b))
  a = a / jnp.sum(a, -1, keepdims=True)
  b = b / jnp.sum(b, -1, keepdims=True)
  return jnp.mean(jnp.square(a - b), -1)
