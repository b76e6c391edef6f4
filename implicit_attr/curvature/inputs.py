"""Input Hessians of single examples: products, eigenpairs, moments, norms.

For `fun(x) -> [B]` whose examples do not see each other (a network in
evaluation mode), the Hessian of Σ_b fun(x)[b] is block diagonal: one product
of the sum is B products, one per example, and no network is vmapped. `fun` is
a logit, a margin, a log-probability or a loss. x [B, ...] in pixel units, so
gradients are per pixel unit and Hessians per pixel unit squared.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from implicit_attr import errors, numerics
from implicit_attr.curvature import krylov, products
from implicit_attr.curvature.flat import check_tree
from implicit_attr.curvature.lanczos import WHICH, check_order
from implicit_attr.curvature.trace import Moments, rademacher, sampled_moments
from implicit_attr.types import Array

PerExampleFun = Callable[[Array], Array]
"""x [B, ...] -> [B], row b a function of x[b] alone."""


class PerExample(NamedTuple):
  """One linearisation of `fun` at a batch."""

  gradients: Array  # [B, ...], ∇ fun
  mvp: Callable[[Array], Array]  # v [B, ...] -> H_b v_b for every b


class InputEigenpairs(NamedTuple):
  """One eigenpair per example."""

  values: Array  # [B], with sign
  vectors: Array  # [B, ...], unit vectors with the shape of x
  residuals: Array  # [B]; an eigenvalue of H_b lies this close
  products: Array  # [], block products used


def per_example(fun: PerExampleFun, x: Array) -> PerExample:
  """Gradients and the block Hessian product of `fun` at `x`, linearised once.

  Row b of a product depends on row b of `x` and `v` only, to rounding.
  Statistics over the batch (batch normalisation in training mode) break that.

  Args:
    fun: x [B, ...] -> [B].
    x: [B, ...], floating point.

  Raises:
    InputError: `fun` does not return [B]; `x` is empty or not floating point;
      outside `jit`, a non-finite value or gradient.
  """
  check_tree('x', x)

  def total(x: Array) -> Array:
    values = fun(x)
    errors.require(
      'fun(x)',
      jnp.shape(values),
      jnp.shape(values) == x.shape[:1],
      f'one number per example, of shape {x.shape[:1]}',
    )
    return jnp.sum(values)

  return PerExample(*products.grad_and_hvp(total, x))


def per_example_eigenpairs(
  mvp: Callable[[Array], Array],
  v0: Array,
  *,
  which: str = 'magnitude',
  order: int,
  tol: Array | float | None = None,
) -> InputEigenpairs:
  """The outermost eigenpair of every example's block, by Lanczos side by side.

  Args:
    mvp: v [B, ...] -> [B, ...], symmetric and row by row.
    v0: start [B, ...]; noise, or the vectors of the last measurement.
    which: 'magnitude' (largest in absolute value, sign kept: the operator
      norm), 'top' or 'bottom'.
    order: most block products; the basis takes order × the memory of `v0`.
    tol: residual, relative to the eigenvalue, at which all examples stop
      together once the last has converged; None uses all of `order`.

  Raises:
    InputError: `v0` empty or not floating point; `order` not in 1 … pixels of
      one example; unknown `which`.
  """
  check_tree('v0', v0)
  errors.choose('which', which, WHICH)
  rows = v0.reshape(v0.shape[0], -1)
  check_order(order, rows.shape[1])

  def product(rows: Array) -> Array:
    return mvp(rows.reshape(v0.shape)).reshape(rows.shape)

  if tol is None:
    state = krylov.run(product, rows, order)
  else:
    state = krylov.run_until(product, rows, order, 1, which, tol)
  values, weights, residuals, _ = krylov.ritz(state, 1, which)
  vectors = krylov.vectors(state.basis, weights)[:, 0]
  return InputEigenpairs(
    values[:, 0], vectors.reshape(v0.shape), residuals[:, 0], state.steps
  )


def per_example_moments(
  mvp: Callable[[Array], Array], x: Array, key: Array, *, draws: int
) -> Moments:
  """Tr H_b and ‖H_b‖_F of every example with standard errors, all [B].

  `draws` block products serve both; the estimators are those of `moments`.

  Args:
    x: [B, ...], for its shape and dtype.

  Raises:
    InputError: `draws` below 2; `x` empty or not floating point.
  """
  check_tree('x', x)

  def one(key: Array) -> tuple[Array, Array]:
    v = rademacher(key, x)
    image = mvp(v)
    return sum_pixels(v * image), sum_pixels(image * image)

  return sampled_moments(one, key, draws)


def gradient_norms(gradients: Array) -> Array:
  """‖∇ fun‖₂ per example, [B, ...] -> [B], however small."""
  return numerics.norm(gradients, tuple(range(1, gradients.ndim)))


def normalized_curvature(values: Array, gradients: Array) -> Array:
  """‖H_b‖ / ‖∇_b‖, per pixel unit, [B] (Srinivas et al., arXiv 2206.07144).

  It bounds the relative change of the gradient over a small step, which is
  what a cosine between attribution maps sees. Guarantee: the same when the
  function is scaled. NaN, undefined, where the gradient is 0.

  Args:
    values: [B], eigenvalues largest in magnitude.
    gradients: [B, ...].
  """
  norms = gradient_norms(gradients)
  some = norms > 0
  return jnp.where(some, jnp.abs(values) / jnp.where(some, norms, 1), jnp.nan)


def sum_pixels(x: Array) -> Array:
  """Sum over all axes but the first, [B, ...] -> [B]."""
  return jnp.sum(x, axis=tuple(range(1, x.ndim)))
