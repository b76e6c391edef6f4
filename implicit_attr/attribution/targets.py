"""Which number of the network is explained?

`y` is the class that is asked about, most often the predicted one. Every
target is larger when the network is surer of `y`, but for 'loss', which is
-'log_prob' and is what training minimises.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attribution.inputs import check_labels
from implicit_attr.types import Array


def _logit(logits: Array, y: Array) -> Array:
  return jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]


def _margin(logits: Array, y: Array) -> Array:
  classes = logits.shape[1]
  errors.require('logits', logits.shape, classes > 1, '[B, C] with C > 1')
  chosen = jax.nn.one_hot(y, classes, dtype=bool)
  others = jnp.where(chosen, -jnp.inf, logits)
  return _logit(logits, y) - jnp.max(others, axis=1)


def _log_prob(logits: Array, y: Array) -> Array:
  return _logit(jax.nn.log_softmax(logits, axis=1), y)


TARGETS: dict[str, Callable[[Array, Array], Array]] = {
  'logit': _logit,
  'margin': _margin,
  'log_prob': _log_prob,
  'prob': lambda logits, y: jnp.exp(_log_prob(logits, y)),
  'loss': lambda logits, y: -_log_prob(logits, y),
}
"""Name -> function of (logits [B, C], y [B]) that returns [B]."""


def target(name: str, logits: Array, y: Array) -> Array:
  """The number to explain, one per example.

  Args:
    name: 'logit' of y; 'margin', that minus the largest other logit;
      'log_prob', 'prob' of y under the softmax; 'loss', the cross-entropy.
    logits: [B, C].
    y: int [B].

  Returns:
    [B]; row b depends on row b of `logits` alone.

  Raises:
    InputError: unknown name, shapes that do not fit, and, where the values
      are known, a label that is not a class.
  """
  errors.choose('target', name, TARGETS)
  check_labels(y, logits)
  return TARGETS[name](logits, y)
