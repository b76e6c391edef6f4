"""Steps along a gradient: signs, normalised, momentum, Adam; their size."""

from typing import NamedTuple

import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array

RULES = ('sign', 'normalised', 'momentum', 'adam')


class Moments(NamedTuple):
  first: Array
  second: Array
  count: Array


def init(x: Array) -> Moments:
  """The state before the first step; 'momentum' and 'adam' change it."""
  zero = jnp.zeros_like(x)
  return Moments(zero, zero, jnp.zeros((), x.dtype))


def default_rule(norm: str) -> str:
  """The steepest-descent step of the norm: signs for linf and a patch."""
  return 'sign' if norm in ('linf', 'patch') else 'normalised'


def default_size(
  norm: str, eps: Array, steps: int, bounds, rule: str = 'sign'
) -> Array:
  """2.5 eps / steps, so that the far side can be reached and corrected.

  Madry et al. (arXiv 1706.06083). For 'momentum' along a cosine, from eps, so
  that any point of the ball is near at first, to 0.02 eps; [steps]. For 'l0',
  where eps counts pixels, half the range of a pixel: a pixel must be able to
  enter the set in one step.
  """
  if norm == 'l0':
    return jnp.asarray(0.5 * (bounds[1] - bounds[0]), eps.dtype)
  if rule == 'momentum':
    turn = jnp.pi * jnp.arange(steps, dtype=eps.dtype) / steps
    return eps * (0.5 * (1 + jnp.cos(turn)) + 0.02)
  return 2.5 * eps / steps


def default_betas(
  norm: str,
  eps: Array,
  steps: int,
  bounds: tuple[float | Array, float | Array],
) -> Array:
  """β of a softplus surrogate over the steps, [steps], geometric.

  A kink is to be smoothed about as wide as the ball moves what enters it. With
  ε a share of the box, from min(10, 1 / 2ε) to 5 / ε under 'linf'; from 10 to
  100, as Dombrowski et al. (arXiv 1906.07983), under the other norms.
  """
  if norm != 'linf':
    return jnp.geomspace(10, 100, steps, dtype=eps.dtype)
  box = jnp.mean(jnp.asarray(bounds[1] - bounds[0], eps.dtype))
  share = jnp.maximum(eps / box, 1e-3)
  first, last = jnp.minimum(10, 0.5 / share), 5 / share
  return jnp.geomspace(first, last, steps, dtype=eps.dtype)


def direction(
  rule: str, norm: str, grad: Array, state: Moments
) -> tuple[Array, Moments]:
  """The unit step along `grad`, and the state after it.

  'sign': sign(g), 0 where g is 0. 'normalised': g / ‖g‖₂ for 'l2', else
  g / max|g|, one norm an example, zero for a zero gradient. 'momentum': the
  sign of half the last momentum plus g / mean|g|, as in MI-FGSM (Dong et al.,
  arXiv 1710.06081). 'adam': Kingma & Ba (arXiv 1412.6980), β = (0.9, 0.999).

  Raises:
    InputError: an unknown rule.
  """
  errors.choose('rule', rule, RULES)
  if rule == 'sign':
    return jnp.sign(grad), state
  axes = tuple(range(1, grad.ndim))
  if rule == 'normalised':
    top = jnp.max(jnp.abs(grad), axes, keepdims=True)
    grad = grad / jnp.where(top > 0, top, 1)
    if norm == 'l2':
      length = jnp.sqrt(jnp.sum(jnp.square(grad), axes, keepdims=True))
      grad = grad / jnp.where(length > 0, length, 1)
    return grad, state
  if rule == 'momentum':
    mean = jnp.mean(jnp.abs(grad), axes, keepdims=True)
    first = 0.5 * state.first + grad / jnp.where(mean > 0, mean, 1)
    return jnp.sign(first), state._replace(first=first)
  count = state.count + 1
  first = 0.9 * state.first + 0.1 * grad
  second = 0.999 * state.second + 0.001 * jnp.square(grad)
  unbiased = jnp.sqrt(second / (1 - 0.999**count))
  move = first / (1 - 0.9**count) / (unbiased + 1e-8)
  return move, Moments(first, second, count)
