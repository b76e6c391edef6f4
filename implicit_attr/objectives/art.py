"""ART, attributional robustness training (Singh et al., arXiv 1911.13073)."""

import jax
import jax.numpy as jnp

from implicit_attr.losses import Loss
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.similarity import top_mask
from implicit_attr.types import ApplyFn, Array, LossFn


def slopes(apply_fn: ApplyFn, params, x: Array, y: Array) -> tuple:
  """(gradient of the label's logit, of the largest other one, logits, out)."""
  logits, pull, out = jax.vjp(lambda x: apply_fn(params, x), x, has_aux=True)
  label = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
  wrong = jnp.argmax(jnp.where(label > 0, -jnp.inf, logits), -1)
  wrong = jax.nn.one_hot(wrong, logits.shape[-1], dtype=logits.dtype)
  return pull(label)[0], pull(wrong)[0], logits, out


def triplet(x: Array, right: Array, wrong: Array) -> Array:
  """log(1 + exp(d(right, x) - d(wrong, x))), d = 1 - cosine; [B]."""
  return jax.nn.softplus(
    derivatives.cosine(wrong, x) - derivatives.cosine(right, x)
  )


def art(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 0.5,
  k: int = 1000,
  eps: float = 8 / 255,
  norm: str = 'linf',
  steps: int = 3,
  step: float = 0.625,
) -> LossFn:
  """loss at x' + weight · mean of the triplet loss at x and at x'.

  Singh et al. (arXiv 1911.13073): the gradient of the label's logit is to be
  nearer to the image than that of the best wrong logit. x' raises the triplet
  loss in three steps of 5/255 in a ball of 8/255 from a uniform start, seen on
  the k entries where the clean label's gradient is largest (all if there are
  fewer), and is held fixed when differentiating. They take the gradients of a
  softplus network (β = 50) and the loss of the ReLU one; here both are of the
  network that is trained. aux is of x'.

  Args:
    k: entries of the image that the walk sees.
    eps, norm, steps, step: see `inner_maximization.ascend`; step is in eps.

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight)
  validation.count(k=k)
  validation.attack(eps, norm, steps, step)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    frozen = jax.lax.stop_gradient(params)
    right, wrong, _, _ = slopes(apply_fn, params, x, y)
    clean = triplet(x, right, wrong)
    fixed = jnp.abs(jax.lax.stop_gradient(right)).reshape(x.shape[0], -1)
    seen = top_mask(fixed, min(k, fixed.shape[1])).reshape(x.shape)

    def gain(z):
      right, wrong, _, _ = slopes(apply_fn, frozen, z, y)
      parts = (jnp.where(seen, a, 0) for a in (z, right, wrong))
      return triplet(*parts)

    x_adv = jax.lax.stop_gradient(
      inner.ascend(key, gain, x, eps=eps, norm=norm, steps=steps, step=step)
    )
    right, wrong, logits, out = slopes(apply_fn, params, x_adv, y)
    term = 0.5 * (clean + triplet(x_adv, right, wrong))
    return loss(logits, y) + weight * term, {**out, 'logits': logits}

  return loss_fn
