"""Initial weights, He-normal, cut from one random draw.

Normal draws with variance gain / fan-in: gain 2 keeps the scale of a ReLU-like
layer (He et al., arXiv 1502.01852), 1 that of a linear one, and `SMALL` is for
the layer that makes logits: small, so that the first loss is log C, and not
zero, so that input gradients exist before the first step.

Compiling a random generator once for each array costs more than compiling the
training step. `init`, which every network here has as its method, draws all
weights at once and lets the initialisers cut them out in order.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from implicit_attr.types import Array

SMALL = 0.01


def scaled(gain: float = 1.0) -> Callable[..., Array]:
  """For kernels [..., inputs, outputs]: variance gain / fan-in."""

  def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Array:
    std = math.sqrt(gain / math.prod(shape[:-1]))
    return normal(std)(key, shape, dtype)

  return init


def normal(std: float) -> Callable[..., Array]:
  """For any shape: normal with the standard deviation `std`."""

  def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Array:
    supply = _SUPPLY.get()
    if supply is None:
      return std * jax.random.normal(key, tuple(shape), dtype)
    return (std * supply.take(tuple(shape))).astype(dtype)

  return init


@nn.nowrap
def init(self: nn.Module, rngs: Any, *args: Any, **kwargs: Any) -> dict:
  """flax's `init` with one normal draw for all weights together.

  Guarantees: the same tree as flax's own, and the same values under jit and
  without, to rounding.
  """
  key = rngs['params'] if isinstance(rngs, dict) else rngs
  counter = _Supply(None)
  with _use(counter):
    jax.eval_shape(lambda: nn.Module.init(self, rngs, *args, **kwargs))
  flat = jax.random.normal(key, (counter.used,), jnp.float32)
  with _use(_Supply(flat)):
    return dict(nn.Module.init(self, rngs, *args, **kwargs))


class _Supply:
  """Hands out consecutive pieces of `flat`; counts only, if it is None."""

  def __init__(self, flat: Array | None):
    self.flat = flat
    self.used = 0

  def take(self, shape: tuple[int, ...]) -> Array:
    start, self.used = self.used, self.used + math.prod(shape)
    if self.flat is None:
      return jnp.zeros(shape, jnp.float32)
    return self.flat[start : self.used].reshape(shape)


_SUPPLY: contextvars.ContextVar[_Supply | None] = contextvars.ContextVar(
  'supply', default=None
)


@contextlib.contextmanager
def _use(supply: _Supply) -> Iterator[None]:
  token = _SUPPLY.set(supply)
  try:
    yield
  finally:
    _SUPPLY.reset(token)
