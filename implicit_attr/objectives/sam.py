"""SAM, sharpness-aware minimisation (Foret et al., arXiv 2010.01412)."""

import jax
import jax.numpy as jnp
import optax

from implicit_attr.losses import Loss
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, LossFn


def sam(apply_fn: ApplyFn, loss: Loss, *, weight: float = 0.05) -> LossFn:
  """The loss at θ + weight · g / ‖g‖₂, g its gradient over the batch.

  Sharpness-aware minimisation (Foret et al., arXiv 2010.01412), a control in
  weight space: the weight is the radius ρ, 0.05 theirs. The displacement is
  held fixed when differentiating, as in their first-order step, so this needs
  no training step of its own. With parallel='pmap' each device displaces by the
  gradient of its own examples, their m-sharpness.

  aux is of the displaced parameters.

  Raises:
    InputError: a negative weight.
  """
  validation.weight(weight)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']

    def total(params):
      return jnp.sum(derivatives.field(apply_fn, loss, params, y)(x)[0])

    grad = jax.grad(total)(jax.lax.stop_gradient(params))
    norm = optax.tree.norm(grad)
    scale = weight / jnp.where(norm > 0, norm, 1)
    away = jax.tree.map(lambda g: (scale * g).astype(g.dtype), grad)
    away = jax.lax.stop_gradient(away)
    displaced = jax.tree.map(jnp.add, params, away)
    return derivatives.field(apply_fn, loss, displaced, y)(x)[1]

  return loss_fn
