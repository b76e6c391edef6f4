"""Cross-entropy and squared error of one example, given its logits.

Cross-entropy is written by the other classes. With others = log Σ_{j≠y} e^{z_j}
(and -∞ for a class that is masked), log p_y = -softplus(others - z_y): where
log_softmax subtracts two numbers that agree in all their digits from a margin
of 17 on, nothing is subtracted here, and 1 - p_y = σ(others - z_y).
"""

from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from implicit_attr import errors
from implicit_attr.types import Array

Loss = Callable[[Array, Array], Array]


def cross_entropy(
  logits: Array, labels: Array, label_smoothing: float | Array = 0.0
) -> Array:
  """Cross-entropy in nats; logits [..., C], labels [...] int -> [...].

  With `label_smoothing` s the target is (1 - s) one-hot + s / C.

  Guarantees and errors: those of `log_prob`. With smoothing, a masked class
  has an infinite loss, as it must.
  """
  loss = -log_prob(logits, labels)
  if not _traced(label_smoothing) and not label_smoothing:
    return loss
  smoothing = jnp.asarray(label_smoothing, logits.dtype)
  # lse - mean z is lse - z_y, which is `loss`, and z_y - mean z.
  spread = _logit(logits, _chosen(logits, labels)) - jnp.mean(logits, axis=-1)
  return loss + smoothing * spread


def squared_error(
  logits: Array, labels: Array, label_smoothing: float | Array = 0.0
) -> Array:
  """Half the squared distance to the (smoothed) one-hot target; -> [...].

  Summed over classes, the convention of Cohen et al. (arXiv 2103.00065), so
  that the Gauss-Newton part of its Hessian in the logits is the identity.
  Labels that are no class as in `log_prob`.

  Raises:
    InputError: as `log_prob`.
  """
  chosen = _chosen(logits, labels)
  targets = chosen.astype(logits.dtype)
  if _traced(label_smoothing) or label_smoothing:
    smoothing = jnp.asarray(label_smoothing, logits.dtype)
    targets = optax.smooth_labels(targets, smoothing)
  distance = 0.5 * jnp.sum(jnp.square(logits - targets), axis=-1)
  return jnp.where(jnp.any(chosen, axis=-1), distance, jnp.nan)


def log_prob(logits: Array, labels: Array) -> Array:
  """log p_y of the label's class; logits [..., C], labels [...] int -> [...].

  Guarantees: in any mode, value, first and second derivatives have the digits
  of float32 where p_y > 1/2, up to a margin of 80, at which 1 - p_y is nearly
  the least that float32 can hold. Where p_y is as near to 0, value and first
  derivatives have, but the part of the second by which the other classes
  compete is a difference, right to the rounding of p (1 - p) near 1. Logits of
  -∞ are classes that are masked, if the label's is not. NaN where a traced
  label is not a class or a logit is NaN, and not finite where one is +∞.

  Raises:
    InputError: one logit; shapes that do not fit; where the values are known,
      a label that is not a class.
  """
  chosen = _chosen(logits, labels)
  label = _logit(logits, chosen)
  rest = jnp.where(chosen, -jnp.inf, logits)
  # Where every other class is masked, p_y is 1 and its derivatives are 0.
  alone = jnp.all(jnp.isneginf(rest), axis=-1)
  rest = jnp.where(alone[..., None], 0, rest)
  others = jnp.where(alone, -jnp.inf, _logsumexp(rest))
  return -_softplus(others - label)


def check_labels(logits: Array, labels: Array, field: str = 'labels') -> None:
  """Raises InputError unless labels fit the logits [..., C], C > 1.

  Labels are looked at where their values are known, that is outside of jit.
  """
  shape = jnp.shape(logits)
  *_, classes = 0, *shape
  errors.require(
    'logits.shape', shape, classes > 1,
    '[B, C] with C > 1; write a single logit z as two, [0, z]',
  )  # fmt: skip
  given = jnp.shape(labels)
  errors.require(f'{field}.shape', given, given == shape[:-1], f'{shape[:-1]}')
  if not _traced(labels) and np.size(labels):
    values = np.asarray(labels)
    low, high = int(values.min()), int(values.max())
    errors.require(field, low, low >= 0, 'labels >= 0')
    errors.require(field, high, high < classes, f'labels < {classes}')


def _chosen(logits: Array, labels: Array) -> Array:
  """One-hot, bool [..., C]; no class is chosen by a label that is none."""
  check_labels(logits, labels)
  return jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)


def _logit(logits: Array, chosen: Array) -> Array:
  """z_y, NaN where no class is chosen or it is +∞."""
  label = jnp.sum(jnp.where(chosen, logits, 0), axis=-1)
  known = jnp.any(chosen, axis=-1) & (label < jnp.inf)
  return jnp.where(known, label, jnp.nan)


@jax.custom_jvp
def _logsumexp(z: Array) -> Array:
  return jax.nn.logsumexp(z, axis=-1)


@jax.custom_jvp
def _softplus(u: Array) -> Array:
  return jax.nn.softplus(u)


@jax.custom_jvp
def _sigmoid(u: Array) -> Array:
  return jax.nn.sigmoid(u)


# Softmax's own rule subtracts before it multiplies, so that the curvature of a
# class that leads far is 0 and no rounding.
_logsumexp.defjvps(lambda t, _, z: jnp.sum(t * jax.nn.softmax(z), axis=-1))
# 1 - σ(u) is σ(-u), in derivatives of any order.
_softplus.defjvps(lambda t, _, u: t * _sigmoid(u))
_sigmoid.defjvps(lambda t, _, u: t * _sigmoid(u) * _sigmoid(-u))


def _traced(value: object) -> bool:
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
