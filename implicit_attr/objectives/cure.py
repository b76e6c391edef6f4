"""CURE, curvature regularisation (Moosavi-Dezfooli et al., 1811.09716)."""

import jax
import jax.numpy as jnp

from implicit_attr.curvature.inputs import sum_pixels
from implicit_attr.losses import Loss
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, LossFn


def cure(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 4.0,
  h: float = 1.5,
  squared: bool = True,
  hvp: str = 'fd',
) -> LossFn:
  """loss + weight · ‖∇l(x + h z) - ∇l(x)‖², z = sign ∇l(x) / ‖sign ∇l(x)‖₂.

  Moosavi-Dezfooli et al. (arXiv 1811.09716): weight 4; their code lets h grow
  from 0.1 to 3 over the first epochs and fine-tunes a trained network, here it
  is one number. z is held fixed when differentiating. One gradient serves z
  and the difference.

  Args:
    h: length ‖h z‖₂ of the step, pixel units.
    squared: as in the paper; False penalises the norm, as their code.
    hvp: 'exact' puts ‖h H z‖ in the place of the difference.

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight)
  validation.product(hvp, h)
  validation.flag(squared=squared)

  def loss_fn(params, batch, key):
    x = batch['image']
    fun = derivatives.field(apply_fn, loss, params, batch['label'])
    grad, product, (per_example, aux) = derivatives.products(
      fun, x, hvp=hvp, h=h
    )
    z = jax.lax.stop_gradient(derivatives.unit(jnp.sign(grad)))
    change = h * product(z)
    term = (
      sum_pixels(change * change) if squared else derivatives.length(change)
    )
    return per_example + weight * term, aux

  return loss_fn
