"""What an attack on maps reports, and its warning of a zero gradient."""

import warnings
from typing import NamedTuple

import numpy as np

from implicit_attr.attacks import inputs
from implicit_attr.types import Array

STALLED = (
  'the attack gradient was exactly zero for {count} of {total} examples, so '
  'the attack did nothing on them. A piecewise linear network (ReLU) has no '
  'second derivative: pass surrogate=, the same parameters with a smooth '
  'activation such as softplus, or use attack_black_box'
)


class AttackResult(NamedTuple):
  """What an attack on maps found; B examples."""

  x_adv: Array  # [B, H, W, C]
  score: Array  # [B], similarity to the clean map under `select`
  kept: Array  # [B] bool: was an admissible image other than the start met?
  clean_score: Array  # [B], score of x itself
  curve: Array  # [steps, B], best score after each step over all restarts
  restart_score: Array  # [restarts, B], best score of each restart alone
  stalled: Array  # [B] bool: the gradient was exactly zero at every step


def default_k(k: int | float | None) -> int | float:
  """A tenth of the pixels, about 100 of 32 x 32, unless k is given."""
  return 0.1 if k is None else k


def warn_stalled(stalled: Array) -> None:
  """Warns, with what to do, if any example is stalled; silent under jit.

  A caller who jits the attack calls this on `result.stalled` afterwards.
  """
  if inputs.known(stalled) and np.asarray(stalled).any():
    count = int(np.asarray(stalled).sum())
    text = STALLED.format(count=count, total=stalled.size)
    warnings.warn(text, stacklevel=3)
