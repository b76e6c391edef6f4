"""Confounders of curvature: logit scale, margin, norm of the first layer."""

import jax.numpy as jnp

from implicit_attr import attribution
from implicit_attr.types import ApplyFn, Array, Batch, Params


def has_first_layer(params: Params) -> bool:
  """Whether it is known which layer touches the pixels."""
  first = params.get('first', {}) if isinstance(params, dict) else {}
  return isinstance(first, dict) and 'kernel' in first


def confounders(
  apply_fn: ApplyFn, params: Params, batch: Batch
) -> dict[str, Array]:
  """‖W1‖, the scale of the logits, the margin.

  ‖W1‖ (spectral, the first layer as one matrix [inputs, outputs]) enters
  every bound from parameter to input curvature squared; under cross-entropy a
  growing logit scale flattens the loss while it sharpens the logits.

  Returns:
    'param/w1_norm' (of a network whose first layer is called 'first', and has
    a 'kernel'); 'logit/scale', the standard deviation of an example's
    logits over classes; 'logit/margin', true logit minus the best other. The
    last two also per example: [n].
  """
  logits, _ = apply_fn(params, batch['image'])
  measured = {}
  if has_first_layer(params):
    kernel = params['first']['kernel']
    w1 = kernel.reshape(-1, kernel.shape[-1])
    measured['param/w1_norm'] = jnp.linalg.norm(w1, ord=2)
  return measured | {
    'logit/scale': jnp.std(logits, axis=-1),
    'logit/margin': attribution.target('margin', logits, batch['label']),
  }
