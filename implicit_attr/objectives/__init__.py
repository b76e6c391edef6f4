"""What is added to the loss? Every explicit route beside plain training.

A factory takes `apply_fn(params, x)`, the loss and its options and gives a
`LossFn`: (params, batch, key) -> (loss of each example [B], aux).
"""

from collections.abc import Callable

from implicit_attr import errors
from implicit_attr.losses import Loss
from implicit_attr.objectives.gradient import gradient_penalty
from implicit_attr.objectives.plain import plain
from implicit_attr.types import ApplyFn, LossFn

OBJECTIVES: dict[str, Callable[..., LossFn]] = {
  'none': plain,
  'gradient_penalty': gradient_penalty,
}


def make(
  name: str, loss: Loss, *, weight: float = 0.0
) -> Callable[[ApplyFn], LossFn]:
  """apply_fn -> loss_fn for objective `name`; weight 0 is plain training.

  Raises:
    InputError: unknown name, a negative weight, a weight without a name.
  """
  errors.choose('objective.name', name, OBJECTIVES)
  errors.number('objective.weight', weight, 0)
  errors.require(
    'objective.weight', weight, name != 'none' or weight == 0,
    "0 while objective.name='none'",
  )  # fmt: skip
  if weight == 0:
    return lambda apply_fn: plain(apply_fn, loss)
  factory = OBJECTIVES[name]
  return lambda apply_fn: factory(apply_fn, loss, weight=weight)
