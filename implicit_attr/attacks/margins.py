"""Margins that an attack on a prediction lowers, given the logits.

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


def _others(logits: Array, labels: Array) -> Array:
  own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  return jnp.where(own, -jnp.inf, logits)


def margin(logits: Array, labels: Array) -> Array:
  """Logit of the label less the largest other logit; < 0 is an error."""
  return _at(logits, labels) - jnp.max(_others(logits, labels), -1)


def log_odds(logits: Array, labels: Array) -> Array:
  """log p_y / (1 - p_y) = z_y - log Σ_{j≠y} exp z_j.

  It rises with log p_y, minus the cross-entropy, example by example, so that
  its signs, directions and minima are the same; but where p_y is rounded to 1
  (a margin of 17 in float32) the slope of log p_y is lost, and this one is not.
  """
  rest = jax.nn.logsumexp(_others(logits, labels), axis=-1)
  return _at(logits, labels) - rest


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
  'ce': log_odds,
  'cw': margin,
  'dlr': dlr,
}
"""'ce' of PGD (arXiv 1706.06083) by its log odds, 'cw' the margin of Carlini &
Wagner (arXiv 1608.04644) without its hinge, 'dlr' of APGD."""
