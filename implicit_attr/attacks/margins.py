"""What does an attack on a prediction lower, given the logits?

Every entry takes logits [B, C] and labels [B] and gives [B]; it falls as the
network becomes less sure of the label.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array

MarginLoss = Callable[[Array, Array], Array]


def _at(logits: Array, labels: Array) -> Array:
  return jnp.take_along_axis(logits, labels[:, None], -1)[:, 0]


def margin(logits: Array, labels: Array) -> Array:
  """Logit of the label less the largest other logit; < 0 is an error."""
  others = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  return _at(logits, labels) - jnp.max(jnp.where(others, -jnp.inf, logits), -1)


def log_probability(logits: Array, labels: Array) -> Array:
  """Log probability of the label, minus the cross-entropy."""
  return _at(jax.nn.log_softmax(logits), labels)


def dlr(logits: Array, labels: Array) -> Array:
  """Difference of logits ratio: `margin` over (largest - third largest).

  Croce & Hein (arXiv 2003.01690), with the sign turned; free of the scale of
  the logits. Three classes at least.
  """
  errors.number('classes of loss dlr', logits.shape[-1], 3, integer=True)
  top = jax.lax.top_k(logits, 3)[0]
  return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Array, labels: Array, targets: Array) -> Array:
  """(z_y - z_t) / (z₁ - (z₃ + z₄) / 2) of sorted logits z₁ ≥ z₂ ≥ …; [B].

  Croce & Hein (arXiv 2003.01690), with the sign turned. Four classes at least.
  """
  errors.number('classes of loss dlr', logits.shape[-1], 4, integer=True)
  top = jax.lax.top_k(logits, 4)[0]
  width = top[:, 0] - 0.5 * (top[:, 2] + top[:, 3])
  return (_at(logits, labels) - _at(logits, targets)) / (width + 1e-12)


MARGINS: dict[str, MarginLoss] = {
  'ce': log_probability,
  'cw': margin,
  'dlr': dlr,
}
"""'ce' of PGD (arXiv 1706.06083), 'cw' the margin of Carlini & Wagner (arXiv
1608.04644) without its hinge, 'dlr' of APGD."""
