"""Which share of the k most important pixels do two maps have in common?"""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.similarity.maps import pair
from implicit_attr.types import Array


def count(k: int | float, n: int) -> int:
  """k itself if it is an integer, else the share k of n, at least 1.

  Raises:
    InputError: k outside 1..n, or a share outside (0, 1].
  """
  if isinstance(k, (int, np.integer)):
    k = k if isinstance(k, bool) else int(k)
    errors.number('k', k, 1, n, integer=True)
    return k
  errors.number('k', k, 0, 1, open_low=True)
  return max(1, round(k * n))


def ranks(a: Array) -> Array:
  """Place of every entry of a [B, n], 0 for the largest, by (value, -index).

  Of two equal entries the one with the smaller index comes first, so the
  order is a total one and the same on every device.
  """
  order = jnp.argsort(a, axis=-1, stable=True, descending=True)
  return jnp.argsort(order, axis=-1)


def top_mask(a: Array, k: int | float, *, of: str = 'pixels') -> Array:
  """True on the k largest entries of each map; [B, ...] -> bool [B, ...].

  Args:
    a: maps; larger is more important, so pass `magnitude` of a signed map.
    k: an integer count, or a share in (0, 1].
    of: what a share is taken of: 'pixels' (all entries) or 'nonzero' (the
      entries that are not 0, so that k differs between examples; at least 1).
  """
  errors.choose('of', of, ('pixels', 'nonzero'))
  shape, a = a.shape, pair(a, a)[0]
  if of == 'pixels':
    index = jax.lax.top_k(a, count(k, a.shape[1]))[1]
    rows = jnp.arange(a.shape[0])[:, None]
    mask = jnp.zeros(a.shape, bool).at[rows, index].set(True)
  else:
    errors.number('k', k, 0, 1, open_low=True)
    here = jnp.round(k * jnp.sum(a != 0, -1, keepdims=True))
    mask = ranks(a) < jnp.maximum(here, 1)
  return mask.reshape(shape)


def topk_intersection(
  a: Array, b: Array, k: int | float, *, of: str = 'pixels'
) -> Array:
  """|Top_k(a) ∩ Top_k(b)| / k for maps [B, ...] -> [B], in [0, 1].

  Args:
    a: reference maps; larger is more important. Pass `magnitude` of a signed
      map: this function does not take absolute values.
    b: maps to compare.
    k: an integer count, or a share in (0, 1].
    of: what a share is taken of, see `top_mask`; 'nonzero' counts the entries
      of `a`, the reference, for both sets.

  Ties are broken by (value, -index). Equal maps give exactly 1. Symmetric,
  save for `of='nonzero'`.
  """
  errors.choose('of', of, ('pixels', 'nonzero'))
  a, b = pair(a, b)
  if of == 'pixels':
    index = jax.lax.top_k(b, count(k, a.shape[1]))[1]
    in_a = top_mask(a, k)
    shared = jnp.take_along_axis(in_a, index, axis=1)
  else:
    in_a = top_mask(a, k, of=of)
    shared = in_a & (ranks(b) < jnp.sum(in_a, -1, keepdims=True))
  # Counted, not k: XLA multiplies by the reciprocal of a constant, and
  # k · (1 / k) is not always 1.
  return jnp.sum(shared, -1).astype(a.dtype) / jnp.sum(in_a, -1)
