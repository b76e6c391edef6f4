"""Attention diagnostics for each layer and head: uniform, saturated or coupled.

The three readings of why softmax may keep gains from attention maps: bounded
logits force the entropy up and the gaps down ('entropy' at its 'floor', 'gap'
at its 'cap'); flatness is reached by saturation ('entropy' and 'jacobian' fall
while the scores' 'rank_radius' does not grow); the rows' sum couples all scores
('row_sum_variation' is 0, 'jacobian_trace' large).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import attribution, errors
from implicit_attr.probes import attention_rows as rows
from implicit_attr.types import ApplyFn, Array, Params


def attention_diagnostics(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  *,
  k: int | float = 0.25,
  readout: str = 'cls',
) -> dict[str, Array]:
  """Means over rows and examples of x [B, H, W, C], each [layers, heads].

  Args:
    k: size of the top set, a count or a share of the tokens.
    readout: 'cls' or 'mean', the network's own.

  Returns:
    'attention/…': 'entropy' (nats), 'entropy_ratio' (over log L),
    'entropy_floor' (Zhai et al.) and 'spread_floor', what it cannot fall below
    at these logits; 'spread' Δ; 'jacobian_norm', 'jacobian_trace',
    'trace_floor'; 'gap' of the k-th weight over the next, 'gap_cap', what
    entropy and spread let it be; 'row_sum_variation'; and of the read-out's
    scores 'rank_radius', the gap of the k-th over its gradient norm: how far x
    may move, to first order in pixel units (ℓ2), before the top k change. It
    is free of the scores' scale. See `attention_rows`; rows that no normaliser
    made are normalised first, except for the sums.

  Raises:
    InputError: a network without attention; an unknown read-out; k outside
      1 … L - 1.
  """
  errors.choose('readout', readout, attribution.READOUTS)
  shapes = _shapes_of(jax.eval_shape(apply_fn, params, x)[1])
  size = shapes['attention'][0].shape[-1]
  count = max(1, round(k * size)) if isinstance(k, float) else k
  errors.number('k', count, 1, size - 1, integer=True)
  out = apply_fn(params, x)[1]
  blocks = [_of_weights(a, count) for a in out['attention']]
  means = {name: jnp.stack([b[name] for b in blocks]) for name in blocks[0]}
  means['rank_radius'] = rank_radius(
    apply_fn, params, x, k=count, readout=readout
  ).mean(-1)
  return {f'attention/{name}': a for name, a in means.items()}


def rank_radius(
  apply_fn: ApplyFn, params: Params, x: Array, *, k: int, readout: str
) -> Array:
  """Gap of the k-th read-out score over its gradient norm in x.

  [layers, heads, B], pixel units (ℓ2), to first order. The scores are those
  before the normaliser, of the class token's query or the mean over queries.
  Of the k-th and the next alone: another pair may change places sooner.
  Multiplying them by a number changes nothing. 0 where the gradient is.

  Raises:
    InputError: a network without attention or without 'scores'.
  """
  errors.choose('readout', readout, attribution.READOUTS)
  _shapes_of(jax.eval_shape(apply_fn, params, x)[1], 'scores')

  def gaps(x: Array) -> Array:
    scores = jnp.stack(apply_fn(params, x)[1]['scores'])  # [n, B, H, L, L]
    read = scores[..., 0, :] if readout == 'cls' else scores.mean(-2)
    top = jax.lax.top_k(read, k + 1)[0]
    return (top[..., k - 1] - top[..., k]).swapaxes(1, 2)  # [n, H, B]

  values, back = jax.vjp(gaps, x)
  n, heads, b = values.shape
  basis = np.eye(n * heads).reshape(-1, n, heads, 1)
  ones = jnp.asarray(np.repeat(basis, b, -1), values.dtype)
  # One after the other: side by side they would need n H times the memory.
  gradients = jax.lax.map(lambda one: back(one)[0], ones)
  norms = jnp.linalg.norm(gradients.reshape(n, heads, b, -1), axis=-1)
  some = norms > 0
  return jnp.where(some, values / jnp.where(some, norms, 1), 0)


def _of_weights(a: Array, k: int) -> dict[str, Array]:
  """Means over examples and rows of weights [B, H, L, L], [H] each."""
  size = a.shape[-1]
  measured = {
    'entropy': rows.entropy(a),
    'entropy_ratio': rows.entropy(a) / np.log(size).astype(a.dtype),
    'entropy_floor': rows.entropy_floor(rows.radius(a), size),
    'spread': rows.spread(a),
    'spread_floor': rows.spread_floor(rows.spread(a), size),
    'jacobian_norm': rows.jacobian_norm(a),
    'jacobian_trace': rows.jacobian_trace(a),
    'trace_floor': rows.trace_floor(a),
    'gap': rows.top_gap(a, k),
    'gap_cap': rows.gap_cap(a, k),
  }
  means = {name: value.mean((0, 2)) for name, value in measured.items()}
  return means | {'row_sum_variation': rows.sum_variation(a).mean(0)}


def _shapes_of(out: Any, name: str = 'attention') -> dict:
  ok = isinstance(out, dict) and bool(out.get(name))
  errors.require(
    'apply_fn', 'a network', ok,
    f'one with attention, whose out has {name!r}, for this probe',
  )  # fmt: skip
  return out
