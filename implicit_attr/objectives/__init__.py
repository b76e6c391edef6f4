"""Training objectives: every explicit regulariser beside plain training.

A factory takes `apply_fn(params, x)`, the loss and its options and gives a
`LossFn`: (params, batch, key) -> (loss of each example [B], aux). Its defaults
are the published setting where there is one, named in its docstring. All
randomness is in `key`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from implicit_attr import errors, numerics
from implicit_attr.attacks.inputs import known as concrete
from implicit_attr.losses import Loss
from implicit_attr.objectives.aat import aat, adv_aat
from implicit_attr.objectives.adversarial import fgsm, pgd
from implicit_attr.objectives.alignment import gradient_alignment
from implicit_attr.objectives.art import art
from implicit_attr.objectives.cure import cure
from implicit_attr.objectives.gradient import gradient_penalty
from implicit_attr.objectives.hessian import hessian_penalty
from implicit_attr.objectives.ig_norm import ig_norm, ig_sum_norm
from implicit_attr.objectives.igr import igr
from implicit_attr.objectives.llr import llr
from implicit_attr.objectives.mixup import mixup
from implicit_attr.objectives.plain import plain
from implicit_attr.objectives.sam import sam
from implicit_attr.objectives.scorpio import scorpio
from implicit_attr.objectives.ssr import ssr
from implicit_attr.objectives.trades import trades
from implicit_attr.types import ApplyFn, Array, Batch, LossFn, Params

OBJECTIVES: dict[str, Callable[..., LossFn]] = {
  'none': plain,
  'gradient_penalty': gradient_penalty,
  'hessian_penalty': hessian_penalty,
  'cure': cure,
  'ssr': ssr,
  'scorpio': scorpio,
  'llr': llr,
  'gradient_alignment': gradient_alignment,
  'ig_norm': ig_norm,
  'ig_sum_norm': ig_sum_norm,
  'art': art,
  'aat': aat,
  'adv_aat': adv_aat,
  'igr': igr,
  'fgsm': fgsm,
  'pgd': pgd,
  'trades': trades,
  'sam': sam,
  'mixup': mixup,
}

FIRST_ORDER = (
  'none',
  'fgsm',
  'pgd',
  'trades',
  'sam',
  'mixup',  # no second derivatives at all
  'hessian_penalty',
  'cure',
  'ssr',
  'scorpio',  # exact where they take them
)
"""Not traced under `numerics.exact`, as all others are: one's own as well."""


def make(
  name: str,
  loss: Loss,
  *,
  weight: float | None = 0.0,
  options: Mapping[str, Any] | None = None,
) -> Callable[[ApplyFn], LossFn]:
  """apply_fn -> loss_fn for objective `name`; weight 0 is plain training.

  Weight 0 is plain training for every objective, those too whose first term is
  at an attacked image. A weight of None is the published one.

  Args:
    options: keyword arguments of the factory; the rest keep their defaults.

  Raises:
    InputError: unknown name or option, a value out of its range, a weight
      without a name; all of it here, before anything is traced.
  """
  errors.choose('objective.name', name, OBJECTIVES)
  factory = OBJECTIVES[name]
  options = dict(options or {})
  known = set(inspect.signature(factory).parameters)
  known -= {'apply_fn', 'loss', 'weight'}
  for option in options:
    errors.choose('objective.options', option, known)
  if name != 'none':
    if weight is not None:
      options['weight'] = weight
    factory(None, loss, **options)  # looks at the values, calls nothing
  else:
    errors.require(
      'objective.weight', weight, not weight, "0 while objective.name='none'"
    )
  if name == 'none' or (concrete(weight) and weight == 0):
    return lambda apply_fn: plain(apply_fn, loss)
  if name in FIRST_ORDER:
    return lambda apply_fn: factory(apply_fn, loss, **options)
  return lambda apply_fn: _exact(factory(apply_fn, loss, **options))


def _exact(loss_fn: LossFn) -> LossFn:
  """Second derivatives do not survive the short products of accelerators."""

  def run(params: Params, batch: Batch, key: Array) -> tuple[Array, dict]:
    with numerics.exact():
      return loss_fn(params, batch, key)

  return run
