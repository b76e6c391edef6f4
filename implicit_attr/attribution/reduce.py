"""How does a map with channels become one number per pixel, and at what scale?

Nothing here is applied silently: methods return signed maps [B, H, W, C], and
whoever ranks, compares or draws them says which of these it used.
"""

import jax.numpy as jnp

from implicit_attr.types import Array


def sum_abs(a: Array) -> Array:
  """Σ_c |a_c|: evidence for or against counts; [B, H, W, C] -> [B, H, W]."""
  return jnp.sum(jnp.abs(a), axis=-1)


def abs_sum(a: Array) -> Array:
  """|Σ_c a_c|: channels that disagree cancel; [B, H, W, C] -> [B, H, W]."""
  return jnp.abs(jnp.sum(a, axis=-1))


def max_abs(a: Array) -> Array:
  """max_c |a_c| (arXiv 1312.6034, section 3.1); [B, H, W, C] -> [B, H, W]."""
  return jnp.max(jnp.abs(a), axis=-1)


def l2(a: Array) -> Array:
  """√ Σ_c a_c², with gradient 0 where all channels are 0; -> [B, H, W]."""
  squares = jnp.sum(a**2, axis=-1)
  zero = squares == 0
  return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))


def unit_sum(a: Array) -> Array:
  """a / Σ |a|: absolute values of a map [H, W] sum to 1.

  A map that is 0 everywhere stays so, here and in the other scalings. Signs
  are kept, shapes [B, H, W] too.
  """
  return _divide(a, jnp.sum(jnp.abs(a), axis=(1, 2), keepdims=True))


def unit_mean(a: Array) -> Array:
  """a / mean |a|: absolute values of a map [H, W] sum to H W."""
  return _divide(a, jnp.mean(jnp.abs(a), axis=(1, 2), keepdims=True))


def unit_max(a: Array) -> Array:
  """a / max |a|: values of a map [H, W] lie in [-1, 1]."""
  return _divide(a, jnp.max(jnp.abs(a), axis=(1, 2), keepdims=True))


def _divide(a: Array, scale: Array) -> Array:
  return a / jnp.where(scale == 0, 1, scale)
