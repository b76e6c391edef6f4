"""Stochastic depth: branches left out (Huang et al., arXiv 1603.09382)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from implicit_attr.types import Array


def stay(
  module: nn.Module, y: Array, most: float, block: int, blocks: int
) -> Array:
  """The branch y [B, …] of `block`, or 0 for some of the examples, in training.

  The chance to be left out rises linearly to `most` at the last block; what
  stays is divided by its chance, so that nothing changes in the mean. Draws
  from the stream 'dropout' of `module`.
  """
  drop = most * (block + 1) / blocks
  if not drop:
    return y
  key = module.make_rng('dropout')
  shape = (y.shape[0],) + (1,) * (y.ndim - 1)
  return jnp.where(
    jax.random.bernoulli(key, 1 - drop, shape), y / (1 - drop), 0
  )
