"""Guided backpropagation, DeconvNet, DeepLIFT and LRP-ε: changed rectifiers.

These are no gradients of the target: each passes its own signal back through
the rectifiers (what counts as one: `rectifiers`) and the plain gradient
through everything else. The maps are ordinary functions of x all the same, and
differentiable in it. For softplus(beta z) / beta, the surrogate of relu, every
rule tends to that of relu as beta grows; the ε of LRP is then in units of
beta z.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attribution.gradients import gradient_of
from implicit_attr.attribution.graph import with_rectifiers
from implicit_attr.attribution.inputs import check, full, known
from implicit_attr.types import ApplyFn, Array, Params

Backward = Callable[..., Array]
"""(signal from above, derivative at x, x, *extra) -> signal to below."""


def _passing(
  backward: Backward,
  fun: Callable[..., Array],
  x: Array,
  *rest: Array,
  extra: tuple[Array, ...] = (),
) -> Array:
  """fun(x, *rest), with `backward` in the place of its derivative in x.

  What `backward` needs to know comes as `extra`: a custom rule may not close
  over values that are differentiated further out.
  """

  @jax.custom_vjp
  def ruled(x, rest, extra):
    return fun(x, *rest)

  def forward(x, rest, extra):
    return fun(x, *rest), (x, rest, extra)

  def back(saved, signal):
    x, rest, extra = saved
    down = backward(signal, _slope(fun, x, *rest), x, *extra)
    _, pull = jax.vjp(lambda *rest: fun(x, *rest), *rest)
    return down, pull(signal), jax.tree.map(jnp.zeros_like, extra)

  ruled.defvjp(forward, back)
  return ruled(x, rest, extra)


def _slope(fun: Callable, x: Array, *rest: Array) -> Array:
  """The derivative of the elementwise `fun` at x."""
  value, pull = jax.vjp(lambda x: fun(x, *rest), x)
  return pull(jnp.ones_like(value))[0]


def guided_backprop(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
) -> Array:
  """Only positive signals pass back through active rectifiers.

  Springenberg et al., arXiv 1412.6806, section 3.4. Arguments and result as
  `gradient`.

  Raises:
    InputError: as `gradient`; a network without rectifiers, or with some
      inside of a loop.
  """
  del key
  x, y = check(apply_fn, params, x, y)

  def rule(i, fun, x, *rest):
    keep = lambda signal, slope, x: slope * jax.nn.relu(signal)
    return _passing(keep, fun, x, *rest)

  return gradient_of(with_rectifiers(apply_fn, rule), params, target)(x, y)


def deconvnet(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
) -> Array:
  """Positive signals pass back through all rectifiers, active or not.

  Zeiler and Fergus, arXiv 1311.2901, section 2.1. In a network whose linear
  layers are joined by rectifiers alone the map does not depend on x; its
  robustness means nothing. Arguments, result and errors as `guided_backprop`.
  """
  del key
  x, y = check(apply_fn, params, x, y)

  def rule(i, fun, x, *rest):
    keep = lambda signal, slope, x: jax.nn.relu(signal)
    return _passing(keep, fun, x, *rest)

  return gradient_of(with_rectifiers(apply_fn, rule), params, target)(x, y)


def deeplift(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  baseline: float | Array = 0.0,
) -> Array:
  """DeepLIFT with the rescale rule (arXiv 1704.02685, section 3.5.2).

  A rectifier passes back the slope of the chord between its inputs at the
  baseline and at x. For networks of affine layers and rectifiers, and target
  'logit', the map sums to logit(x) - logit(baseline) exactly; normalisation
  layers, max-pooling, products and the softmax pass the plain gradient.

  Args:
    apply_fn, params, x, y, target: as `gradient`.
    baseline: a number, an image [...] or one per example [B, ...].

  Returns:
    Signed, in units of the target, with the shape of x.

  Raises:
    InputError: as `guided_backprop`; a baseline that does not fit.
  """
  del key
  x, y = check(apply_fn, params, x, y)
  start = full('baseline', baseline, x)
  starts = []

  def record(i, fun, x, *rest):
    starts.append(x)
    return fun(x, *rest)

  def rule(i, fun, x, *rest):
    def chord(signal, slope, x, before, *rest):
      change = x - before
      ends = x, before, fun(x, *rest), fun(before, *rest)
      largest = jnp.max(jnp.abs(jnp.stack(ends)), axis=0)
      # Below this the difference of two values is mostly rounding.
      near = jnp.abs(change) <= jnp.finfo(x.dtype).eps ** 0.5 * largest
      rise = ends[2] - ends[3]
      return signal * jnp.where(near, slope, rise / jnp.where(near, 1, change))

    return _passing(chord, fun, x, *rest, extra=(starts[i], *rest))

  with_rectifiers(apply_fn, record)(params, start)
  grad = gradient_of(with_rectifiers(apply_fn, rule), params, target)
  return (x - start) * grad(x, y)


def lrp_epsilon(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  epsilon: float | Array = 1e-2,
) -> Array:
  """Layer-wise relevance, ε rule (Bach et al., PLoS ONE 2015, eq. 58).

  Everything between two rectifiers counts as one linear layer, whose outputs
  z, the logits included, pass back |z| / (|z| + ε) of their relevance. With
  ε = 0 this is gradient times input (Ancona et al., arXiv 1711.06104, prop. 1).

  Args:
    apply_fn, params, x, y, target: as `gradient`.
    epsilon: what weak outputs absorb, in units of z; may be traced.

  Returns:
    Signed, in units of the target, with the shape of x.

  Raises:
    InputError: as `guided_backprop`; a negative epsilon.
  """
  del key
  x, y = check(apply_fn, params, x, y)
  if known(epsilon):
    errors.number('epsilon', float(epsilon), 0)

  epsilon = jnp.asarray(epsilon, x.dtype)

  def absorb(signal, slope, z, epsilon):
    total = jnp.abs(z) + epsilon
    zero = total == 0
    part = jnp.where(zero, 1, jnp.abs(z) / jnp.where(zero, 1, total))
    return signal * slope * part

  def rule(i, fun, x, *rest):
    return _passing(absorb, fun, x, *rest, extra=(epsilon,))

  ruled = with_rectifiers(apply_fn, rule)

  def stabilised(params: Params, x: Array) -> tuple[Array, dict]:
    logits, out = ruled(params, x)
    return _passing(absorb, lambda z: z, logits, extra=(epsilon,)), out

  return x * gradient_of(stabilised, params, target)(x, y)
