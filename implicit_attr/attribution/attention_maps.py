"""Attention maps of a transformer: raw, rollout, value norms, ALTI.

Maps of a network with attention, see `attention_outputs`: one number for each
image token in row order, [B, N]; N = L - 1 with a class token, which has no
place in the image, else L.
"""

import jax.numpy as jnp

from implicit_attr.attribution import attention, attention_norms
from implicit_attr.attribution.attention_outputs import (
  block_of,
  image_tokens,
  seen,
  weights_of,
)
from implicit_attr.types import ApplyFn, Array, Params


def raw_attention(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
  layer: int = -1,
  heads: str = 'mean',
  scores: bool = False,
  implicit: bool = False,
) -> Array:
  """The weights of the class token's query, or the mean over queries, [B, N].

  Args:
    apply_fn, params, x, y: as `gradient`; x [B, H, W, C].
    key, target: not used: weights know no class.
    readout: 'cls' or 'mean', the network's own.
    layer: which block.
    heads: 'mean', 'max' or 'min'.
    scores: what the normaliser gets instead of what it gives, less the
      smallest, since softmax sees differences only. Where small gradients of
      the normaliser would hide an attack, these do not.
    implicit: from 'factors'; for kernels with features.

  Returns:
    [B, N], ≥ 0, differentiable to any order in x where the weights are.

  Raises:
    InputError: as `seen`; an unknown name or block.
  """
  del key, target
  name = 'factors' if implicit else 'scores' if scores else 'attention'
  out, rows = seen(apply_fn, params, x, y, readout=readout, names=[name])
  a = out[name][block_of(layer, len(out[name]))]
  if implicit:
    a = attention.Factored(*a)
    a = a._replace(inverse=jnp.ones_like(a.inverse)) if scores else a
  result = image_tokens(attention.raw(a, rows, heads), readout)
  return result - result.min(1, keepdims=True) if scores else result


def rollout(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
  residual: str = 'renorm',
  heads: str = 'mean',
  discard: float = 0.0,
  implicit: bool = False,
) -> Array:
  """Attention rollout, `attention.rollout`, of the read-out's rows, [B, N].

  Arguments and errors as there and in `raw_attention`.
  """
  del key, target
  name = 'factors' if implicit else 'attention'
  out, rows = seen(apply_fn, params, x, y, readout=readout, names=[name])
  result = attention.rollout(
    weights_of(out, implicit), rows[:, None],
    residual=residual, heads=heads, discard=discard,
  )  # fmt: skip
  return image_tokens(result[:, 0], readout)


def value_norm(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
  layer: int = -1,
) -> Array:
  """Norms of what tokens bring to the read-out, `attention_norms.value_norms`.

  Arguments and errors as `raw_attention`; needs 'projections'.
  """
  del key, target
  names = ['attention', 'values', 'projections']
  out, rows = seen(apply_fn, params, x, y, readout=readout, names=names)
  i = block_of(layer, len(out['attention']))
  a = out['attention'][i]
  if readout == 'cls':
    a, rows = a[:, :, :1], rows[:, :1]
  norms = attention_norms.value_norms(
    a, out['values'][i], out['projections'][i]
  )
  return image_tokens(jnp.einsum('bi,bij->bj', rows, norms), readout)


def value_rollout(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
) -> Array:
  """Rollout of `attention_norms.value_norms`, rows normalised, [B, N].

  Residual and weights are in one unit for every normaliser then. Arguments and
  errors as `value_norm`.
  """
  del key, target
  names = ['attention', 'values', 'projections']
  out, rows = seen(apply_fn, params, x, y, readout=readout, names=names)
  blocks = [
    attention_norms.value_norms(*block)[:, None]
    for block in zip(*(out[name] for name in names), strict=True)
  ]
  result = attention.chain(blocks, rows[:, None], 'renorm')
  return image_tokens(result[:, 0], readout)


def alti(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
) -> Array:
  """Product of `attention_norms.alti` over blocks, the read-out's row, [B, N].

  Arguments and errors as `value_norm`; needs 'tokens' and 'layers' too. With
  the class token's share the map sums to at most 1.
  """
  del key, target
  names = ['attention', 'values', 'projections', 'layers', 'tokens']
  out, rows = seen(apply_fn, params, x, y, readout=readout, names=names)
  before = [out['tokens'], *out['layers'][:-1]]
  rows = rows[:, None]
  for *block, tokens in reversed(
    list(zip(*(out[n] for n in names[:3]), before, strict=True))
  ):
    a, values, projections = block
    rows = jnp.einsum(
      'bki,bij->bkj', rows, attention_norms.alti(a, values, projections, tokens)
    )
  return image_tokens(rows[:, 0], readout)
