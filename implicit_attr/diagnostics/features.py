"""Layer-wise change of features under perturbation (arXiv 2011.07478)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import ApplyFn, Array, Params


class FeatureChange(NamedTuple):
  """L hidden layers and then the logits, for B pairs of images."""

  size: Array  # [B], ‖x' - x‖₂ in pixel units
  change: Array  # [L + 1, B], ‖φ(x') - φ(x)‖₂
  relative: Array  # [L + 1, B], the same over ‖φ(x)‖₂; NaN where that is 0


def feature_change(
  apply_fn: ApplyFn, params: Params, x: Array, x_adv: Array
) -> FeatureChange:
  """Layer-wise change of features between x and x_adv (arXiv 2011.07478).

  Features are `out['layers']` as the network gives them, whole feature maps
  with all their pixels; the logits come last. change / size is at most the
  Lipschitz constant of the layers up to there.

  Args:
    x, x_adv: [B, ...], pairs.

  Raises:
    InputError: images of different shapes, a network without `out['layers']`.
  """
  errors.require(
    'x_adv.shape', x_adv.shape, x_adv.shape == x.shape, f'{x.shape}'
  )
  clean, moved = (_features(apply_fn, params, z) for z in (x, x_adv))
  change = jnp.stack(
    [_length(b - a) for a, b in zip(clean, moved, strict=True)]
  )
  size = jnp.stack([_length(a) for a in clean])
  return FeatureChange(_length(x_adv - x), change, change / _or_nan(size))


def _features(apply_fn: ApplyFn, params: Params, x: Array) -> list[Array]:
  logits, out = apply_fn(params, x)
  known = sorted(out)
  errors.require('out', known, 'layers' in out, "a dict with 'layers'")
  return [*jax.tree.leaves(out['layers']), logits]


def _length(v: Array) -> Array:
  flat = v.reshape(v.shape[0], -1)
  return jnp.linalg.norm(flat, axis=-1)


def _or_nan(size: Array) -> Array:
  return jnp.where(size > 0, size, jnp.nan)
