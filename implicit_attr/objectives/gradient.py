"""What does it cost to penalise the input gradient of the loss directly?"""

import jax
import jax.numpy as jnp

from implicit_attr.losses import Loss
from implicit_attr.types import ApplyFn, LossFn


def gradient_penalty(apply_fn: ApplyFn, loss: Loss, *, weight: float) -> LossFn:
  """loss + weight · ‖∇_x loss‖₂², per example, by double backpropagation.

  The penalty of Drucker & Le Cun (1992) and Ross & Doshi-Velez (arXiv
  1711.09404), but a mean over examples where their code sums: our weight does
  not depend on the batch size. x in pixel units, the norm squared, not halved.
  """

  def loss_fn(params, batch, key):
    def total(x):
      logits, out = apply_fn(params, x)
      per_example = loss(logits, batch['label'])
      return jnp.sum(per_example), (per_example, {**out, 'logits': logits})

    # Examples do not see each other, so the gradient of the sum is the
    # gradient of each.
    grad, (per_example, aux) = jax.grad(total, has_aux=True)(batch['image'])
    axes = tuple(range(1, grad.ndim))
    return per_example + weight * jnp.sum(jnp.square(grad), axes), aux

  return loss_fn
