"""Derivatives of loss and logits in the image, while one trains.

A `Field` is a network and its labels seen as a function of the image alone:
x [B, ...] -> (value [B], rest). Examples must not see each other (no batch
statistics); then one gradient of the sum is the gradient of each example.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from implicit_attr import numerics
from implicit_attr.attribution.targets import TARGETS
from implicit_attr.curvature.inputs import sum_pixels
from implicit_attr.losses import Loss
from implicit_attr.types import ApplyFn, Array, Params

Field = Callable[[Array], tuple[Array, Any]]

SCALARS = ('loss', 'logit', 'margin', 'log_prob', 'prob')
"""What a field can be: the training loss, or a target of the label."""


def field(
  apply_fn: ApplyFn, loss: Loss, params: Params, y: Array, target: str = 'loss'
) -> Field:
  """x -> (target [B], (loss [B], aux)); aux is what a LossFn returns."""

  def fun(x: Array) -> tuple[Array, Any]:
    logits, out = apply_fn(params, x)
    per_example = loss(logits, y)
    value = per_example if target == 'loss' else TARGETS[target](logits, y)
    return value, (per_example, {**out, 'logits': logits})

  return fun


def slope(fun: Field) -> Callable[[Array], tuple[Array, Any]]:
  """x -> (∂ value_b / ∂ x_b, with the shape of x; rest)."""

  def total(x: Array) -> tuple[Array, Any]:
    value, rest = fun(x)
    return jnp.sum(value), rest

  return jax.grad(total, has_aux=True)


def products(
  fun: Field, x: Array, *, hvp: str, h: float | Array
) -> tuple[Array, Callable[[Array], Array], Any]:
  """(gradient, v -> H v, rest) at x; the gradient is taken once for all.

  'exact' is the derivative of the gradient along v; 'fd' the difference
  quotient (∇(x + h v) - ∇(x)) / h, which also sees the kinks of ReLU and
  max-pooling that lie between the two points and have no derivative.
  """
  with numerics.exact():
    if hvp == 'exact':
      return jax.linearize(slope(fun), x, has_aux=True)
    grad, rest = slope(fun)(x)

  def difference(v: Array) -> Array:
    with numerics.exact():
      return (slope(fun)(x + h * v)[0] - grad) / h

  return grad, difference, rest


def along(fun: Field, x: Array, d: Array) -> tuple[Array, Array, Any]:
  """(value [B], d·∇ value [B], rest) at x, in forward mode."""
  line = lambda t: fun(x + t * d)
  zero = jnp.zeros((), x.dtype)
  return jax.jvp(line, (zero,), (jnp.ones_like(zero),), has_aux=True)


def length(v: Array) -> Array:
  """‖v_b‖₂, [B, ...] -> [B], with gradient 0 where v_b is 0.

  Free of underflow.
  """
  top = jax.lax.stop_gradient(jnp.max(jnp.abs(v), tuple(range(1, v.ndim))))
  zero = top == 0
  square = sum_pixels(jnp.square(v / wide(jnp.where(zero, 1, top), v)))
  return jnp.where(zero, 0, top * jnp.sqrt(jnp.where(zero, 1, square)))


def wide(a: Array, x: Array) -> Array:
  """[B] -> [B, 1, …] with as many axes as x."""
  return a.reshape(a.shape + (1,) * (x.ndim - 1))


def unit(v: Array) -> Array:
  """v_b / ‖v_b‖₂; 0 where v_b is 0. Free of underflow."""
  top = wide(jnp.max(jnp.abs(v), tuple(range(1, v.ndim))), v)
  v = v / jnp.where(top > 0, jax.lax.stop_gradient(top), 1)
  size = length(v)
  return v / wide(jnp.where(size > 0, size, 1), v)


def cosine(a: Array, b: Array) -> Array:
  """cos(a_b, b_b), [B]; 0 where either is 0, with finite gradients."""
  return sum_pixels(unit(a) * unit(b))
