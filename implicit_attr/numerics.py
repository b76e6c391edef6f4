"""When are float32 products really float32, and is a tree still finite?"""

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
