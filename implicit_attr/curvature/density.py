"""Spectral density by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017).

SIAM J. Matrix Anal. 38; for networks Ghorbani et al., arXiv 1901.10159. K
Lanczos steps from a random unit vector give a K-point rule for the spectral
measure, exact to degree 2K - 1 for that vector; the average over vectors tends
to the density of eigenvalues.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.curvature import krylov
from implicit_attr.curvature.flat import flatten_like
from implicit_attr.curvature.lanczos import check_order
from implicit_attr.curvature.trace import mean_and_stderr, signs
from implicit_attr.types import Array, Mvp, Tree


class Quadrature(NamedTuple):
  """S rules of K points; rule s stands for the measure v_s' f(A) v_s."""

  nodes: Array  # [S, K]
  weights: Array  # [S, K], each row adds up to 1


def spectral_quadrature(
  mvp: Mvp, like: Tree, key: Array, *, order: int, draws: int
) -> Quadrature:
  """The rules of `draws` random vectors with `order` products each.

  Args:
    mvp: a symmetric product on trees like `like`.
    order: K, at most the dimension; one vector's basis is in memory at a time.
    draws: S >= 2.

  Raises:
    InputError: bad `order` or `draws`, an empty tree, integer leaves.
  """
  flat = flatten_like(like)
  check_order(order, flat.size)
  errors.number('draws', draws, 2, integer=True)

  def product(rows: Array) -> Array:
    return flat.ravel(mvp(flat.unravel(rows[0])))[None]

  def one(key: Array) -> tuple[Array, Array]:
    v0 = signs(key, flat.size, flat.dtype)[None]
    state = krylov.run(product, v0, order)
    nodes, weights, _, _ = krylov.ritz(state, order, 'top')
    return nodes[0], weights[0, 0] ** 2

  return Quadrature(*jax.lax.map(one, jax.random.split(key, draws)))


def spectral_moments(
  quadrature: Quadrature, degree: int
) -> tuple[Array, Array]:
  """(Tr A^p / n for p = 1 … degree, their standard errors), each [degree].

  Without bias for degree <= 2K - 1.
  """
  powers = jnp.arange(1, degree + 1)[None, :, None]
  nodes, weights = quadrature.nodes[:, None], quadrature.weights[:, None]
  return mean_and_stderr(jnp.sum(weights * nodes**powers, -1))


def smoothed(
  quadrature: Quadrature, grid: Array, width: Array | float
) -> tuple[Array, Array]:
  """(density [N], standard error [N]) at `grid` [N]; Gaussians, σ = width."""

  def one(nodes: Array, weights: Array) -> Array:
    z = (grid[:, None] - nodes[None, :]) / width
    bells = jnp.exp(-(z**2) / 2) / (2 * jnp.pi) ** 0.5
    return bells @ weights / width

  return mean_and_stderr(jax.vmap(one)(*quadrature))


def default_grid(quadrature: Quadrature, points: int) -> tuple[Array, Array]:
  """(grid [points] over all nodes with a margin, σ = 1 % of their range).

  The range counts as 1/500 of the largest node at least: a spectrum of one
  point needs a grid that its type can tell apart.
  """
  low, high = jnp.min(quadrature.nodes), jnp.max(quadrature.nodes)
  size = jnp.maximum(jnp.abs(low), jnp.abs(high))
  extent = jnp.maximum(high - low, jnp.where(size > 0, size / 500, 1))
  width = extent / 100
  return jnp.linspace(low - 5 * width, high + 5 * width, points), width


def density(
  mvp: Mvp,
  like: Tree,
  key: Array,
  *,
  order: int,
  draws: int,
  points: int = 1024,
) -> tuple[Array, Array]:
  """(grid [points], density of eigenvalues [points]), which integrates to 1.

  Smoothed with a Gaussian of 1 % of the spectral range. For error bars, moments
  or another grid keep the `spectral_quadrature` and use `smoothed` and
  `spectral_moments` on it: no further products.

  Raises:
    InputError: as `spectral_quadrature`.
  """
  quadrature = spectral_quadrature(mvp, like, key, order=order, draws=draws)
  grid, width = default_grid(quadrature, points)
  return grid, smoothed(quadrature, grid, width)[0]
