"""Margins, confidences, generalisation gaps (Wen et al., arXiv 2011.07478)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr.attacks import margins
from implicit_attr.losses import cross_entropy
from implicit_attr.types import ApplyFn, Array, Params


class Predictions(NamedTuple):
  """What a network says about each of B labelled images."""

  margin: Array  # [B], logit of the label less the largest other one
  confidence: Array  # [B], largest probability, from 1 / C to 1
  loss: Array  # [B], cross-entropy in nats
  error: Array  # [B], 1 where the largest logit is not the label's, else 0


def predictions(
  apply_fn: ApplyFn, params: Params, x: Array, y: Array
) -> Predictions:
  """Margin, confidence, loss and error of every image (arXiv 2011.07478, §4).

  A margin is negative exactly where the error is 1, up to ties, and is in
  logits: networks of different scale are compared by the confidence.

  Args:
    x: [B, ...] in pixel units.
    y: labels, int [B].
  """
  logits, _ = apply_fn(params, x)
  wrong = jnp.argmax(logits, -1) != y
  return Predictions(
    margins.margin(logits, y),
    jnp.max(jax.nn.softmax(logits), -1),
    cross_entropy(logits, y),
    wrong.astype(logits.dtype),
  )


def gaps(train: Predictions, test: Predictions) -> dict[str, Array]:
  """{'loss', 'error', 'margin', 'confidence'}: mean on test less on train.

  Loss and error gaps are generalisation gaps: positive where training images
  are known better.
  """
  return {
    name: jnp.mean(getattr(test, name)) - jnp.mean(getattr(train, name))
    for name in Predictions._fields
  }
