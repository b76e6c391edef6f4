"""What does training minimise for one example, given its logits?"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from implicit_attr import errors
from implicit_attr.types import Array

Loss = Callable[[Array, Array], Array]


def cross_entropy(
  logits: Array, labels: Array, label_smoothing: float | Array = 0.0
) -> Array:
  """Cross-entropy in nats; logits [B, C], labels [B] int -> [B].

  With `label_smoothing` s the target is (1 - s) one-hot + s / C.
  """
  targets = _targets(logits, labels, label_smoothing)
  return optax.softmax_cross_entropy(logits, targets)


def squared_error(
  logits: Array, labels: Array, label_smoothing: float | Array = 0.0
) -> Array:
  """Half the squared distance to the (smoothed) one-hot target; -> [B].

  Summed over classes, the convention of Cohen et al. (arXiv 2103.00065), so
  that the Gauss-Newton part of its Hessian in the logits is the identity.
  """
  targets = _targets(logits, labels, label_smoothing)
  return 0.5 * jnp.sum(jnp.square(logits - targets), axis=-1)


def _targets(
  logits: Array, labels: Array, label_smoothing: float | Array
) -> Array:
  targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
  if not _traced(label_smoothing) and not label_smoothing:
    return targets
  smoothing = jnp.asarray(label_smoothing, logits.dtype)
  return optax.smooth_labels(targets, smoothing)


def _traced(value: float | Array) -> bool:
  return isinstance(value, jax.core.Tracer)


LOSSES: dict[str, Callable[..., Array]] = {
  'cross_entropy': cross_entropy,
  'squared_error': squared_error,
}


def make(name: str, *, label_smoothing: float | Array = 0.0) -> Loss:
  """The loss `name` as (logits [B, C], labels [B]) -> [B].

  A smoothing that is traced is taken as it is.

  Raises:
    InputError: an unknown name, or a smoothing outside [0, 1).
  """
  errors.choose('loss.name', name, LOSSES)
  if not _traced(label_smoothing):
    errors.number('loss.label_smoothing', label_smoothing, 0, 0.999)
  loss = LOSSES[name]
  return lambda logits, labels: loss(logits, labels, label_smoothing)
