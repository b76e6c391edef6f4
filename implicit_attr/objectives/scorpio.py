"""SCORPIO, a second-order worst case (Tsiligkaridis, Roberts, 2009.04923)."""

import jax
import jax.numpy as jnp

from implicit_attr import numerics
from implicit_attr.losses import Loss
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, Array, LossFn


def furthest(v: Array, eps: float | Array, norm: str) -> Array:
  """The point s of the ball of radius eps with the largest s·v."""
  return eps * (jnp.sign(v) if norm == 'linf' else derivatives.unit(v))


def worst(
  fun: derivatives.Field,
  x: Array,
  *,
  eps: float | Array,
  norm: str,
  iterations: int,
  hvp: str,
  h: float | Array,
) -> Array:
  """d in the ball, [B, ...], that makes g·d + d·H d / 2 large (Frank-Wolfe).

  d₀ = 0; s_k = `furthest` along g + H d_k; d_{k+1} = d_k + γ_k (s_k - d_k) with
  γ_k = 2 / (k + 2): d₁ is the gradient direction, and N iterations take N - 1
  products. The pixel box is not looked at, as in the model.
  """
  grad, product, _ = derivatives.products(fun, x, hvp=hvp, h=h)
  start = furthest(grad, eps, norm)

  def step(d, gamma):
    s = furthest(grad + product(d), eps, norm)
    return d + gamma * (s - d), None

  k = jnp.arange(1, iterations, dtype=x.dtype)
  return jax.lax.scan(step, start, 2 / (k + 2))[0]


def scorpio(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  eps: float = 8 / 255,
  norm: str = 'linf',
  iterations: int = 3,
  hvp: str = 'fd',
  h: float = 1.0,
) -> LossFn:
  """loss + weight · (g·d + d·H d / 2) at d = `worst` of `iterations` steps.

  Tsiligkaridis & Roberts (arXiv 2009.04923): the worst case in a ball of the
  loss up to second order, found iteratively, d held fixed when
  differentiating. Their abstract and the names of their released networks
  (three iterations; ℓ2 and ℓ∞) are public, their training code is not: the
  Frank-Wolfe scheme and the weight 1, with which loss plus term is the
  quadratic model of the loss at x + d, are our reconstruction.

  With d known both terms are derivatives along one line, taken in forward mode.

  Args:
    eps: radius, pixel units.
    norm: 'linf' or 'l2', of the ball.
    iterations: N from 1 on; 1 is the gradient direction with its curvature.
    hvp: 'exact', or 'fd', which looks at x + h d: with h = 1 at the
      far side of the step, where the term is the trapezoid rule for
      l(x + d) - l(x).

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight)
  validation.share(eps=eps)
  validation.choose(validation.BALLS, norm=norm)
  validation.count(iterations=iterations)
  validation.product(hvp, h)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    frozen = derivatives.field(apply_fn, loss, jax.lax.stop_gradient(params), y)
    d = jax.lax.stop_gradient(
      worst(frozen, x, eps=eps, norm=norm, iterations=iterations, hvp=hvp, h=h)
    )
    fun = derivatives.field(apply_fn, loss, params, y)
    with numerics.exact():
      if hvp == 'fd':
        _, first, (per_example, aux) = derivatives.along(fun, x, d)
        second = (derivatives.along(fun, x + h * d, d)[1] - first) / h
      else:
        first, second, (per_example, aux) = _both(fun, x, d)
    return per_example + weight * (first + 0.5 * second), aux

  return loss_fn


def _both(fun: derivatives.Field, x: Array, d: Array) -> tuple:
  """(d·∇, d·H d, rest) of the field at x, forward over forward."""

  def first(t):
    _, slope, rest = derivatives.along(fun, x + t * d, d)
    return slope, rest

  zero = jnp.zeros((), x.dtype)
  return jax.jvp(first, (zero,), (zero + 1,), has_aux=True)
