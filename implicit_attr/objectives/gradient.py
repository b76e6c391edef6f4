"""Input-gradient penalties, double backpropagation (arXiv 1711.09404)."""

import jax.numpy as jnp

from implicit_attr.curvature.inputs import sum_pixels
from implicit_attr.losses import Loss
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, LossFn

NORMS = {
  'l2_squared': lambda g: sum_pixels(g * g),
  'l1': lambda g: sum_pixels(jnp.abs(g)),
  'l2': derivatives.length,
  'linf': lambda g: jnp.max(jnp.abs(g), tuple(range(1, g.ndim))),
}
"""Name -> norm of the gradient, [B, ...] -> [B]. 'l1' is the dual of an ℓ∞
adversary, 'l2' of an ℓ2 and 'linf' of an ℓ1 one: eps times it is the largest
first-order change inside that adversary's ball."""


def gradient_penalty(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  norm: str = 'l2_squared',
  target: str = 'loss',
) -> LossFn:
  """loss + weight · ‖∇_x target‖, per example, by double backpropagation.

  'l2_squared' of the loss is the penalty of Drucker & Le Cun (1992) and Ross &
  Doshi-Velez (arXiv 1711.09404), but a mean over examples where their code sums
  half the squares: our weight does not depend on the batch size. They scan
  the weight and publish none. The other norms are those of Simon-Gabriel et
  al. (arXiv 1802.01421), whose weight is the radius eps.

  Args:
    norm: one of `NORMS`, of the gradient in pixel units.
    target: one of `input_derivatives.SCALARS`, all but the loss of the label.

  Raises:
    InputError: a negative weight, an unknown norm or target.
  """
  validation.weight(weight)
  validation.choose(NORMS, norm=norm)
  validation.choose(derivatives.SCALARS, target=target)

  def loss_fn(params, batch, key):
    fun = derivatives.field(apply_fn, loss, params, batch['label'], target)
    grad, (per_example, aux) = derivatives.slope(fun)(batch['image'])
    return per_example + weight * NORMS[norm](grad), aux

  return loss_fn
