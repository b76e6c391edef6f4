"""TRADES, the prediction kept fixed in a ball (arXiv 1901.08573)."""

import jax
import jax.numpy as jnp

from implicit_attr.losses import Loss
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, Array, LossFn


def divergence(logits: Array, other: Array) -> Array:
  """KL(softmax(logits) ‖ softmax(other)) in nats, [B, C] -> [B]."""
  log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def trades(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 6.0,
  eps: float = 0.031,
  norm: str = 'linf',
  steps: int = 10,
  step: float = 0.007 / 0.031,
) -> LossFn:
  """loss + weight · KL(p(x) ‖ p(x')), x' maximising the KL in the ball.

  Zhang et al. (arXiv 1901.08573) and their code: ten steps of 0.007 in 0.031
  from x plus 0.001 N(0, 1), weight β = 6. Both sides of the outer KL are
  differentiated, x' is held fixed.

  Args:
    eps, norm, steps, step: see `inner_maximization.ascend`; step is in eps.

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight)
  validation.attack(eps, norm, steps, step)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    fun = derivatives.field(apply_fn, loss, params, y)
    per_example, (_, aux) = fun(x)
    fixed = jax.lax.stop_gradient(aux['logits'])
    frozen = jax.lax.stop_gradient(params)
    gain = lambda z: divergence(fixed, apply_fn(frozen, z)[0])
    x_adv = jax.lax.stop_gradient(
      inner.ascend(
        key, gain, x, eps=eps, norm=norm, steps=steps, step=step,
        start='normal',
      )
    )  # fmt: skip
    logits, _ = apply_fn(params, x_adv)
    return per_example + weight * divergence(aux['logits'], logits), aux

  return loss_fn
