"""LLR, local linearity regularisation (Qin et al., arXiv 1907.02610)."""

import jax
import jax.numpy as jnp

from implicit_attr.curvature.inputs import sum_pixels
from implicit_attr.losses import Loss
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, LossFn


def llr(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 4.0,
  slope: float = 0.75,
  eps: float = 8 / 255,
  norm: str = 'linf',
  steps: int = 10,
  step: float = 0.25,
) -> LossFn:
  """loss + weight · (γ + slope · |d·g|), γ = |l(x + d) - l(x) - d·g|.

  Local linearity of Qin et al. (arXiv 1907.02610): d maximises γ in the ball,
  by `steps` steps on γ from a random start, and is held fixed when
  differentiating; g = ∇l(x). Weight 4 and slope 3 / 4 are λ = 4, μ = 3.
  d·g is a derivative along a line and is taken in forward mode.

  Args:
    slope: μ / λ.
    eps, norm, steps, step: of the inner walk, see `inner_maximization.ascend`.

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight)
  validation.share(slope=slope)
  validation.attack(eps, norm, steps, step)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    frozen = derivatives.field(apply_fn, loss, jax.lax.stop_gradient(params), y)
    grad, (value, _) = derivatives.slope(frozen)(x)

    def gap(z):
      return jnp.abs(frozen(z)[0] - value - sum_pixels(grad * (z - x)))

    x_adv = jax.lax.stop_gradient(
      inner.ascend(key, gap, x, eps=eps, norm=norm, steps=steps, step=step)
    )
    fun = derivatives.field(apply_fn, loss, params, y)
    per_example, first, (_, aux) = derivatives.along(fun, x, x_adv - x)
    gamma = jnp.abs(fun(x_adv)[0] - per_example - first)
    return per_example + weight * (gamma + slope * jnp.abs(first)), aux

  return loss_fn
