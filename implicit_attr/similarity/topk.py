"""Top-k intersection (Ghorbani et al., arXiv 1710.10547) of two maps."""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.similarity.maps import ordered, pair
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
  return max(1, round(float(k) * n))


def top_mask(a: Array, k: int | float) -> Array:
  """True on the k largest entries of each map; [B, ...] -> bool [B, ...].

  Args:
    a: maps; larger is more important, so pass `magnitude` of a signed map.
      The order of ties fills the set of a constant map; NaN comes first.
    k: an integer count, or a share in (0, 1] of the entries.
  """
  flat = pair(a, a)[0]
  return largest(flat, count(k, flat.shape[1])).reshape(jnp.shape(a))


def topk_intersection(a: Array, b: Array, k: int | float) -> Array:
  """|Top_k(a) ∩ Top_k(b)| / k for maps [B, ...] -> [B], in [0, 1].

  Args:
    a: reference maps; larger is more important. Pass `magnitude` of a signed
      map: this function does not take absolute values.
    b: maps to compare.
    k: an integer count, or a share in (0, 1] of the entries.

  Ties are broken by (value, -index). Equal maps give exactly 1. Symmetric.

  NaN where a map has nothing to rank, that is where it is constant (zero, a
  single pixel) or has a NaN: the order of ties would fill both sets alike, and
  a network whose maps are all zero would count as robust.
  """
  a, b = pair(a, b)
  k = count(k, a.shape[1])
  in_a, in_b = largest(a, k), largest(b, k)
  # Counted, not k: XLA multiplies by the reciprocal of a constant, and
  # k · (1 / k) is not always 1.
  shared = jnp.sum(in_a & in_b, -1).astype(a.dtype) / jnp.sum(in_a, -1)
  return jnp.where(ordered(a, b), shared, jnp.nan)


def largest(a: Array, k: int) -> Array:
  """True on the k largest entries of each row of a [B, n]; k in 1 … n.

  Ordered by (value, -index): of two equal entries the one with the smaller
  index comes first, so that the set is the same on every device. 0 and -0 are
  equal, NaN counts as larger than all numbers.

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
  last = _kth_largest(order, k, bits)
  ahead = order > last
  left = k - jnp.sum(ahead, -1, keepdims=True)
  # Of those that are as large as the last, the first few.
  place = jnp.where(order == last, n - jnp.arange(n, dtype='uint32'), 0)
  return ahead | (place >= _kth_largest(place, left, n.bit_length()))


def _kth_largest(order: Array, k: int | Array, bits: int) -> Array:
  """The k-th largest of each row of unsigned integers; [B, n] -> [B, 1].

  The largest number that at least k entries ([] or [B, 1]) reach, set bit by
  bit.
  """
  one = jnp.array(1, order.dtype)

  def step(i: Array, low: Array) -> Array:
    more = low | (one << (bits - 1 - i).astype(order.dtype))
    # Exact below 2**24 entries, and floats add up faster than integers.
    reach = jnp.sum(order >= more, -1, keepdims=True, dtype='float32')
    return jnp.where(reach >= k, more, low)

  return jax.lax.fori_loop(0, bits, step, jnp.zeros_like(order[:, :1]))
