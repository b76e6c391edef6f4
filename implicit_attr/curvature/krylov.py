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
  """The state before the first product; a zero start becomes a random one."""
  batch, size = v0.shape
  basis = jnp.zeros((batch, order, size), v0.dtype)
  small = jnp.zeros((batch, order), v0.dtype)
  norm = jnp.linalg.norm(v0, axis=-1, keepdims=True)
  vector = _or_fresh(norm == 0, v0, norm, basis, jnp.array(0))
  return Krylov(small, small, basis, vector, jnp.array(0))


def step(mvp: BlockMvp, state: Krylov) -> Krylov:
  """One product, one more basis vector.

  Where the Krylov space is exhausted (β at rounding level), the next vector is
  a random one orthogonal to the basis and β is 0: T falls into blocks and
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
  w = _orthogonalise(basis, w)
  beta = jnp.linalg.norm(w, axis=-1, keepdims=True)

  alphas = jax.lax.dynamic_update_index_in_dim(alphas, alpha, j, 1)
  scale = jnp.max(jnp.abs(alphas) + betas, -1, keepdims=True)
  broken = beta <= 4 * jnp.finfo(w.dtype).eps * scale
  beta = jnp.where(broken, 0, beta)
  vector = _or_fresh(broken, w, beta, basis, j + 1)
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


def _orthogonalise(basis: Array, w: Array) -> Array:
  """`w` [B, n] less its part in `basis` [B, K, n] (rows not yet used are 0).

  One classical Gram–Schmidt pass as two matrix–vector products, and a second
  where the first took away a large share: then what is left is not clean
  (Daniel, Gragg, Kaufman & Stewart, Math. Comp. 30, 1976).
  """

  def sweep(w: Array) -> Array:
    return w - combine(_shares(basis, w), basis)

  once = sweep(w)
  before = jnp.linalg.norm(w, axis=-1)
  after = jnp.linalg.norm(once, axis=-1)
  again = jnp.any(after < 0.7 * before)
  return jax.lax.cond(again, sweep, lambda w: w, once)


def _or_fresh(
  broken: Array, v: Array, norm: Array, basis: Array, step: Array
) -> Array:
  """`v / norm`, and a fresh vector in the rows where `broken` [B, 1]."""
  unit = v / jnp.where(broken, 1, norm)
  return jax.lax.cond(
    jnp.any(broken),
    lambda: jnp.where(broken, _fresh(basis, step), unit),
    lambda: unit,
  )


def _fresh(basis: Array, step: Array) -> Array:
  """Random unit vectors [B, n] orthogonal to `basis`; a function of `step`."""
  key = jax.random.fold_in(jax.random.key(0), step)
  shape = (basis.shape[0], basis.shape[2])
  v = jax.random.normal(key, shape, basis.dtype)
  for _ in range(3):  # near the full dimension little of v survives a pass
    v = v - combine(_shares(basis, v), basis)
    # With the whole space used up v is noise or 0, and is not used.
    v = v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-30)
  return v
