"""How much does a function or its gradient really change within a radius?

Second derivatives say nothing of a ReLU network, whose Hessian in the input is
zero almost everywhere while its gradient jumps. These differences do. Balls
are ℓ2, in pixel units, and are not cut at the borders of the pixel range.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.curvature.inputs import (
  PerExampleFun,
  gradient_norms,
  sum_pixels,
)
from implicit_attr.types import Array


def gradient_variation(
  fun: PerExampleFun,
  x: Array,
  key: Array,
  *,
  radius: Array | float,
  draws: int,
) -> tuple[Array, Array]:
  """Mean and largest ‖∇fun(x + δ) - ∇fun(x)‖ / radius over random ‖δ‖ = radius.

  Tends to the root mean square of ‖H_b u‖ over directions u for radius -> 0,
  and never exceeds sup ‖H‖ over the ball where `fun` is smooth.

  Args:
    fun: x [B, ...] -> [B], examples independent.
    radius: ℓ2 length of δ in pixel units; may be traced.
    draws: directions, uniform on the sphere, per example.

  Returns:
    (mean [B], max [B]).

  Raises:
    InputError: `draws` below 1.
  """
  errors.number('draws', draws, 1, integer=True)
  gradient = jax.grad(lambda x: jnp.sum(fun(x)))
  here = gradient(x)

  def one(key: Array) -> Array:
    direction = unit(jax.random.normal(key, x.shape, x.dtype))
    return gradient_norms(gradient(x + radius * direction) - here) / radius

  changes = jax.lax.map(one, jax.random.split(key, draws))
  return jnp.mean(changes, 0), jnp.max(changes, 0)


def local_lipschitz(
  fun: Callable[[Array], Array],
  x: Array,
  key: Array,
  *,
  radius: Array | float,
  steps: int,
  step_size: Array | float | None = None,
) -> tuple[Array, Array]:
  """Lower bound on the Lipschitz constant of `fun` within `radius` of x.

  Projected ascent on ‖fun(x + δ) - fun(x)‖ / ‖δ‖, ℓ2 on both sides, from a
  random δ; every iterate's quotient is a lower bound and the best is kept.

  Args:
    fun: x [B, ...] -> [B] or [B, C], examples independent.
    radius: largest ‖δ‖ in pixel units; may be traced.
    steps: ascent steps; 0 gives the quotient of the random start.
    step_size: ℓ2 length of a step in pixel units; radius / 4 by default.

  Returns:
    (quotient [B], the δ that attains it [B, ...]).

  Raises:
    InputError: `steps` below 0.
  """
  errors.number('steps', steps, 0, integer=True)
  size = radius / 4 if step_size is None else step_size
  here = fun(x)

  def squares(delta: Array) -> Array:
    # Squared, so that the slope is 0 and not NaN where nothing changes.
    change = fun(x + delta) - here
    return sum_pixels(change**2) / sum_pixels(delta**2)

  def total(delta: Array) -> tuple[Array, Array]:
    quotients = squares(delta)
    return jnp.sum(quotients), quotients

  def ascend(
    carry: tuple[Array, Array, Array], _: None
  ) -> tuple[tuple[Array, Array, Array], None]:
    delta, best, best_delta = carry
    (_, quotients), slope = jax.value_and_grad(total, has_aux=True)(delta)
    best, best_delta = keep_best(quotients, delta, best, best_delta)
    return (inside(delta + size * unit(slope)), best, best_delta), None

  def inside(delta: Array) -> Array:
    norms = column(gradient_norms(delta), delta)
    return delta * jnp.minimum(1, radius / jnp.where(norms > 0, norms, 1))

  start = radius * unit(jax.random.normal(key, x.shape, x.dtype))
  nothing = jnp.full(x.shape[:1], -jnp.inf, x.dtype)
  (delta, best, best_delta), _ = jax.lax.scan(
    ascend, (start, nothing, start), length=steps
  )
  square, delta = keep_best(squares(delta), delta, best, best_delta)
  return jnp.sqrt(square), delta


def keep_best(
  score: Array, delta: Array, best: Array, best_delta: Array
) -> tuple[Array, Array]:
  """The better of two candidates per example: (score [B], delta [B, ...])."""
  better = score > best
  return (
    jnp.where(better, score, best),
    jnp.where(column(better, delta), delta, best_delta),
  )


def unit(x: Array) -> Array:
  """Each example divided by its ℓ2 norm; zero stays zero."""
  norms = column(gradient_norms(x), x)
  return x / jnp.where(norms > 0, norms, 1)


def column(values: Array, like: Array) -> Array:
  """[B] -> [B, 1, ...] with as many axes as `like`."""
  return values.reshape(values.shape + (1,) * (like.ndim - 1))
