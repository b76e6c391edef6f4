"""Attention maps that need gradients: gradient x attention, Grad-CAM, Chefer.

Maps as in `attention_maps` that need the derivative by the weights too.
"""

from implicit_attr.attribution import attention
from implicit_attr.attribution.attention_outputs import (
  block_of,
  image_tokens,
  seen,
  weights_of,
)
from implicit_attr.types import ApplyFn, Array, Params


def gradient_x_attention(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
  layer: int = -1,
  rectify: bool = True,
  implicit: bool = False,
) -> Array:
  """A ⊙ dy/dA of the read-out's rows, mean over heads, [B, N].

  Args:
    target: one of `TARGETS`.
    rectify: only what speaks for the target.
    other arguments and errors: as `attention_maps.raw_attention`; needs
      'values' and 'mixed'.
  """
  del key
  a, values, gradient, rows = _block(
    apply_fn, params, x, y, target, readout, layer, implicit
  )
  result = attention.gradient_x_attention(
    a, values, gradient, rows, rectify=rectify
  )
  return image_tokens(result, readout)


def attention_grad_cam(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
  layer: int = -1,
  implicit: bool = False,
) -> Array:
  """Heads weighed by their mean gradient, `attention.grad_cam`, [B, N].

  Arguments and errors as `gradient_x_attention`.
  """
  del key
  block = _block(apply_fn, params, x, y, target, readout, layer, implicit)
  result = attention.grad_cam(*block, skip=int(readout == 'cls'))
  return image_tokens(result, readout)


def chefer(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
) -> Array:
  """Chefer et al.'s generic rule (arXiv 2103.15679), `attention.chefer`.

  Arguments and errors as `gradient_x_attention`. The rectifier sits on every
  entry, so there is no implicit form.
  """
  del key
  out, rows = seen(
    apply_fn, params, x, y, readout=readout, names=['attention'], target=target
  )
  pairs = zip(out['values'], out['gradient'], strict=True)
  gradients = [attention.weight_gradient(v, g) for v, g in pairs]
  result = attention.chefer(gradients, out['attention'], rows[:, None])
  return image_tokens(result[:, 0], readout)


def _block(
  apply_fn, params, x, y, target, readout, layer, implicit
) -> tuple[attention.Weights, Array, Array, Array]:
  """(A, v, dy/do, rows) of one block; of its first query alone for 'cls'."""
  name = 'factors' if implicit else 'attention'
  out, rows = seen(
    apply_fn, params, x, y, readout=readout, names=[name], target=target
  )
  i = block_of(layer, len(out[name]))
  a = weights_of(out, implicit)[i]
  gradient = out['gradient'][i]
  if readout == 'cls':
    a, gradient, rows = attention.first(a), gradient[:, :1], rows[:, :1]
  return a, out['values'][i], gradient, rows
