"""How is a symmetric matrix brought to a small tridiagonal one? By Lanczos.

B problems of one dimension run side by side, [B, n]: the Hessian in the
parameters is B = 1, the input Hessians of a batch are one problem an example.
Method: C. Lanczos (1950), with the whole basis re-orthogonalised in each step
(Golub & Van Loan, Matrix Computations, 4th ed., section 10.3).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr.types import Array

BlockMvp = Callable[[Array], Array]  # [B, n] -> [B, n], row by row


class Krylov(NamedTuple):
  """After j = `steps` products; rows j and later of the buffers are zero.

  A V = V T + β_j v_{j+1} e_j', T = tridiag(alphas, betas), V' V = 1.
  """

  alphas: Array  # [B, K]
  betas: Array  # [B, K]; betas[:, i] couples vectors i and i + 1
  basis: Array  # [B, K, n]
  vector: Array  # [B, n], the unit vector of the next step
  steps: Array  # []


class Ritz(NamedTuple):
  """Approximate eigenpairs, the wanted first."""

  values: Array  # [B, k]
  weights: Array  # [B, K, k], coordinates of the vectors in the basis
  residuals: Array  # [B, k], ‖A v - θ v‖


def start(v0: Array, order: int) -> Krylov:
  """The state before the first product; zero starts become arbitrary ones."""
  batch, size = v0.shape
  small = jnp.zeros((batch, order), v0.dtype)
  zero = jnp.max(jnp.abs(v0), -1, keepdims=True) == 0
  v0 = jnp.where(zero, _arbitrary(v0, jnp.array(0)), v0)
  return Krylov(
    small,
    small,
    jnp.zeros((batch, order, size), v0.dtype),
    v0 / jnp.linalg.norm(v0, axis=-1, keepdims=True),
    jnp.array(0),
  )


def step(mvp: BlockMvp, state: Krylov) -> Krylov:
  """One product, one more basis vector.

  Where the Krylov space is exhausted (β at rounding level), the next vector is
  an arbitrary one orthogonal to the basis and β is 0: T falls into blocks and
  stays the projection of A.
  """
  alphas, betas, basis, vector, j = state
  basis = jax.lax.dynamic_update_index_in_dim(basis, vector, j, 1)
  before = jnp.maximum(j - 1, 0)
  previous = jax.lax.dynamic_index_in_dim(basis, before, 1, keepdims=False)
  beta = jax.lax.dynamic_index_in_dim(betas, before, 1)  # 0 in the first step

  w = mvp(vector)
  alpha = jnp.sum(w * vector, -1, keepdims=True)
  w = w - alpha * vector - beta * previous
  alphas = jax.lax.dynamic_update_index_in_dim(alphas, alpha, j, 1)
  scale = jnp.max(jnp.abs(alphas) + betas, -1, keepdims=True)
  floor = 4 * jnp.finfo(w.dtype).eps * scale
  vector, beta = _orthonormalise(basis, w, floor, j)
  betas = jax.lax.dynamic_update_index_in_dim(betas, beta, j, 1)
  return Krylov(alphas, betas, basis, vector, j + 1)


def run(mvp: BlockMvp, v0: Array, order: int) -> Krylov:
  """`order` steps from `v0` [B, n]."""
  state = start(v0, order)
  return jax.lax.fori_loop(0, order, lambda _, s: step(mvp, s), state)


def run_until(
  mvp: BlockMvp, v0: Array, order: int, k: int, which: str, tol: Array | float
) -> Krylov:
  """Steps until the `k` wanted pairs of every problem have converged.

  Converged: residual <= tol |θ|. At least `k` and at most `order` steps. A NaN
  ends the loop at once.
  """

  def wait(carry: tuple[Krylov, Array]) -> Array:
    state, waiting = carry
    return (state.steps < order) & ((state.steps < k) | waiting)

  def advance(carry: tuple[Krylov, Array]) -> tuple[Krylov, Array]:
    state = step(mvp, carry[0])
    values, _, residuals = ritz(state, k, which)
    return state, jnp.any(residuals > tol * jnp.abs(values))

  return jax.lax.while_loop(wait, advance, (start(v0, order), True))[0]


def ritz(state: Krylov, k: int, which: str) -> Ritz:
  """The `k` wanted Ritz pairs; `which` is 'top', 'bottom' or 'magnitude'.

  T is padded to its full size with a value beyond its spectrum, which is
  recognised and sorted last whatever is wanted.
  """
  alphas, betas, _, _, steps = state
  order = alphas.shape[-1]
  filled = jnp.arange(order)[None, :] < steps
  inside = jnp.where(jnp.arange(order)[None, :] < steps - 1, betas, 0)[:, :-1]
  left = jnp.pad(inside, ((0, 0), (1, 0)))
  right = jnp.pad(inside, ((0, 0), (0, 1)))
  bound = jnp.max(jnp.abs(alphas) + left + right, -1, keepdims=True)
  pad = jnp.where(bound > 0, 2 * bound, 1)  # Gershgorin: |θ| <= bound
  matrix = (
    _diagonal(jnp.where(filled, alphas, pad))
    + _diagonal(inside, 1)
    + _diagonal(inside, -1)
  )
  values, weights = jnp.linalg.eigh(matrix)
  wanted = {'top': values, 'bottom': -values, 'magnitude': jnp.abs(values)}
  _, index = jax.lax.top_k(
    jnp.where(values < 0.75 * pad, wanted[which], -jnp.inf), k
  )
  values = jnp.take_along_axis(values, index, -1)
  weights = jnp.take_along_axis(weights, index[:, None, :], -1)
  last = jnp.maximum(steps - 1, 0)
  beta = jax.lax.dynamic_index_in_dim(betas, last, 1)
  mass = jax.lax.dynamic_index_in_dim(weights, last, 1, keepdims=False)
  return Ritz(values, weights, jnp.abs(beta * mass))


def _diagonal(rows: Array, offset: int = 0) -> Array:
  """[B, m] -> [B, m + |offset|, m + |offset|] with `rows` on one diagonal."""
  return jax.vmap(lambda row: jnp.diag(row, offset))(rows)


def combine(weights: Array, basis: Array) -> Array:
  """Σ_k weights[b, k] basis[b, k], [B, n].

  In full precision whatever the caller's setting: a basis that is orthogonal
  to three digits is no basis.
  """
  return jnp.einsum('bk,bkn->bn', weights, basis, precision='highest')


def _shares(basis: Array, w: Array) -> Array:
  """Inner products of `w` [B, n] with the basis, [B, K]."""
  return jnp.einsum('bkn,bn->bk', basis, w, precision='highest')


def _orthonormalise(
  basis: Array, w: Array, floor: Array, step: Array
) -> tuple[Array, Array]:
  """What is left of `w` [B, n] outside `basis`: (its direction, its length).

  A classical Gram–Schmidt pass is two matrix–vector products. It is repeated
  where it took away a large share, as then what is left is not clean (Daniel,
  Gragg, Kaufman & Stewart, Math. Comp. 30, 1976). A length at or below `floor`
  counts as 0, and an arbitrary vector takes the place of `w`.
  """

  def unclean(carry: tuple[Array, ...]) -> Array:
    _, _, again, passes = carry
    # Near the full dimension little of an arbitrary vector survives a pass,
    # and beyond it nothing: the count ends that.
    return again & (passes < 4)

  def clean(carry: tuple[Array, ...]) -> tuple[Array, ...]:
    v, length, _, passes = carry
    before = jnp.linalg.norm(v, axis=-1, keepdims=True)
    v = v - combine(_shares(basis, v), basis)
    after = jnp.linalg.norm(v, axis=-1, keepdims=True)
    # v is w itself in the first pass and a unit vector later.
    shrunk = length * after
    lost = (length > 0) & (shrunk <= floor)
    v = v / jnp.where(after > 0, after, 1)
    v = jnp.where(lost, _arbitrary(v, step + 1), v)
    again = jnp.any(lost | (after < 0.7 * before))
    return v, jnp.where(lost, 0, shrunk), again, passes + 1

  one = jnp.ones_like(floor)
  v, length, _, _ = jax.lax.while_loop(unclean, clean, (w, one, True, 0))
  return v, length


def _arbitrary(like: Array, step: Array) -> Array:
  """Numbers in (-1, 1) without a pattern, [B, n] like `like`; set by `step`.

  Scrambled integers, not `jax.random`, whose code would be most of what the
  compiler sees of this file, for a branch that is hardly ever taken.
  """
  size = like.shape[-1]
  bits = jnp.arange(1, size + 1, dtype=jnp.uint32) * jnp.uint32(2654435769)
  bits = bits + step.astype(jnp.uint32) * jnp.uint32(2246822519)
  for shift, factor in ((16, 2146121005), (15, 2221713035)):
    bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
  v = (bits >> 8).astype(like.dtype) / 2**23 - 1
  return jnp.broadcast_to(v[None], like.shape)
