"""Gradient maps (Simonyan et al., arXiv 1312.6034) and gradient times input.

Examples must not see each other in `apply_fn` (batch statistics frozen); then
one gradient of the sum is the gradient of each example.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr.attribution.inputs import check
from implicit_attr.attribution.targets import target as target_of
from implicit_attr.types import ApplyFn, Array, Params


def gradient_of(
  apply_fn: ApplyFn, params: Params, target: str
) -> Callable[[Array, Array], Array]:
  """x, y -> ∂ target_b / ∂ x_b for every b, with the shape of x."""

  def total(x: Array, y: Array) -> Array:
    logits, _ = apply_fn(params, x)
    return jnp.sum(target_of(target, logits, y))

  return jax.grad(total)


def gradient(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
) -> Array:
  """∂ target / ∂ x, per pixel unit (Simonyan et al., arXiv 1312.6034).

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    params: what `apply_fn` takes.
    x: [B, ...], floating, pixel units.
    y: the classes asked about; int [B].
    key: not used.
    target: one of `TARGETS`.

  Returns:
    Signed, with the shape of x; row b depends on row b of `x` and `y` alone.

  Raises:
    InputError: shapes or types that do not fit, an unknown target; where the
      values are known, a NaN in x or a label that is not a class. All methods
      of this folder raise it for these.
  """
  del key
  x, y = check(apply_fn, params, x, y)
  return gradient_of(apply_fn, params, target)(x, y)


def gradient_x_input(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
) -> Array:
  """x ∂ target / ∂ x, in units of the target (arXiv 1605.01713, section 1).

  Sums to the logit where the network is linear and has no biases.
  """
  return x * gradient(apply_fn, params, x, y, key=key, target=target)
