"""IGR, integrated-gradient regularisation (Wang & Kong, arXiv 2205.07279)."""

import jax
import jax.numpy as jnp

from implicit_attr.losses import Loss
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.objectives.path import mean_gradient
from implicit_attr.objectives.trades import divergence
from implicit_attr.types import ApplyFn, LossFn

ROBUST = ('pgd', 'trades')


def igr(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  robust: str = 'pgd',
  beta: float = 6.0,
  points: int = 3,
  eps: float = 8 / 255,
  norm: str = 'linf',
  steps: int = 7,
  step: float = 0.25,
  chunk: int | None = None,
) -> LossFn:
  """A robust loss + weight · (1 - cos(IG(x), IG(x'))), x' attacking the label.

  IGR of Wang & Kong (arXiv 2205.07279), with the settings of a public replica:
  integrated gradients of the label's logit from black in 3 points, seven steps
  of eps / 4, weight 1, which the paper does not name. x' is held fixed when
  differentiating, both maps are not.

  aux is of x' with 'pgd', of x with 'trades'.

  Args:
    robust: 'pgd', the loss at x'; or 'trades', loss + beta · KL(p(x) ‖ p(x')),
      x' maximising the KL.
    points: of each map.
    eps, norm, steps, step: see `inner_maximization.ascend`; step is in eps.
    chunk: see `path.mean_gradient`.

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight)
  validation.choose(ROBUST, robust=robust)
  validation.share(beta=beta)
  validation.count(points=points)
  validation.attack(eps, norm, steps, step)
  if chunk is not None:
    validation.count(chunk=chunk)
  walk = {'eps': eps, 'norm': norm, 'steps': steps, 'step': step}

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    frozen = jax.lax.stop_gradient(params)
    fun = derivatives.field(apply_fn, loss, params, y)
    if robust == 'pgd':
      x_adv = inner.against_label(
        key, apply_fn, frozen, x, y, attack='ce', **walk
      )
      x_adv = jax.lax.stop_gradient(x_adv)
      base, (_, aux) = fun(x_adv)
    else:
      per_example, (_, aux) = fun(x)
      fixed = jax.lax.stop_gradient(aux['logits'])
      gain = lambda z: divergence(fixed, apply_fn(frozen, z)[0])
      x_adv = inner.ascend(key, gain, x, start='normal', **walk)
      x_adv = jax.lax.stop_gradient(x_adv)
      moved, _ = apply_fn(params, x_adv)
      base = per_example + beta * divergence(aux['logits'], moved)

    def explain(x):
      logit = lambda x, y: derivatives.field(
        apply_fn, loss, params, y, 'logit'
      )(x)[0]
      black = jnp.zeros_like(x)
      return x * mean_gradient(logit, black, x, y, steps=points, chunk=chunk)

    return base + weight * (
      1 - derivatives.cosine(explain(x), explain(x_adv))
    ), aux

  return loss_fn
