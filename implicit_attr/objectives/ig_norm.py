"""RAR, IG-NORM and IG-SUM-NORM (Chen et al., arXiv 1905.09957).

RAR of Chen et al. (arXiv 1905.09957). The map is that of integrated gradients
of the *loss* from x to x', so its entries sum to l(x') - l(x) and its ℓ1 norm
is at least |l(x') - l(x)|, up to the error of the Riemann sum.
"""

import jax
import jax.numpy as jnp

from implicit_attr.curvature.inputs import sum_pixels
from implicit_attr.losses import Loss
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.objectives.path import mean_gradient
from implicit_attr.types import ApplyFn, Array, LossFn, Params


def size(
  apply_fn: ApplyFn,
  loss: Loss,
  params: Params,
  x: Array,
  x_adv: Array,
  y: Array,
  *,
  points: int,
  chunk: int | None = None,
) -> Array:
  """‖IG(x, x')‖₁ = Σ |(x' - x) · mean gradient of the loss between|, [B]."""
  value = lambda x, y: derivatives.field(apply_fn, loss, params, y)(x)[0]
  mean = mean_gradient(value, x, x_adv, y, steps=points, chunk=chunk)
  return sum_pixels(jnp.abs((x_adv - x) * mean))


def ig_norm(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  points: int = 50,
  inner_points: int = 5,
  eps: float = 0.3,
  norm: str = 'linf',
  steps: int = 40,
  step: float = 1 / 30,
  chunk: int | None = None,
) -> LossFn:
  """loss + weight · ‖IG(x, x')‖₁, x' maximising the norm in the ball.

  IG-NORM with the released MNIST setting: weight 1, 50 points outside and 5
  within the walk of 40 steps of 0.01 in a ball of 0.3 from a uniform start.
  x' is held fixed when differentiating.

  Args:
    points, inner_points: of the Riemann sum, in the loss and in the walk.
    eps, norm, steps, step: see `inner_maximization.ascend`; step is in eps.
    chunk: see `path.mean_gradient`; a number saves memory for time.

  Raises:
    InputError: a bad option.
  """
  return _make(
    apply_fn, loss, weight, points, inner_points, chunk, False,
    eps=eps, norm=norm, steps=steps, step=step,
  )  # fmt: skip


def ig_sum_norm(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 0.1,
  points: int = 50,
  inner_points: int = 5,
  eps: float = 0.3,
  norm: str = 'linf',
  steps: int = 40,
  step: float = 1 / 30,
  chunk: int | None = None,
) -> LossFn:
  """loss at x' + weight · ‖IG(x, x')‖₁, x' maximising this sum in the ball.

  IG-SUM-NORM: adversarial training with the map's norm beside it; β = 0.1 in
  the released MNIST setting. Arguments as `ig_norm`. aux is of x'.

  Raises:
    InputError: a bad option.
  """
  return _make(
    apply_fn, loss, weight, points, inner_points, chunk, True,
    eps=eps, norm=norm, steps=steps, step=step,
  )  # fmt: skip


def _make(
  apply_fn, loss, weight, points, inner_points, chunk, summed, **walk
) -> LossFn:
  validation.weight(weight)
  validation.attack(**walk)
  validation.count(points=points, inner_points=inner_points)
  if chunk is not None:
    validation.count(chunk=chunk)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    frozen = jax.lax.stop_gradient(params)

    def gain(z):
      term = size(
        apply_fn, loss, frozen, x, z, y, points=inner_points, chunk=chunk
      )
      if not summed:
        return term
      return derivatives.field(apply_fn, loss, frozen, y)(z)[0] + weight * term

    x_adv = jax.lax.stop_gradient(inner.ascend(key, gain, x, **walk))
    fun = derivatives.field(apply_fn, loss, params, y)
    per_example, (_, aux) = fun(x_adv if summed else x)
    term = size(apply_fn, loss, params, x, x_adv, y, points=points, chunk=chunk)
    return per_example + weight * term, aux

  return loss_fn
