"""Maps with channels as one number per pixel: sums, the largest, the length.

Nothing here is applied silently: methods return signed maps [B, H, W, C], and
whoever ranks, compares or draws them says which of these it used. Integers and
booleans are taken as float32, here and wherever this folder takes a map.
"""

import jax
import jax.numpy as jnp

from implicit_attr.types import Array


def floating(a: Array) -> Array:
  """The map `a` as it is, if its type is floating, else in float32."""
  a = jnp.asarray(a)
  return a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(jnp.float32)


def sum_abs(a: Array) -> Array:
  """Σ_c |a_c|: evidence for or against counts; [B, H, W, C] -> [B, H, W]."""
  return jnp.sum(jnp.abs(floating(a)), axis=-1)


def abs_sum(a: Array) -> Array:
  """|Σ_c a_c|: channels that disagree cancel; [B, H, W, C] -> [B, H, W]."""
  return jnp.abs(jnp.sum(floating(a), axis=-1))


def max_abs(a: Array) -> Array:
  """max_c |a_c| (arXiv 1312.6034, section 3.1); [B, H, W, C] -> [B, H, W]."""
  return jnp.max(jnp.abs(floating(a)), axis=-1)


def l2(a: Array) -> Array:
  """√ Σ_c a_c², with gradient 0 where all channels are 0; -> [B, H, W]."""
  a = floating(a)
  # The largest becomes 1, so that squares of small numbers do not underflow.
  top = jax.lax.stop_gradient(max_abs(a))
  zero = top == 0
  a = a / jnp.where(zero, 1, top)[..., None]
  squares = jnp.where(zero, 1, jnp.sum(a**2, axis=-1))
  return jnp.where(zero, 0, top * jnp.sqrt(squares))
