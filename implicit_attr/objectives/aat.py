"""AAT and AdvAAT, training against attacks on the map: FAR (arXiv 2010.07393).

FAR of Ivankay et al. (arXiv 2010.07393): the inner walk lowers Pearson's
correlation of the map with the clean one. Abstract and third-party code are
what is public of it; weight, steps and step are those of `pgd`, not theirs.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attribution import METHODS
from implicit_attr.losses import Loss
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import (
  second_order,
  validation,
)
from implicit_attr.types import ApplyFn, Array, LossFn

LOGIT_GRADIENTS = (
  'gradient', 'smoothgrad', 'smoothgrad_squared', 'vargrad',
  'guided_backprop', 'deconvnet',
)  # fmt: skip
"""Maps that do not move at all where the logits are piecewise linear."""

CONTROLS = ('random', 'edges')
"""Maps that do not depend on the network: nothing to train."""


def pearson(a: Array, b: Array) -> Array:
  """Correlation of two maps over all entries, [B]; 0 for a constant map."""
  axes = tuple(range(1, a.ndim))
  a, b = (m - jnp.mean(m, axes, keepdims=True) for m in (a, b))
  return derivatives.cosine(a, b)


def aat(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  method: str = 'gradient',
  method_options: Mapping[str, Any] | None = None,
  eps: float = 8 / 255,
  norm: str = 'linf',
  steps: int = 7,
  step: float = 0.25,
) -> LossFn:
  """loss + weight · (1 - PCC(A(x), A(x'))), x' maximising the second term.

  AAT. A is the map of the label's logit. x' is held fixed when
  differentiating, both maps are not.

  Args:
    method: a name in `attribution.METHODS`, save the controls.
    method_options: its keyword arguments.
    eps, norm, steps, step: see `inner_maximization.ascend`; step is in eps.

  Raises:
    InputError: a bad option; where the loss is traced, a piecewise linear
      network with a map that then has no slope to follow.
  """
  return _make(
    apply_fn, loss, weight, method, method_options, False,
    eps=eps, norm=norm, steps=steps, step=step,
  )  # fmt: skip


def adv_aat(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1.0,
  method: str = 'gradient',
  method_options: Mapping[str, Any] | None = None,
  eps: float = 8 / 255,
  norm: str = 'linf',
  steps: int = 7,
  step: float = 0.25,
) -> LossFn:
  """loss at x' + weight · (1 - PCC(A(x), A(x'))), x' maximising this sum.

  AdvAAT. Arguments and errors as `aat`; aux is of x'.
  """
  return _make(
    apply_fn, loss, weight, method, method_options, True,
    eps=eps, norm=norm, steps=steps, step=step,
  )  # fmt: skip


def _make(apply_fn, loss, weight, method, options, summed, **walk) -> LossFn:
  validation.weight(weight)
  validation.choose(sorted(set(METHODS) - set(CONTROLS)), method=method)
  validation.attack(**walk)
  options = dict(options or {})
  allowed = set(inspect.signature(METHODS[method]).parameters)
  allowed -= {'apply_fn', 'params', 'x', 'y', 'key'}
  for option in options:
    errors.choose('objective.options.method_options', option, allowed)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    linear = options.get('target', 'logit') in ('logit', 'margin')
    if method in LOGIT_GRADIENTS and linear:
      second_order.require(
        apply_fn, params, x, f'the map {method!r} under attack'
      )
    start_key, map_key = jax.random.split(key)

    def explain(params, z):
      # One key for all maps: what an attack sees must be what is trained.
      return METHODS[method](apply_fn, params, z, y, key=map_key, **options)

    frozen = jax.lax.stop_gradient(params)
    clean = explain(params, x)
    fixed = jax.lax.stop_gradient(clean)

    def gain(z):
      term = 1 - pearson(fixed, explain(frozen, z))
      if not summed:
        return term
      return derivatives.field(apply_fn, loss, frozen, y)(z)[0] + weight * term

    x_adv = jax.lax.stop_gradient(inner.ascend(start_key, gain, x, **walk))
    fun = derivatives.field(apply_fn, loss, params, y)
    per_example, (_, aux) = fun(x_adv if summed else x)
    term = 1 - pearson(clean, explain(params, x_adv))
    return per_example + weight * term, aux

  return loss_fn
