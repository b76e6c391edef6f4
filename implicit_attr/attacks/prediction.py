"""FGSM (arXiv 1412.6572) and PGD (Madry et al., arXiv 1706.06083).

Attacks on labels, to audit claims of robustness: a network whose input
gradients look clean may only have hidden them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attacks import (
  balls,
  inputs,
  margins,
  search,
  step_rules,
)
from implicit_attr.types import Array, Predict


class PredictionResult(NamedTuple):
  """What an attack on labels found; B examples."""

  x_adv: Array  # [B, H, W, C]
  margin: Array  # [B], logit of y less the largest other one, at x_adv
  fooled: Array  # [B] bool, the label predicted at x_adv is not y
  curve: Array  # [steps, B], lowest margin seen after each step
  stalled: Array  # [B] bool: the gradient was exactly zero at every step


def report(
  predict: Predict, x: Array, y: Array, curve: Array, stalled: Array
) -> PredictionResult:
  """The result whose attacked images are x."""
  logits = predict(x)
  fooled = jnp.argmax(logits, -1) != y
  return PredictionResult(x, margins.margin(logits, y), fooled, curve, stalled)


def fgsm(
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  loss: str = 'ce',
  bounds: tuple[float, float] = (0.0, 1.0),
) -> PredictionResult:
  """One step of length eps along the gradient (arXiv 1412.6572).

  The sign of the gradient for 'linf', its ℓ2 direction for 'l2'. x_adv is the
  stepped image whether or not it fools. Arguments as `pgd`.
  """
  return pgd(
    jax.random.key(0),
    predict,
    x,
    y,
    eps=eps,
    norm=norm,
    loss=loss,
    bounds=bounds,
    steps=1,
    step_size=eps,
    restarts=1,
    random_start=False,
    keep='last',
  )


def pgd(
  key: Array,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  loss: str = 'ce',
  steps: int = 40,
  step_size: float | Array | None = None,
  restarts: int = 1,
  random_start: bool = True,
  keep: str = 'best',
  bounds: tuple[float, float] = (0.0, 1.0),
) -> PredictionResult:
  """Projected gradient descent on the label (Madry et al., arXiv 1706.06083).

  Args:
    key: typed key of the random starts.
    predict: x -> logits [B, C].
    x: images [B, H, W, C] inside `bounds`.
    y: true labels [B], int.
    eps: radius in pixel units; may be traced.
    norm: 'linf' or 'l2'.
    loss: a name in `margins.MARGINS`.
    steps: gradient steps of each restart.
    step_size: pixel units, may be traced; 2.5 eps / steps if None.
    restarts: independent starts; the best is kept.
    random_start: False starts at x.
    keep: 'best' returns the image with the lowest margin ever visited, x
      included; 'last' where the walk ended, as foolbox does.
    bounds: the pixel box.

  Raises:
    InputError: see `inputs.check`; an unknown name.
  """
  x, y = inputs.check(
    x, y, eps=eps, norm=norm, bounds=bounds, steps=steps, restarts=restarts
  )
  errors.choose('norm', norm, ('linf', 'l2'))
  errors.choose('loss', loss, margins.MARGINS)
  errors.choose('keep', keep, ('best', 'last'))
  space = balls.ball(x, eps=eps, norm=norm, bounds=bounds)
  logits = predict(x)
  inputs.check_labels(y, logits, x)
  always = jnp.ones(x.shape[0], bool)

  def judge(z):
    return search.Verdict(margins.margin(predict(z), y), always)

  def lowered(z):
    seen = predict(z)
    return jnp.sum(margins.MARGINS[loss](seen, y)), margins.margin(seen, y)

  def probe(z, _):
    grad, score = jax.grad(lowered, has_aux=True)(z)
    return grad, search.Verdict(score, always), search.alive(grad)

  if step_size is None:
    step_size = step_rules.default_size(norm, space.eps, steps, bounds)
  best, curve, _ = search.descend(
    key,
    search.Walk(probe, judge),
    space,
    margins.margin(logits, y),
    rule=step_rules.default_rule(norm),
    step_size=jnp.asarray(step_size, x.dtype),
    schedule=jnp.arange(steps),
    restarts=restarts,
    random_start=random_start,
    keep_last=keep == 'last',
  )
  return report(predict, best.x, y, curve, ~best.moved)
