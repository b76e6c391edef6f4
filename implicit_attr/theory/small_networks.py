"""Small networks on which every second derivative is dense and exact.

Pure functions of one example x [d], a few dozen parameters, drawn at random:
dense second derivatives are exact and cheap, and no claim rests on training.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature
from implicit_attr.theory.check import DRAWS
from implicit_attr.types import Array

CLASSES = 3
WIDTHS = (4, 4, 3, CLASSES)
"""Pixels, two hidden layers, classes."""
EXAMPLES = 4
FIRST = WIDTHS[0] * WIDTHS[1]
"""Entries of W1; in a flat parameter vector b1 comes first, then W1."""

Layers = list[dict[str, Array]]
Scalar = Callable[[Array], Array]

Values = Any  # NumPy's arrays; JAX's while they are computed


class Draw(NamedTuple):
  """Random networks, 'kernel' [..., out, in], and data x [..., n, d]."""

  layers: Layers
  x: Values
  y: Values  # [..., n] int


class Facts(NamedTuple):
  """All derivatives of every draw and example; NumPy, float64.

  Of the loss unless named otherwise. P parameters, h the first layer's width.
  """

  grad_z: Values  # [draws, n, h], in z = W1 x + b1
  hess_z: Values  # [draws, n, h, h]
  grad_x: Values  # [draws, n, d]
  hess_x: Values  # [draws, n, d, d]
  grad: Values  # [draws, n, P], in all parameters
  hess: Values  # [draws, n, P, P]
  logits: Values  # [draws, n, C]
  jac_x: Values  # [draws, n, C, d], of the logits
  jac: Values  # [draws, n, C, P]
  logit_hess_x: Values  # [draws, n, C, d, d]


def draw(
  rng: np.random.Generator,
  widths: Sequence[int] = WIDTHS,
  n: int = EXAMPLES,
  count: int = DRAWS,
) -> Draw:
  """`count` networks with `n` examples each, labels at random."""
  normal = rng.standard_normal
  layers = [
    {
      'kernel': normal((count, out, into)) * (2 / into) ** 0.5,
      'bias': normal((count, out)),
    }
    for into, out in itertools.pairwise(widths)
  ]
  labels = rng.integers(widths[-1], size=(count, n))
  return Draw(layers, normal((count, n, widths[0])), labels)


def facts(rng: np.random.Generator) -> tuple[Draw, Facts]:
  """A draw and everything about it; the checks of one key share it."""
  return _facts(int(rng.integers(2**62)))


@functools.lru_cache(maxsize=2)
def _facts(seed: int) -> tuple[Draw, Facts]:
  drawn = draw(np.random.default_rng(seed))
  return drawn, jax.device_get(_derivatives(drawn))


@jax.jit
def _derivatives(drawn: Draw) -> Facts:
  over_examples = jax.vmap(_of_one, (None, 0, 0))
  return jax.vmap(over_examples)(*drawn)


def _of_one(layers: Layers, x: Array, y: Array) -> Facts:
  flat, unravel = ravel_pytree(layers)
  first = layers[0]
  of_z = lambda z: cross_entropy(logits(layers[1:], jnp.tanh(z)), y)
  of_x = lambda x: logits(layers, x)
  of_flat = lambda flat: logits(unravel(flat), x)
  loss_x = lambda x: cross_entropy(of_x(x), y)
  loss_flat = lambda flat: cross_entropy(of_flat(flat), y)
  z = first['kernel'] @ x + first['bias']
  grad_z, hess_z = both(of_z, z)
  grad_x, hess_x = both(loss_x, x)
  grad, hess = both(loss_flat, flat)
  f, pull_x = jax.vjp(of_x, x)
  classes = jnp.eye(CLASSES, dtype=f.dtype)
  return Facts(
    grad_z=grad_z,
    hess_z=hess_z,
    grad_x=grad_x,
    hess_x=hess_x,
    grad=grad,
    hess=hess,
    logits=f,
    jac_x=jax.vmap(pull_x)(classes)[0],
    jac=jax.vmap(jax.vjp(of_flat, flat)[1])(classes)[0],
    logit_hess_x=jax.vmap(
      lambda weights: both(lambda x: jnp.vdot(weights, of_x(x)), x)[1]
    )(classes),
  )


def both(fun: Scalar, x: Array) -> tuple[Array, Array]:
  """(gradient [n], dense Hessian [n, n]) of `fun` at a vector x [n]."""
  grad, mvp = curvature.grad_and_hvp(fun, x)
  return grad, jax.vmap(mvp)(jnp.eye(x.size, dtype=x.dtype))


def hidden(
  layers: Layers, x: Array, act: Callable[[Array], Array] = jnp.tanh
) -> list[Array]:
  """[x, h_1, …, h_{L-1}]: what every layer of `layers` takes in."""
  inputs = [x]
  for layer in layers[:-1]:
    inputs.append(act(layer['kernel'] @ inputs[-1] + layer['bias']))
  return inputs


def logits(
  layers: Layers, x: Array, act: Callable[[Array], Array] = jnp.tanh
) -> Array:
  """x [d] -> [C]."""
  last = layers[-1]
  return last['kernel'] @ hidden(layers, x, act)[-1] + last['bias']


def cross_entropy(f: Array, y: Array) -> Array:
  """Loss in nats of logits f [C] for label y []."""
  return jax.nn.logsumexp(f) - f[y]


def softmax(z: np.ndarray) -> np.ndarray:
  """exp(z) / Σ exp(z) over the last axis."""
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def jacobian_of_softmax(p: np.ndarray) -> np.ndarray:
  """diag p - p pᵀ for probabilities [..., T]; -> [..., T, T].

  1 - p_i is summed from the others, so that nothing cancels near one-hot.
  """
  across = 1 - np.eye(p.shape[-1])
  away = -p[..., None] * p[..., None, :] * across
  return away + (p * (p @ across))[..., None] * np.eye(p.shape[-1])
