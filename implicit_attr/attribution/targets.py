"""The number of a network that is explained: logit, margin, probability, loss.

`y` is the class that is asked about, most often the predicted one. Every
target is larger when the network is surer of `y`, but for 'loss', which is
-'log_prob' and is what training minimises. All but the logit compare classes
and need two.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors, losses
from implicit_attr.attribution.inputs import check_labels
from implicit_attr.types import Array


def _logit(logits: Array, y: Array) -> Array:
  return jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]


def _margin(logits: Array, y: Array) -> Array:
  losses.check_labels(logits, y, 'y')
  chosen = jax.nn.one_hot(y, logits.shape[1], dtype=bool)
  others = jnp.where(chosen, -jnp.inf, logits)
  return _logit(logits, y) - jnp.max(others, axis=1)


TARGETS: dict[str, Callable[[Array, Array], Array]] = {
  'logit': _logit,
  'margin': _margin,
  'log_prob': losses.log_prob,
  'prob': lambda logits, y: jnp.exp(losses.log_prob(logits, y)),
  'loss': lambda logits, y: -losses.log_prob(logits, y),
}
"""Name -> function of (logits [B, C], y [B]) that returns [B]."""


def target(name: str, logits: Array, y: Array) -> Array:
  """The number to explain, one per example.

  Args:
    name: 'logit' of y; 'margin', that minus the largest other logit;
      'log_prob', 'prob' of y under the softmax; 'loss', the cross-entropy.
    logits: [B, C], C > 1 but for 'logit'.
    y: int [B].

  Returns:
    [B]; row b depends on row b of `logits` alone. Digits and derivatives of
    'log_prob', 'prob' and 'loss' as `losses.log_prob` guarantees.

  Raises:
    InputError: unknown name, shapes that do not fit, a single logit where
      classes are compared, and, where the values are known, a label that is
      not a class.
  """
  errors.choose('target', name, TARGETS)
  check_labels(y, logits)
  return TARGETS[name](logits, y)
