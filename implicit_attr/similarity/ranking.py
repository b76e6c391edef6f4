"""Do two maps put their pixels in the same order?"""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.similarity.maps import pair
from implicit_attr.types import Array

# Pairs compared at once, over the whole batch: bounds the memory.
_PAIRS = 1 << 24
# n² must fit a 32-bit counter.
_LONGEST = 46_340


def _order(rows: Array, a: Array) -> Array:
  # sign(row - a) without the subtraction, which could round to a tie; the
  # NaN of a padding row is ordered with nothing.
  row, a = rows[:, :, None], a[:, None, :]
  return (row > a).astype(jnp.int8) - (row < a).astype(jnp.int8)


def kendall_tau(a: Array, b: Array) -> Array:
  """Kendall's tau-b of maps [B, ...] -> [B], in [-1, 1]; ties corrected.

  Σ sign(a_i - a_j) sign(b_i - b_j) / √(#untied pairs of a · #untied of b), as
  in Kendall (1945) and in scipy. All n² pairs are compared, in blocks of rows,
  so the memory does not grow with n²; counts are exact integers.

  NaN where a map is constant: tau is not defined there.

  Raises:
    InputError: more than 46340 entries a map.
  """
  a, b = pair(a, b)
  batch, n = a.shape
  errors.number('entries of a map', n, 1, _LONGEST, integer=True)
  rows = max(1, min(n, _PAIRS // max(1, batch * n)))
  blocks = -(-n // rows)
  pad = ((0, 0), (0, blocks * rows - n))

  def split(m):
    m = jnp.pad(m, pad, constant_values=jnp.nan)
    return m.reshape(batch, blocks, rows).swapaxes(0, 1)

  def body(carry, block):
    signs_a, signs_b = _order(block[0], a), _order(block[1], b)
    parts = (signs_a * signs_b, jnp.abs(signs_a), jnp.abs(signs_b))
    sums = [jnp.sum(p, (1, 2), dtype=jnp.int32) for p in parts]
    return jax.tree.map(jnp.add, carry, tuple(sums)), None

  zero = jnp.zeros(batch, jnp.int32)
  (agree, in_a, in_b), _ = jax.lax.scan(
    body, (zero, zero, zero), (split(a), split(b))
  )
  agree, in_a, in_b = (c.astype(a.dtype) for c in (agree, in_a, in_b))
  return agree / (jnp.sqrt(in_a) * jnp.sqrt(in_b))


def average_ranks(a: Array) -> Array:
  """Ranks 1..n of a [B, n], smallest first; equal entries share their mean."""

  def one(row):
    ordered = jnp.sort(row)
    low = jnp.searchsorted(ordered, row, side='left')
    high = jnp.searchsorted(ordered, row, side='right')
    return (low + high + 1).astype(row.dtype) / 2

  return jax.vmap(one)(a)


def spearman(a: Array, b: Array) -> Array:
  """Spearman's rho of maps [B, ...] -> [B], with average ranks for ties.

  Pearson's correlation of the average ranks, as in scipy. NaN where a map is
  constant.
  """
  a, b = pair(a, b)
  # Ranks have mean (n + 1) / 2 exactly, ties or not.
  middle = (a.shape[1] + 1) / 2
  a, b = average_ranks(a) - middle, average_ranks(b) - middle
  norm = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
  return jnp.sum(a * b, -1) / norm
