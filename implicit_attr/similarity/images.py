"""Images that may be moved: inside the pixel box, each with a key of its own.

One rule for everything that moves an image, attacks and sampled stability: it
refuses an image outside the box, and does not move it there unasked.
"""

import math

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.types import Array


def known(value: object) -> bool:
  """False while `value` is being traced."""
  return not isinstance(value, jax.core.Tracer)


def check(x: Array, bounds: tuple[float, float] | None) -> Array:
  """x as an array, if it is a batch of images that may be moved.

  Raises:
    InputError: x not floating [B, ...] or without an image; bounds the wrong
      way round; where x is known, not finite or outside `bounds`.
  """
  x = jnp.asarray(x)
  floating = jnp.issubdtype(x.dtype, jnp.floating)
  errors.require('x.dtype', str(x.dtype), floating, 'a floating type')
  full = x.ndim > 1 and x.size > 0
  errors.require('x.shape', x.shape, full, '[B, ...] with B > 0')
  low, high = (-math.inf, math.inf) if bounds is None else bounds
  errors.require('bounds', bounds, low < high, 'low, high with low < high')
  if known(x):
    # numpy, for under jit even an array that is closed over would be traced.
    seen = np.asarray(x)
    ends = float(seen.min()), float(seen.max())
    finite = bool(np.isfinite(seen).all())
    errors.require('x', f'{ends}', finite, 'finite: no NaN, no infinity')
    inside = low <= ends[0] and ends[1] <= high
    errors.require('x', f'in {ends}', inside, f'in {bounds}, the bounds')
  return x


def keys(key: Array, x: Array) -> Array:
  """A key for each image of x [B, ...], from `key` and its pixels; [B].

  What is drawn for an image then depends neither on its place in the batch nor
  on its neighbours; equal images draw alike.
  """
  bits = jax.lax.bitcast_convert_type(x.astype('float32'), 'uint32')
  bits = bits.reshape(x.shape[0], -1)
  # Odd weights: a change of any one pixel changes the sum modulo 2**32.
  odd = 2 * jnp.arange(bits.shape[1], dtype='uint32') + 1
  sums = jnp.sum(bits * odd[None], -1, dtype='uint32')
  return jax.vmap(jax.random.fold_in, (None, 0))(key, sums)
