"""The Lanczos recursion (1950), many problems side by side, re-orthogonalised.

B problems of one dimension run side by side, [B, n]: the Hessian in the
parameters is B = 1, the input Hessians of a batch are one problem an example.
After Golub & Van Loan, Matrix Computations, 4th ed., section 10.3. Inner
products are `dot`s in full precision whatever the caller's setting: a basis
that is orthogonal to three digits is no basis, and XLA's CPU reductions are
slower than its dots.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import numerics
from implicit_attr.types import Array

BlockMvp = Callable[[Array], Array]  # [B, n] -> [B, n], row by row


class Krylov(NamedTuple):
  """After j = `steps` products; entries and rows from j on are zero.

  A V = V T + β_j v_{j+1} e_j', T = tridiag(alphas, betas), V' V = 1.
  """

  alphas: Array  # [B, K]
  betas: Array  # [B, K]; betas[:, i] couples vectors i and i + 1
  basis: Array  # [B, K, n]
  vector: Array  # [B, n], v_{j+1}, the unit vector of the next step
  steps: Array  # []


class Ritz(NamedTuple):
  """Approximate eigenpairs, the wanted first."""

  values: Array  # [B, k]
  weights: Array  # [B, K, k], coordinates of the vectors in the basis
  residuals: Array  # [B, k], ‖A v - θ v‖
  closest: Array  # [B], least residual of any Ritz pair over max |θ|


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
    v0 / numerics.norm(v0, -1)[:, None],
    jnp.array(0),
  )


def step(mvp: BlockMvp, state: Krylov, clean: Array | bool = True) -> Krylov:
  """One product, one more basis vector.

  Where the Krylov space is exhausted (β at rounding level), the next vector is
  an arbitrary one orthogonal to the basis and β is 0: T falls into blocks and
  stays the projection of A.

  Args:
    clean: whether to orthogonalise against the whole basis, and not only
      against the last two vectors. Done in any case where β is small.
  """
  alphas, betas, basis, vector, j = state
  basis = jax.lax.dynamic_update_index_in_dim(basis, vector, j, 1)
  before = jnp.maximum(j - 1, 0)
  previous = jax.lax.dynamic_index_in_dim(basis, before, 1, keepdims=False)
  beta = jax.lax.dynamic_index_in_dim(betas, before, 1)  # 0 in the first step

  w = mvp(vector)
  alpha = _dot(w, vector)
  w = w - alpha * vector - beta * previous
  # Squares of a matrix of 1e-20 would be 0; a power of two changes no digit.
  unit = numerics.power_of_two(w, -1)
  w = w / unit
  length = jnp.sqrt(_dot(w, w))
  alphas = jax.lax.dynamic_update_index_in_dim(alphas, alpha, j, 1)
  scale = jnp.max(jnp.abs(alphas) + betas, -1, keepdims=True) / unit
  eps = jnp.finfo(w.dtype).eps
  vector, beta = jax.lax.cond(
    clean | jnp.any(length <= eps**0.25 * scale),
    lambda: _orthonormalise(basis, w, 4 * eps * scale, j),
    lambda: (w / length, length),
  )
  betas = jax.lax.dynamic_update_index_in_dim(betas, beta * unit, j, 1)
  return Krylov(alphas, betas, basis, vector, j + 1)


def run(mvp: BlockMvp, v0: Array, order: int) -> Krylov:
  """`order` steps from `v0` [B, n], a basis orthonormal to rounding."""
  state = start(v0, order)
  return jax.lax.fori_loop(0, order, lambda _, s: step(mvp, s), state)


def run_until(
  mvp: BlockMvp, v0: Array, order: int, k: int, which: str, tol: Array | float
) -> Krylov:
  """Steps until the `k` wanted pairs of every problem have converged.

  Converged: residual <= tol |θ|. At least `k` and at most `order` steps. A NaN
  ends the loop at once.

  The basis loses orthogonality along Ritz vectors that have converged and
  nowhere else, as rounding / residual (Paige, Linear Algebra Appl. 34, 1980).
  So it is cleaned in every step from the first pair that has come to a relative
  residual of eps^(1/4) on, when no more than eps^(3/4) is lost; a search that
  ends before, as warm-started ones do, never pays for it.
  """

  def wait(carry: tuple[Krylov, Array, Array]) -> Array:
    state, waiting, _ = carry
    return (state.steps < order) & ((state.steps < k) | waiting)

  def advance(
    carry: tuple[Krylov, Array, Array],
  ) -> tuple[Krylov, Array, Array]:
    state, _, clean = carry
    state = step(mvp, state, clean)
    values, _, residuals, closest = ritz(state, k, which)
    clean |= jnp.any(closest <= jnp.finfo(v0.dtype).eps ** 0.25)
    return state, jnp.any(residuals > tol * jnp.abs(values)), clean

  first = (start(v0, order), jnp.array(True), jnp.array(False))
  return jax.lax.while_loop(wait, advance, first)[0]


def ritz(state: Krylov, k: int, which: str) -> Ritz:
  """The `k` wanted Ritz pairs; `which` is 'top', 'bottom' or 'magnitude'.

  LAPACK sees half of T, or a quarter, as long as the rest is empty: asked in
  every step, for every example, all of T costs as much as the products.
  """
  order = state.alphas.shape[-1]
  sizes = [order]
  while sizes[0] >= 2 * max(k, 4):
    sizes.insert(0, (sizes[0] + 1) // 2)
  fits = [functools.partial(_ritz, size, k, which) for size in sizes]
  least = sum(state.steps > size for size in sizes[:-1])
  return jax.lax.switch(least, fits, state.alphas, state.betas, state.steps)


def vectors(basis: Array, weights: Array) -> Array:
  """Unit vectors along Σ_i weights[:, i, k] basis[:, i], [B, k, n]."""
  v = jnp.einsum('bik,bin->bkn', weights, basis, precision='highest')
  return v / jnp.linalg.norm(v, axis=-1, keepdims=True)


def _ritz(
  size: int, k: int, which: str, alphas: Array, betas: Array, steps: Array
) -> Ritz:
  """`ritz` from the leading `size` rows of T, no fewer than the steps.

  T is padded to that size with a value beyond its spectrum, which is
  recognised and sorted last whatever is wanted.
  """
  rest = alphas.shape[-1] - size
  alphas, betas = alphas[:, :size], betas[:, :size]
  filled = jnp.arange(size)[None, :] < steps
  inside = jnp.where(jnp.arange(size)[None, :] < steps - 1, betas, 0)[:, :-1]
  left = jnp.pad(inside, ((0, 0), (1, 0)))
  right = jnp.pad(inside, ((0, 0), (0, 1)))
  bound = jnp.max(jnp.abs(alphas) + left + right, -1, keepdims=True)
  pad = jnp.where(bound > 0, 2 * bound, 1)  # Gershgorin: |θ| <= bound
  matrix = (
    _diagonal(jnp.where(filled, alphas, pad))
    + _diagonal(inside, 1)
    + _diagonal(inside, -1)
  )
  unit = numerics.power_of_two(bound, -1)
  values, weights = jnp.linalg.eigh(matrix / unit[:, :, None])
  values = values * unit
  last = jnp.maximum(steps - 1, 0)
  beta = jax.lax.dynamic_index_in_dim(betas, last, 1)
  mass = jax.lax.dynamic_index_in_dim(weights, last, 1, keepdims=False)
  residuals = jnp.abs(beta * mass)

  valid = values < 0.75 * pad
  wanted = {'top': values, 'bottom': -values, 'magnitude': jnp.abs(values)}
  _, index = jax.lax.top_k(jnp.where(valid, wanted[which], -jnp.inf), k)
  closest = jnp.min(jnp.where(valid, residuals / pad * 2, 1), -1)
  return Ritz(
    jnp.take_along_axis(values, index, -1),
    jnp.pad(
      jnp.take_along_axis(weights, index[:, None, :], -1),
      ((0, 0), (0, rest), (0, 0)),
    ),
    jnp.take_along_axis(residuals, index, -1),
    closest,
  )


def _dot(a: Array, b: Array) -> Array:
  """Inner product of each pair of rows, [B, n], [B, n] -> [B, 1]."""
  return jnp.einsum('bn,bn->b', a, b, precision='highest')[:, None]


def _diagonal(rows: Array, offset: int = 0) -> Array:
  """[B, m] -> [B, m + |offset|, m + |offset|] with `rows` on one diagonal."""
  return jax.vmap(lambda row: jnp.diag(row, offset))(rows)


def _orthonormalise(
  basis: Array, w: Array, floor: Array, step: Array
) -> tuple[Array, Array]:
  """What is left of `w` [B, n] outside `basis`: (its direction, its length).

  A classical Gram–Schmidt pass is two matrix–vector products. It is repeated
  where it took away the larger part, as then what is left is not clean (Daniel,
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
    shares = jnp.einsum('bkn,bn->bk', basis, v, precision='highest')
    v = v - jnp.einsum('bk,bkn->bn', shares, basis, precision='highest')
    left = _dot(v, v)
    # v is w itself in the first pass and a unit vector later.
    shrunk = length * jnp.sqrt(left)
    lost = (length > 0) & (shrunk <= floor)
    v = v * jax.lax.rsqrt(jnp.where(left > 0, left, 1))
    v = jax.lax.cond(
      jnp.any(lost),
      lambda: jnp.where(lost, _arbitrary(v, step + 1), v),
      lambda: v,
    )
    again = jnp.any(lost | (left < _dot(shares, shares)))
    return v, jnp.where(lost, 0, shrunk), again, passes + 1

  one = jnp.ones_like(floor)
  first = (w, one, jnp.array(True), jnp.array(0))
  v, length, _, _ = jax.lax.while_loop(unclean, clean, first)
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
