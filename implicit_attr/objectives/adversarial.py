"""Adversarial training, by PGD (arXiv 1706.06083) or FGSM ( 2001.03994)."""

import jax

from implicit_attr.attacks import margins
from implicit_attr.losses import Loss
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, LossFn


def pgd(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  eps: float = 8 / 255,
  norm: str = 'linf',
  steps: int = 7,
  step: float = 0.25,
  attack: str = 'ce',
) -> LossFn:
  """(1 - weight) · loss at x + weight · loss at x', x' by projected ascent.

  Adversarial training of Madry et al. (arXiv 1706.06083), seven steps of 2/255
  in a ball of 8/255 from a uniform start; their MNIST setting is eps 0.3, 40
  steps of 1/30. Weight 1 is theirs and never sees x itself. x' is held fixed
  when differentiating.

  aux is of x', where the weight is not 0.

  Args:
    weight: from 0 to 1.
    eps, norm, steps, step: see `inner_maximization.ascend`; step is in eps.
    attack: what x' lowers, a name in `attacks.margins.MARGINS`: 'ce', 'cw'
      (the margin) or 'dlr'.

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight, 1)
  validation.attack(eps, norm, steps, step)
  validation.choose(margins.MARGINS, attack=attack)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    x_adv = jax.lax.stop_gradient(
      inner.against_label(
        key, apply_fn, jax.lax.stop_gradient(params), x, y,
        attack=attack, eps=eps, norm=norm, steps=steps, step=step,
      )
    )  # fmt: skip
    fun = derivatives.field(apply_fn, loss, params, y)
    attacked, (_, aux) = fun(x_adv)
    # A weight in an array may change from call to call.
    if isinstance(weight, (int, float)) and weight == 1:
      return attacked, aux
    return (1 - weight) * fun(x)[0] + weight * attacked, aux

  return loss_fn


def fgsm(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  eps: float = 8 / 255,
  norm: str = 'linf',
  step: float = 1.25,
  attack: str = 'ce',
) -> LossFn:
  """`pgd` of one step, 1.25 eps from a uniform start (arXiv 2001.03994).

  Fast adversarial training of Wong et al.; it is known to overfit to its own
  attack of a sudden, so look at the accuracy under `attacks.pgd`.

  Raises:
    InputError: as `pgd`.
  """
  return pgd(
    apply_fn, loss, weight=weight, eps=eps, norm=norm, steps=1, step=step,
    attack=attack,
  )  # fmt: skip
