"""Rank correlations of maps: Kendall's τ-b (1945) and Spearman's ρ.

τ counts inversions in n log n operations, after Knight (J. Am. Stat. Assoc.
61, 1966), with a radix partition in place of his merge sort.
"""

import functools

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.similarity.maps import ordered, pair
from implicit_attr.types import Array

# n (n - 1) / 2 must fit two words of 31 and 16 bits.
_LONGEST = 1 << 23
# Entries whose lower words are added at once: 15 + 16 bits fit an int32.
_BLOCK = 1 << 15


def _sum(counts: Array) -> Array:
  """Exact sums of int32 counts >= 0, [B, n] -> [2, B]: 2¹⁶ high + low."""
  batch, n = counts.shape
  blocks = -(-n // _BLOCK)
  width = -(-n // max(blocks, 1))
  counts = jnp.pad(counts, ((0, 0), (0, blocks * width - n)))
  counts = counts.reshape(batch, blocks, width)
  add = functools.partial(jnp.sum, axis=-1, dtype='int32')
  low, high = add(counts & 0xFFFF), add(counts >> 16)
  high, low = add(high + (low >> 16)), add(low & 0xFFFF)
  return jnp.stack([high + (low >> 16), low & 0xFFFF])


def _inversions(p: Array) -> Array:
  """Pairs i < j with p_i > p_j, of permutations p [B, n]; words [2, B].

  Two entries are told apart by their highest differing bit. From the highest
  bit down, each group of entries that agree so far is split into those with a
  zero and those with a one, in order; a zero passes the ones before it.
  """
  batch, n = p.shape
  bits = (n - 1).bit_length()
  # Up to 2**bits, so that every group has as many zeros as ones.
  rest = jnp.arange(n, 1 << bits, dtype=p.dtype)
  rest = jnp.broadcast_to(rest, (batch, rest.size))
  p = jnp.concatenate([p, rest], -1)
  place = jnp.arange(1 << bits, dtype=p.dtype)[None]

  def split(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    p, passed = carry
    level = (bits - 1 - i).astype(p.dtype)
    one = (p >> level) & 1
    group = place >> (level + 1)
    # Each group before this one has 2**level ones.
    ones = jnp.cumsum(one, -1, p.dtype) - one - (group << level)
    half = (2 * group + 1) << level
    to = jnp.where(one == 1, half + ones, place - ones)
    put = lambda p, to: p.at[to].set(p, unique_indices=True)
    return jax.vmap(put)(p, to), passed + _sum(jnp.where(one == 1, 0, ones))

  none = jnp.zeros((2, batch), p.dtype)
  return jax.lax.fori_loop(0, bits, split, (p, none))[1]


def _tied(same: Array) -> Array:
  """Tied pairs of sorted rows; same[:, i] says that i + 1 equals i; [2, B]."""
  place = jnp.arange(1, same.shape[1] + 1, dtype='int32')[None]
  start = jax.lax.cummax(jnp.where(same, 0, place), 1)
  return _sum(place - start)


def kendall_tau(a: Array, b: Array) -> Array:
  """Kendall's tau-b of maps [B, ...] -> [B], in [-1, 1]; ties corrected.

  Σ sign(a_i - a_j) sign(b_i - b_j) / √(#untied pairs of a · #untied of b), as
  in Kendall (1945) and in scipy. Counts are exact integers, n log n
  operations; maps in the same order give exactly 1.

  NaN where a map is constant (zero, a single pixel) or has a NaN: tau is not
  defined there.

  Raises:
    InputError: more than 2²³ entries a map.
  """
  a, b = pair(a, b)
  n = a.shape[1]
  errors.number('entries of a map', n, 1, _LONGEST, integer=True)
  defined = ordered(a, b)
  # In the order of a, and of b where a is tied: no inversion within a tie.
  a, b = jax.lax.sort((a, b), num_keys=2)
  place = jax.lax.broadcasted_iota('int32', b.shape, 1)
  ranked, place = jax.lax.sort((b, place), num_keys=1)
  same_a, same_b, same = (m[:, 1:] == m[:, :-1] for m in (a, ranked, b))
  ties = _tied(jnp.concatenate([same_a, same_b, same_a & same]))
  in_a, in_b, in_both = jnp.split(ties, 3, 1)
  pairs = n * (n - 1) // 2
  pairs = jnp.array([[pairs >> 16], [pairs & 0xFFFF]], 'int32')
  agree = pairs - in_a - in_b + in_both - 2 * _inversions(place)
  agree, free_a, free_b = (
    words[0].astype(a.dtype) * 2**16 + words[1].astype(a.dtype)
    for words in (agree, pairs - in_a, pairs - in_b)
  )
  # Not over √(free_a free_b), which is rounded where the three are equal.
  tau = jnp.clip(agree / free_a * jnp.sqrt(free_a / free_b), -1, 1)
  return jnp.where(defined, tau, jnp.nan)


def average_ranks(a: Array) -> Array:
  """Ranks 1..n of a [B, n], smallest first; equal entries share their mean."""

  def one(row):
    in_order = jnp.sort(row)
    low = jnp.searchsorted(in_order, row, side='left')
    high = jnp.searchsorted(in_order, row, side='right')
    return (low + high + 1).astype(row.dtype) / 2

  return jax.vmap(one)(a)


def spearman(a: Array, b: Array) -> Array:
  """Spearman's rho of maps [B, ...] -> [B], with average ranks for ties.

  Pearson's correlation of the average ranks, as in scipy; in [-1, 1]. NaN
  where a map is constant (zero, a single pixel) or has a NaN.
  """
  a, b = pair(a, b)
  n, defined = a.shape[1], ordered(a, b)
  # Ranks have mean (n + 1) / 2 exactly, ties or not.
  a, b = ((average_ranks(m) - (n + 1) / 2) / n for m in (a, b))
  norm = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
  rho = jnp.clip(jnp.sum(a * b, -1) / norm, -1, 1)
  return jnp.where(defined, rho, jnp.nan)
