"""SGD and AdamW as directions, learning-rate schedules, and the stable edge.

Directions are free of the learning rate; the rate is a traced argument of the
step, so a sweep over rates or schedules compiles once.
"""

import jax
import jax.core
import numpy as np
import optax

from implicit_attr import errors
from implicit_attr.types import Array

OPTIMIZERS = ('sgd', 'adamw')
SCHEDULES = ('constant', 'cosine', 'step', 'cooldown')


def optimizer(
  name: str = 'sgd',
  *,
  momentum: float | Array = 0.0,
  nesterov: bool = False,
  weight_decay: float | Array = 0.0,
) -> optax.GradientTransformation:
  """The update direction d of θ ← θ - η d.

  sgd: v ← β v + (g + λ θ), d = v, or g + λ θ + β v with Nesterov: decay joins
  the gradient, as in PyTorch. adamw: β1 = 0.9, β2 = 0.999, decay beside the
  preconditioned direction (Loshchilov & Hutter, arXiv 1711.05101). Momentum
  and decay may be traced, and are then taken as they are: above 0.

  Raises:
    InputError: unknown name, momentum outside [0, 1), negative decay.
  """
  errors.choose('optim.name', name, OPTIMIZERS)
  decays = _traced(weight_decay) or bool(weight_decay != 0)
  rolls = _traced(momentum) or bool(momentum != 0)
  if not _traced(momentum):
    errors.number('optim.momentum', momentum, 0, 0.9999)
  if not _traced(weight_decay):
    errors.number('optim.weight_decay', weight_decay, 0)
  errors.require(
    'optim.nesterov', nesterov, not nesterov or rolls,
    'False unless optim.momentum > 0',
  )  # fmt: skip
  if name == 'adamw':
    errors.require(
      'optim.momentum', momentum, not rolls, '0 for adamw (β1 is 0.9)'
    )
    parts = [optax.scale_by_adam(), optax.add_decayed_weights(weight_decay)]
  else:
    parts = [optax.identity()]  # chain takes no empty list
    if decays:
      parts.append(optax.add_decayed_weights(weight_decay))
    if rolls:
      parts.append(optax.trace(momentum, nesterov))
  return optax.chain(*parts)


def _traced(value: float | Array) -> bool:
  return isinstance(value, jax.core.Tracer)


def learning_rates(
  lr: float, total: int, *, schedule: str = 'constant', warmup: int = 0
) -> np.ndarray:
  """The learning rate of every update; float32 [total].

  `warmup` updates of linear rise come first; then constant, cosine to zero, a
  factor 0.1 at one half and at three quarters of the rest, or, for 'cooldown'
  (Hägele et al., arXiv 2405.18392), constant and over its last tenth a line to
  zero.

  Raises:
    InputError: lr <= 0, an unknown schedule, a warm-up longer than the run.
  """
  errors.number('optim.lr', lr, 0, open_low=True)
  errors.choose('optim.schedule', schedule, SCHEDULES)
  errors.number('optim.warmup', warmup, 0, total, integer=True)
  rest = max(total - warmup, 1)
  t = np.arange(total)
  progress = np.clip((t - warmup) / rest, 0, 1)
  shape = {
    'constant': np.ones(total),
    'cosine': 0.5 * (1 + np.cos(np.pi * progress)),
    'cooldown': np.minimum(1, 10 * (1 - progress)),
    'step': 0.1 ** ((progress >= 0.5).astype(int) + (progress >= 0.75)),
  }[schedule]
  rise = np.minimum((t + 1) / (warmup + 1), 1)
  return (lr * rise * shape).astype(np.float32)


def stability_edge(
  lr: float, *, name: str, momentum: float, nesterov: bool, **_
) -> float | None:
  """The largest λ_max at which full-batch descent on a quadratic is stable.

  2/η for gradient descent, 2(1+β)/η for heavy ball (arXiv 2103.00065, §2.1),
  (2/η)(1+β)/(1+2β) for Nesterov. None for adamw, whose edge bounds the
  preconditioned Hessian instead (arXiv 2207.14484).
  """
  if name == 'adamw':
    return None
  if nesterov:
    return 2 / lr * (1 + momentum) / (1 + 2 * momentum)
  return 2 * (1 + momentum) / lr
