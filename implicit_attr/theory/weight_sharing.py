"""Weight sharing: what it leaves of the first-layer bounds, what mends them.

Nothing, as it stands: a shared kernel's gradient is a sum over places, which
can cancel. Learned positions are biases of single places and mend it exactly;
so does an offset of the input, a parameter that exists to be measured.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr.theory import small_networks as nets
from implicit_attr.theory.check import (
  DRAWS,
  Check,
  columns,
  named,
  spectral,
  top_of,
)
from implicit_attr.theory.first_layer import bias_bound
from implicit_attr.types import Array

Pair = tuple[np.ndarray, np.ndarray]

PLACES, CHANNELS, WIDTH, N = 3, 2, 2, 3


class _Facts(NamedTuple):
  kernel: nets.Values  # W_E [draws, h, c], shared by all places
  grad_x: nets.Values  # [draws, n, L c], per example
  grad_places: nets.Values  # [draws, n, L, h], in the positions
  hess_x: nets.Values  # [draws, n, L c, L c]
  hess_places: nets.Values  # [draws, L h, L h], of the mean loss
  hess_offset: nets.Values  # [draws, L c, L c], of the mean loss


def _loss(kernel: Array, places: Array, head: list, x: Array, y: Array):
  """Patches x [L c] -> shared kernel plus positions [L h] -> tanh -> head."""
  z = x.reshape(PLACES, CHANNELS) @ kernel.T + places.reshape(PLACES, WIDTH)
  return nets.cross_entropy(nets.logits(head, jnp.tanh(z.ravel())), y)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, 0))
def _derivatives(kernel, places, head, x, y) -> _Facts:
  loss = functools.partial(_loss, kernel)

  def mean(places: Array, offset: Array) -> Array:
    one = lambda x, y: loss(places, head, x + offset, y)
    return jnp.mean(jax.vmap(one)(x, y))

  def of_one(x: Array, y: Array):
    of_x = nets.both(lambda x: loss(places, head, x, y), x)
    grad = jax.grad(lambda e: loss(e, head, x, y))(places)
    return *of_x, grad.reshape(PLACES, WIDTH)

  grad_x, hess_x, grad_places = jax.vmap(of_one)(x, y)
  zero = jnp.zeros_like(x[0])
  return _Facts(
    kernel=kernel,
    grad_x=grad_x,
    grad_places=grad_places,
    hess_x=hess_x,
    hess_places=nets.both(lambda e: mean(e, zero), places)[1],
    hess_offset=nets.both(lambda b: mean(places, b), zero)[1],
  )


def _facts(rng: np.random.Generator) -> _Facts:
  return _cached(int(rng.integers(2**62)))


@functools.lru_cache(maxsize=2)
def _cached(seed: int) -> _Facts:
  rng = np.random.default_rng(seed)
  widths = (PLACES * WIDTH, nets.CLASSES)
  head, _, y = nets.draw(rng, widths, n=N)
  kernel = rng.standard_normal((DRAWS, WIDTH, CHANNELS))
  places = rng.standard_normal((DRAWS, PLACES * WIDTH))
  x = rng.standard_normal((DRAWS, N, PLACES * CHANNELS))
  return jax.device_get(_derivatives(kernel, places, head, x, y))


def _everywhere(kernel: np.ndarray) -> np.ndarray:
  """I ⊗ W_E: what takes all pixels to all places, [draws, L h, L c]."""
  block = np.einsum('pq,bhc->bphqc', np.eye(PLACES), kernel)
  return block.reshape(len(kernel), PLACES * WIDTH, PLACES * CHANNELS)


def _positions(rng: np.random.Generator) -> Pair:
  facts = _facts(rng)
  through = np.einsum('bnph,bhc->bnpc', facts.grad_places, facts.kernel)
  wide = _everywhere(facts.kernel)
  return (
    columns(facts.grad_x, facts.hess_x.mean(1)),
    columns(through, wide.mT @ facts.hess_places @ wide),
  )


def _position_bound(rng: np.random.Generator) -> Pair:
  facts = _facts(rng)
  right = bias_bound(facts.kernel, top_of(facts.hess_places))
  return top_of(facts.hess_x.mean(1)), right


def _offset(rng: np.random.Generator) -> Pair:
  facts = _facts(rng)
  return columns(facts.hess_offset), columns(facts.hess_x.mean(1))


def _cancelled(rng: np.random.Generator) -> Pair:
  """One patch twice, read out with opposite signs: ∇_W = δ xᵀ - δ xᵀ."""
  normal = rng.standard_normal
  kernel = normal((DRAWS, WIDTH, CHANNELS))
  patch = normal((DRAWS, CHANNELS))
  read = normal((DRAWS, WIDTH))
  x = np.stack([patch, patch], 1)
  grad_w, grad_x = jax.device_get(_opposed(kernel, x, read))
  size = np.linalg.norm(x, axis=(1, 2))
  bound = spectral(kernel) * np.linalg.norm(grad_w, axis=(1, 2)) / size
  return np.linalg.norm(grad_x, axis=(1, 2)), bound


@jax.jit
@jax.vmap
def _opposed(kernel: Array, x: Array, read: Array) -> tuple[Array, Array]:
  """Gradients, in W and x, of read · (tanh(W x_0) - tanh(W x_1))."""

  def out(w: Array, x: Array) -> Array:
    return jnp.vdot(jnp.tanh(w @ x[0]) - jnp.tanh(w @ x[1]), read)

  return jax.grad(out, (0, 1))(kernel, x)


NET = (
  'patches times one shared kernel W_E, learned positions E, tanh, linear '
  'head, cross-entropy; 3 patches, 3 examples, random'
)

CHECKS = named(
  Check(
    name='position_identity',
    statement='∇_x = ∇_E W_E and E_i H_x(x_i) = (I ⊗ W_E)ᵀ H_E (I ⊗ W_E)',
    source='derived here',
    assumptions=NET,
    sides=_positions,
    relation='==',
  ),
  Check(
    name='position_bound',
    statement='λ(E_i H_x(x_i)) <= ‖W_E‖² λ⁺(H_E), H_E a block of H_θ',
    source='derived here',
    assumptions=NET + '; about the mean, as for a dense first layer',
    sides=_position_bound,
  ),
  Check(
    name='input_offset_identity',
    statement='H_b0 = E_i H_x(x_i) for a parameter b0 that is added to every x',
    source='derived here',
    assumptions=NET + '; any network, shared weights or not',
    sides=_offset,
    relation='==',
  ),
  Check(
    name='weight_sharing_counterexample',
    statement='‖∇_x‖ <= ‖W‖ ‖∇_W‖_F / ‖x‖ fails when places share W: here '
    '∇_W = 0 and ∇_x is not',
    source='derived here',
    assumptions='two equal patches read out with opposite signs, so '
    'convolutions and patch embeddings without positions; scalar output',
    sides=_cancelled,
    relation='>',
    tol=0.99,
  ),
)
"""What shared weights break, and what repairs it."""
