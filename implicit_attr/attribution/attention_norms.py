"""Norms of attention's value vectors (arXiv 2004.10102) and ALTI (2203.04212).

Head h gives A^h_ij T^h_j of token j to token i, T^h_j = v^h_j W^h_O with the
head's `projections` [H, Dh, D], so that a factor may move between the kernel
and the values without a change here. Weights are dense, [B, H, K, L]: those of
all queries or of some.
"""

import jax
import jax.numpy as jnp

from implicit_attr.types import Array


def value_norms(a: Array, values: Array, projections: Array) -> Array:
  """‖Σ_h A^h_ij T^h_j‖₂, [B, K, L] (Kobayashi et al., arXiv 2004.10102).

  By the products of the heads' T_j with each other, so that no array of size
  K L D is made. The derivative is 0 where the norm is.
  """
  moved = jnp.einsum('bjhd,hde->bjhe', values, projections)
  gram = jnp.einsum('bjhe,bjge->bjhg', moved, moved)
  squares = jnp.einsum('bhij,bgij,bjhg->bij', a, a, gram)
  some = squares > 0
  return jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), 0)


def alti(a: Array, values: Array, projections: Array, tokens: Array) -> Array:
  """The share of token j in what token i becomes, [B, K, L], rows sum to 1.

  Ferrando et al., arXiv 2203.04212, eq. 8 to 10, without a layer norm, since
  a pre-LN block adds to `tokens` [B, L, D] as they came: with T_i(j) what j
  gives to i, `tokens` i itself included for j = i, and y_i = Σ_j T_i(j), the
  share is relu(‖y_i‖₁ - ‖y_i - T_i(j)‖₁) over its sum. Biases are nobody's and
  left out. A row where no token helps is 0.
  """
  moved = jnp.einsum('bjhd,hde->bjhe', values, projections)
  size = tokens.shape[1]

  def row(given: tuple[Array, Array]) -> Array:
    weights, place = given  # [B, H, L], []
    parts = jnp.einsum('bhj,bjhe->bje', weights, moved)
    own = (jnp.arange(size) == place)[None, :, None]
    parts = parts + jnp.where(own, tokens, 0)
    y = parts.sum(1, keepdims=True)
    norm = lambda z: jnp.abs(z).sum(-1)
    return jax.nn.relu(norm(y) - norm(y - parts))

  rows = jnp.moveaxis(a, 2, 0)
  shares = jax.lax.map(row, (rows, jnp.arange(len(rows))))  # [K, B, L]
  shares = jnp.moveaxis(shares, 0, 1)
  total = shares.sum(-1, keepdims=True)
  return shares / jnp.where(total > 0, total, 1)
