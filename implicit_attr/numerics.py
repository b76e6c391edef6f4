"""Exact products, norms that neither overflow nor underflow, finite trees."""

import contextlib

import jax
import jax.numpy as jnp

from implicit_attr.types import Array, Tree


def exact() -> contextlib.AbstractContextManager:
  """Full-precision matrix products and convolutions while tracing.

  TPUs multiply float32 in bfloat16 and recent GPUs in TF32 unless told not
  to; second derivatives do not survive that. Wrap the *tracing* of every
  curvature, attribution and attack computation in it. No effect on CPUs.
  """
  return jax.default_matmul_precision('highest')


def all_finite(tree: Tree) -> Array:
  """True if no floating leaf of `tree` holds a NaN or an infinity; []."""
  finite = [
    jnp.all(jnp.isfinite(leaf))
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.stack(finite)) if finite else jnp.array(True)


def power_of_two(x: Array, axis: int | tuple[int, ...]) -> Array:
  """2^k just above max |x| along `axis`, kept as axes of length 1; 1 for 0.

  Dividing by it changes no digit, and squares then stay in range. A constant
  for derivatives.
  """
  size = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axis, keepdims=True)
  sound = (size > 0) & jnp.isfinite(size)
  _, exponent = jnp.frexp(jnp.where(sound, size, 1))
  return jnp.ldexp(jnp.ones_like(size), exponent)


def norm(x: Array, axis: int | tuple[int, ...]) -> Array:
  """‖x‖₂ along `axis`, for numbers of any size that `x` can hold.

  Guarantees: the bits of sqrt(Σ x²) where that is in range; derivative 0 at 0.
  """
  scale = power_of_two(x, axis)
  square = jnp.sum(jnp.square(x / scale), axis)
  some = square > 0
  root = jnp.sqrt(jnp.where(some, square, 1))
  return jnp.where(some, root * jnp.squeeze(scale, axis), 0)
