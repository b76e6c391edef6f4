"""Attention maps from weights, values and gradients: rollout, Grad-CAM, Chefer.

One definition for every kernel: A_ij is the coefficient of v_j in
o_i = sum_j A_ij v_j, after whatever normaliser there is. Then dy/dA_ij is
(dy/do_i) v_j, and all maps of this file are functions of A, v and dy/do alone.

Weights are [B, H, L, L], or `Factored`, of which no [L, L] array is made; both
give the same maps, to rounding. They are taken to be non-negative, as those of
all kernels here are. `rows` [B, L] or [B, K, L] weigh the queries: (1, 0, …)
reads the class token's row, (1/L, …) the mean. Weights that no normaliser made
sum to anything, so sizes of maps are not to be compared between examples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array

HEADS = ('mean', 'max', 'min')
RESIDUALS = ('renorm', 'rows', 'raw')


class Factored(NamedTuple):
  """A_ij = queries_i keys_j inverse_i: [B, L, H, M], the same, [B, L, H]."""

  queries: Array
  keys: Array
  inverse: Array


Weights = Array | Factored


def dense(a: Weights) -> Array:
  """The weights as one array [B, H, L, L]."""
  if not isinstance(a, Factored):
    return a
  products = jnp.einsum('bihm,bjhm->bhij', a.queries, a.keys)
  return products * a.inverse.swapaxes(1, 2)[..., None]


def first(a: Weights) -> Weights:
  """The weights of the first query alone, [B, H, 1, L]."""
  if not isinstance(a, Factored):
    return a[:, :, :1]
  return Factored(a.queries[:, :1], a.keys, a.inverse[:, :1])


def left(a: Weights, rows: Array) -> Array:
  """Σ_i rows_i A_ij for every head, [B, K, L] -> [B, H, K, L]."""
  if not isinstance(a, Factored):
    return jnp.einsum('bki,bhij->bhkj', rows, a)
  inner = jnp.einsum('bki,bih,bihm->bhkm', rows, a.inverse, a.queries)
  return jnp.einsum('bhkm,bjhm->bhkj', inner, a.keys)


def row_sums(a: Weights) -> Array:
  """Σ_j A_ij, [B, H, L]."""
  if not isinstance(a, Factored):
    return a.sum(-1)
  total = jnp.einsum('bihm,bhm->bhi', a.queries, a.keys.sum(1))
  return total * a.inverse.swapaxes(1, 2)


def raw(a: Weights, rows: Array, heads: str = 'mean') -> Array:
  """The weights of the queries `rows`, over heads; [B, L] -> [B, L].

  `heads` 'max' and 'min' compare the heads after the queries were weighed.
  """
  return _fuse(left(a, rows[:, None])[:, :, 0], heads)


def rollout(
  blocks: Sequence[Weights],
  rows: Array,
  *,
  residual: str = 'renorm',
  heads: str = 'mean',
  discard: float = 0.0,
) -> Array:
  """rows M_n … M_1, [B, K, L] -> [B, K, L] (Abnar & Zuidema, arXiv 2005.00928).

  Args:
    blocks: the weights of each block, the first block first.
    rows: the identity for the whole matrix, else the queries to follow.
    residual: what a block's weights Ā, fused over heads, become. 'renorm':
      M = (I + Ā / row sums) / 2; 'rows': (I + Ā) / row sums, the same if the
      rows of Ā sum to 1; 'raw': I + Ā.
    heads: one of `HEADS`.
    discard: this share of the smallest entries of Ā becomes 0, for each
      example; entry (0, 0), of the class token, stays.

  Guarantees: with 'renorm' and 'rows' the rows of the product sum to those of
  `rows`, where no row of Ā is all 0. Differentiable; where `discard` cuts or
  heads change places, one side of the kink.

  Raises:
    InputError: an unknown name; a share outside [0, 1); factored weights with
      max, min or `discard`, which need every entry.
  """
  errors.choose('residual', residual, RESIDUALS)
  errors.number('discard', discard, 0, 1)
  errors.require('discard', discard, discard < 1, '< 1')
  return chain([fused(a, heads, discard) for a in blocks], rows, residual)


def fused(a: Weights, heads: str = 'mean', discard: float = 0.0) -> Weights:
  """One head for all, [B, 1, L, L]; factored weights keep theirs.

  Raises:
    InputError: as `rollout`.
  """
  errors.choose('heads', heads, HEADS)
  if isinstance(a, Factored):
    errors.require(
      'heads', heads, heads == 'mean' and not discard,
      "'mean', and discard 0, where the weights are not made",
    )  # fmt: skip
    return a
  a = _fuse(a, heads)
  if discard:
    flat = a.reshape(len(a), -1)
    order = jnp.argsort(jnp.argsort(flat, -1), -1)
    keep = order >= int(discard * flat.shape[1])
    a = jnp.where(keep.at[:, 0].set(True), flat, 0).reshape(a.shape)
  return a[:, None]


def chain(
  blocks: Sequence[Weights], rows: Array, residual: str = 'raw'
) -> Array:
  """rows M_n … M_1 with M from each block's head mean, see `rollout`."""
  for a in reversed(blocks):
    sums = row_sums(a).mean(1)[:, None]  # [B, 1, L]
    if residual == 'renorm':
      safe = jnp.where(sums > 0, sums, 1)
      rows = 0.5 * (rows + left(a, rows / safe).mean(1))
    else:
      share = rows / (1 + sums) if residual == 'rows' else rows
      rows = share + left(a, share).mean(1)
  return rows


def weight_gradient(values: Array, gradient: Array) -> Array:
  """dy/dA_ij = (dy/do_i) v_j, both [B, L, H, Dh]; [B, H, L, L].

  Exact for every kernel, since o is linear in A.
  """
  return jnp.einsum('bihd,bjhd->bhij', gradient, values)


def gradient_x_attention(
  a: Weights, values: Array, gradient: Array, rows: Array, *, rectify: bool
) -> Array:
  """Σ_i rows_i mean_h A_ij dy/dA_ij, [B, L]; only what is > 0 if `rectify`.

  Not rectified, the sum of A_ij dy/dA_ij over j is o_i dy/do_i.
  """
  if not rectify:
    given = jnp.einsum('bi,bihd->bihd', rows, gradient)
    if isinstance(a, Factored):
      given = jnp.einsum('bihm,bih,bihd->bhmd', a.queries, a.inverse, given)
      mixed = jnp.einsum('bjhm,bhmd->bjhd', a.keys, given)
    else:
      mixed = jnp.einsum('bhij,bihd->bjhd', a, given)
    return jnp.sum(mixed * values, -1).mean(-1)
  support = jax.nn.relu(dense(a) * weight_gradient(values, gradient))
  return jnp.einsum('bi,bhij->bj', rows, support) / support.shape[1]


def grad_cam(
  a: Weights, values: Array, gradient: Array, rows: Array, skip: int
) -> Array:
  """Heads weighed by their mean gradient, then relu, [B, L].

  α_h = mean over j of Σ_i rows_i dy/dA_ij, the first `skip` tokens left out;
  map = relu(mean_h α_h Σ_i rows_i A_ij), the baseline of Chefer et al.
  (arXiv 2012.09838), without its scaling to [0, 1].
  """
  given = jnp.einsum('bi,bihd->bhd', rows, gradient)
  alpha = jnp.einsum('bhd,bhd->bh', given, values[:, skip:].mean(1))
  weights = left(a, rows[:, None])[:, :, 0]
  return jax.nn.relu(jnp.mean(alpha[..., None] * weights, 1))


def chefer(
  blocks: Sequence[Array], relevances: Sequence[Array], rows: Array
) -> Array:
  """rows Π (I + mean_h relu(R ⊙ G)), the last block first, [B, K, L].

  G = dy/dA [B, H, L, L] are `blocks`. With R = A this is the rule of Chefer et
  al. for self-attention (arXiv 2103.15679, eq. 5 and 6), with R the relevance
  of A that of arXiv 2012.09838, eq. 13 and 14.
  """
  support = [
    jax.nn.relu(g * r).mean(1, keepdims=True)
    for g, r in zip(blocks, relevances, strict=True)
  ]
  return chain(support, rows)


def _fuse(a: Array, heads: str) -> Array:
  errors.choose('heads', heads, HEADS)
  return {'mean': jnp.mean, 'max': jnp.max, 'min': jnp.min}[heads](a, 1)
