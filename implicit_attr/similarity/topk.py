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


def top_mask(a: Array, k: int | float, *, of: str = 'pixels') -> Array:
  """True on the k largest entries of each map; [B, ...] -> bool [B, ...].

  Args:
    a: maps; larger is more important, so pass `magnitude` of a signed map.
    k: an integer count, or a share in (0, 1].
    of: what a share is taken of: 'pixels' (all entries) or 'nonzero' (the
      entries that are not 0, so that k differs between examples; at least 1).
  """
  shape, a = a.shape, pair(a, a)[0]
  return largest(a, _counts(a, k, of)).reshape(shape)


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
  a, b = pair(a, b)
  counts = _counts(a, k, of)
  in_a, in_b = largest(a, counts), largest(b, counts)
  # Counted, not k: XLA multiplies by the reciprocal of a constant, and
  # k · (1 / k) is not always 1.
  return jnp.sum(in_a & in_b, -1).astype(a.dtype) / jnp.sum(in_a, -1)


def largest(a: Array, counts: Array) -> Array:
  """True on the `counts` [B, 1] largest entries of each row of a [B, n].

  Ordered by (value, -index): of two equal entries the one with the smaller
  index comes first, so that the set is the same on every device. 0 and -0 are
  equal, NaN counts as larger than all numbers. `counts` in 1 … n.

  The smallest of them is found by bisection, one bit after the other, which
  is n operations a bit; XLA's top-k and sort on a CPU take three to twenty
  times as long for 1024 pixels.
  """
  n, bits = a.shape[1], jnp.finfo(a.dtype).bits
  a = jnp.where(a == 0, 0, jnp.where(jnp.isnan(a), jnp.nan, a))
  raw = jax.lax.bitcast_convert_type(a, f'uint{bits}')
  # Floats are ordered as integers are, but for the sign.
  sign = jnp.array(1, raw.dtype) << (bits - 1)
  order = jnp.where(raw >= sign, ~raw, raw | sign)
  last = _kth_largest(order, counts, bits)
  ahead = order > last
  left = counts - jnp.sum(ahead, -1, keepdims=True)
  # Of those that are as large as the last, the first few.
  place = jnp.where(order == last, n - jnp.arange(n, dtype='uint32'), 0)
  return ahead | (place >= _kth_largest(place, left, n.bit_length()))


def _kth_largest(order: Array, counts: Array, bits: int) -> Array:
  """The `counts`-th largest of each row of unsigned integers; [B, n] -> [B, 1].

  The largest number that at least `counts` entries reach, set bit by bit.
  """
  one = jnp.array(1, order.dtype)

  def step(i: Array, low: Array) -> Array:
    more = low | (one << (bits - 1 - i).astype(order.dtype))
    # Exact below 2**24 entries, and floats add up faster than integers.
    reach = jnp.sum(order >= more, -1, keepdims=True, dtype='float32')
    return jnp.where(reach >= counts, more, low)

  return jax.lax.fori_loop(0, bits, step, jnp.zeros_like(order[:, :1]))


def _counts(a: Array, k: int | float, of: str) -> Array:
  """How many entries of each row of a [B, n] are its top; [B, 1]."""
  errors.choose('of', of, ('pixels', 'nonzero'))
  if of == 'pixels':
    return jnp.full((a.shape[0], 1), count(k, a.shape[1]))
  errors.number('k', k, 0, 1, open_low=True)
  here = jnp.round(k * jnp.sum(a != 0, -1, keepdims=True)).astype(int)
  return jnp.maximum(here, 1)
