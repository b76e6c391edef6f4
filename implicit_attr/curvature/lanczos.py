"""Outermost eigenpairs of a product by Lanczos, stopped on the residual."""

from typing import NamedTuple

import jax

from implicit_attr import errors
from implicit_attr.curvature import krylov
from implicit_attr.curvature.flat import Flat, flatten_like
from implicit_attr.types import Array, Mvp, Tree

WHICH = ('top', 'bottom', 'magnitude')


class Eigenpairs(NamedTuple):
  """What `eigenpairs` found, and what it took."""

  values: Array  # [k]
  vectors: Tree  # leaves [k, ...], unit vectors, orthogonal to eps^(3/4)
  residuals: Array  # [k]; an eigenvalue lies this close, to rounding
  products: Array  # [], matrix–vector products used


def lanczos(mvp: Mvp, v0: Tree, order: int) -> tuple[Array, Array, Tree]:
  """Tridiagonalises a symmetric product on the Krylov space of `v0`.

  Args:
    mvp: a symmetric product on trees like `v0`.
    v0: start, any length; zero means random.
    order: K, number of products, at most the dimension.

  Returns:
    (alphas [K], betas [K-1], basis with leaves [K, ...]); the basis is
    orthonormal to rounding whatever K, and basis' A basis = tridiag(alphas,
    betas). Where the Krylov space is exhausted a beta is 0 and the basis goes
    on from a random vector; nothing becomes NaN.

  Raises:
    InputError: an empty tree, integer leaves, `order` not in 1 … dimension.
  """
  flat = flatten_like(v0)
  check_order(order, flat.size)
  state = krylov.run(_block(mvp, flat), flat.ravel(v0)[None], order)
  return state.alphas[0], state.betas[0, :-1], flat.unravel(state.basis[0])


def eigenpairs(
  mvp: Mvp,
  v0: Tree,
  *,
  k: int = 1,
  which: str = 'top',
  order: int,
  tol: Array | float | None = None,
) -> Eigenpairs:
  """`k` outermost eigenpairs by Lanczos, stopped on the residual.

  With a gap to the next eigenvalue the error of a value is about
  residual² / gap, so a relative residual of 3 % gives roughly three digits. A
  start inside an invariant subspace finds only what lies in that subspace:
  start from noise, or from an old eigenvector of a matrix that has moved since.

  Args:
    mvp: a symmetric product on trees like `v0`.
    v0: start; the eigenvector of the last measurement makes it short.
    which: 'top' (largest, with sign), 'bottom' (smallest, most negative
      first) or 'magnitude' (largest in absolute value, sign kept).
    order: most products to use; the basis takes order × dimension memory.
    tol: residual, relative to the eigenvalue's magnitude, at which it stops,
      for every one of the `k`; may be traced. None uses all of `order`.

  Returns:
    `Eigenpairs`. Residuals above `tol` say that `order` ended the search.

  Raises:
    InputError: as `lanczos`; `k` not in 1 … order; unknown `which`.
  """
  flat = flatten_like(v0)
  check_order(order, flat.size)
  errors.number('k', k, 1, order, integer=True)
  errors.choose('which', which, WHICH)
  start, product = flat.ravel(v0)[None], _block(mvp, flat)
  if tol is None:
    state = krylov.run(product, start, order)
  else:
    state = krylov.run_until(product, start, order, k, which, tol)
  values, weights, residuals, _ = krylov.ritz(state, k, which)
  vectors = krylov.vectors(state.basis, weights)[0]
  return Eigenpairs(values[0], flat.unravel(vectors), residuals[0], state.steps)


def top_eigenpairs(
  mvp: Mvp,
  v0: Tree,
  *,
  k: int = 1,
  order: int,
  tol: Array | float | None = None,
) -> tuple[Array, Tree, Array]:
  """(values [k] largest first, vectors with leaves [k, ...], residuals [k]).

  Largest with sign: a more negative eigenvalue never counts. The first three
  fields of `eigenpairs(..., which='top')`, which also counts products.
  """
  return eigenpairs(mvp, v0, k=k, which='top', order=order, tol=tol)[:3]


def bottom_eigenpairs(
  mvp: Mvp,
  v0: Tree,
  *,
  k: int = 1,
  order: int,
  tol: Array | float | None = None,
) -> tuple[Array, Tree, Array]:
  """As `top_eigenpairs` from the other end: most negative first."""
  return eigenpairs(mvp, v0, k=k, which='bottom', order=order, tol=tol)[:3]


def check_order(order: int, size: int) -> None:
  """Raises InputError unless 1 <= order <= size, the dimension."""
  errors.number('order', order, 1, integer=True)
  errors.require(
    'order', order, order <= size, f'at most the dimension, {size}'
  )


def _block(mvp: Mvp, flat: Flat) -> krylov.BlockMvp:
  """`mvp` on a [1, n] matrix."""
  return lambda rows: jax.lax.expand_dims(
    flat.ravel(mvp(flat.unravel(rows[0]))), (0,)
  )
