"""Standardisation of pixels inside the network.

The network standardises inside: it takes images in pixel units, 0 to 1, so a
radius, a gradient or a curvature in `x` is in pixel units everywhere else.
"""

import jax.numpy as jnp

from implicit_attr.types import Array

Scale = float | tuple[float, ...]
"""One number for all channels, or one for each."""


def standardise(x: Array, mean: Scale, std: Scale) -> Array:
  """(x - mean) / std over the last axis of x [B, ..., C]."""
  shape = (1,) * (x.ndim - 1) + (-1,)
  centre = jnp.asarray(mean, x.dtype).reshape(shape)
  return (x - centre) / jnp.asarray(std, x.dtype).reshape(shape)
