"""Kernel attention: what rows without a softmax gain, and what they do not.

a_j = k(q, k_j) for one query q and T keys; the features are written out here
again, apart from those that networks use. Which kernel the paper uses is not
public.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr.theory.check import DRAWS, Check, columns, named, spectral
from implicit_attr.theory.softmax import TOKENS, spread_floor
from implicit_attr.types import Array

Pair = tuple[np.ndarray, np.ndarray]

DIM = 4


def elu1(x):
  """x + 1 above 0, exp(x) below: positive, slope 1 and value 1 at 0."""
  return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


FEATURES = {
  'relu': lambda x: jnp.maximum(x, 0),
  'relu2': lambda x: jnp.maximum(x, 0) ** 2,
  'elu1': elu1,
  'sigmoid': jax.nn.sigmoid,
}
DEGREES = {'relu': 1, 'relu2': 2}
"""phi(c x) = c^degree phi(x) for c > 0."""


def weights(name: str, q: Array | np.ndarray, k: Array | np.ndarray) -> Array:
  """phi(q) · phi(k_j) for q [..., d] and k [..., T, d]; -> [..., T].

  'softmax' and 'gaussian' stand for their exponentials of the scores, not
  normalised.
  """
  if name == 'softmax':
    return jnp.exp(jnp.einsum('...d,...td->...t', q, k) / math.sqrt(DIM))
  if name == 'gaussian':
    far = jnp.sum((q[..., None, :] - k) ** 2, -1)
    return jnp.exp(-far / (2 * math.sqrt(DIM)))
  phi = FEATURES[name]
  return jnp.einsum('...d,...td->...t', phi(q), phi(k))


def _tokens(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """A query [draws, d] and keys [draws, T, d]; no row is dead under relu."""
  q, k = (rng.standard_normal((DRAWS, n, DIM)) for n in (1, TOKENS))
  q[:, 0, 0] = np.abs(q[:, 0, 0]) + 0.1
  k[..., 0] = np.abs(k[..., 0]) + 0.1
  return q[:, 0], k


KERNELS = (*FEATURES, 'softmax', 'gaussian')


def normalised(a: np.ndarray) -> np.ndarray:
  """a / Σ a over the last axis."""
  return a / a.sum(-1, keepdims=True)


def _row_sums(rng: np.random.Generator) -> Pair:
  q, k = _tokens(rng)
  sums = [normalised(np.asarray(weights(n, q, k))).sum(-1) for n in KERNELS]
  return columns(*sums), np.ones((DRAWS, len(KERNELS)))


def _free_mass(rng: np.random.Generator) -> Pair:
  """Any a > 0 is a row: relu features, k_j = a_j e_1 and q = e_1."""
  a = 10 ** rng.uniform(-2, 2, (DRAWS, TOKENS))
  q = np.broadcast_to(np.eye(DIM)[0], (DRAWS, DIM))
  k = a[..., None] * q[:, None]
  return np.asarray(weights('relu', q, k)), a


def _homogeneous(rng: np.random.Generator) -> Pair:
  q, k = _tokens(rng)
  moved = q + 0.1 * rng.standard_normal(q.shape)
  c = rng.uniform(0.01, 30, DRAWS)
  wide = c[:, None, None]
  length = lambda a: np.linalg.norm(a, axis=-1)
  left, right = [], []
  for name, degree in DEGREES.items():
    row = lambda q, k: np.asarray(weights(name, q, k))
    before, after = row(q, k), row(moved, k)
    big = row(c[:, None] * q, wide * k), row(c[:, None] * moved, wide * k)
    left += [big[0] / c[:, None] ** (2 * degree)]
    left += [length(big[1] - big[0]) / length(big[0])]
    right += [before, length(after - before) / length(before)]
  return columns(*left), columns(*right)


SMALL = 1e-3


def _flat_limit(rng: np.random.Generator) -> Pair:
  """log2 of how the error of the linear, query-free limit shrinks."""
  q, k = _tokens(rng)
  orders = []
  for name, value, slope in (('elu1', 1.0, 1.0), ('sigmoid', 0.5, 0.25)):
    sizes = []
    for tau in (SMALL, SMALL / 2):
      row = np.asarray(weights(name, tau * q, tau * k))
      linear = flat_row(value, slope, tau * q, tau * k)
      sizes.append(np.linalg.norm(row - linear, axis=-1))
    orders.append(np.log2(sizes[0] / sizes[1]))
  return columns(*orders), np.full((DRAWS, 2), 2.0)


def flat_row(
  value: float, slope: float, q: np.ndarray, k: np.ndarray
) -> np.ndarray:
  """First order of phi(q) · phi(k_j) for phi(x) = value + slope x + …: all
  entries share what q does, so q cannot change their order."""
  shared = DIM * value**2 + value * slope * q.sum(-1)
  return shared[:, None] + value * slope * k.sum(-1)


def _entropy(rng: np.random.Generator) -> Pair:
  bound = 10 ** rng.uniform(-2, 1, DRAWS)
  q, k = (
    rng.uniform(-1, 1, (DRAWS, n, DIM)) * bound[:, None, None]
    for n in (1, TOKENS)
  )
  # Half of the draws have two kinds of keys, opposite corners of the box: then
  # the floor is met, for some number of the first kind.
  first = np.arange(TOKENS) < rng.integers(1, TOKENS, DRAWS)[:, None]
  corners = np.where(first, 1, -1) * bound[:, None]
  k[::2] = corners[::2, :, None]
  p = normalised(np.asarray(weights('elu1', q[:, 0], k)))
  return spread_floor(elu1_spread(bound), TOKENS), -np.sum(p * np.log(p), -1)


def elu1_spread(bound: np.ndarray) -> np.ndarray:
  """B + log(1 + B): spread of log a_j for elu+1 features of |k| <= B."""
  return bound + np.log1p(bound)


def _cross_talk(rng: np.random.Generator) -> Pair:
  """∂a_j / ∂k_l for l != j: nothing, or -p_j p_l once rows are normalised."""
  q, k = _tokens(rng)
  a, jacobian = jax.device_get(_token_jacobian(q, k))
  off = 1 - np.eye(TOKENS)
  share = np.asarray(normalised(a))
  p = share[..., None] * share[..., None, :]
  # In units of what token l does to its own weight, relative to that weight.
  own = np.einsum('bjj->bj', jacobian) / a
  slope = (jacobian - share[..., None] * jacobian.sum(1)[:, None]) / a.sum(-1)[
    :, None, None
  ]
  return (
    columns(jacobian * off, slope * off),
    columns(0 * p, -p * own[:, None] * off),
  )


@jax.jit
@jax.vmap
def _token_jacobian(q: Array, k: Array) -> tuple[Array, Array]:
  """(elu+1 weights [T], ∂a_j / ∂(first coordinate of k_l) [T, T])."""
  row = lambda first: weights('elu1', q, k.at[:, 0].set(first))
  return row(k[:, 0]), jax.jacfwd(row)(k[:, 0])


def _query_route(rng: np.random.Generator) -> Pair:
  x = rng.standard_normal((DRAWS, DIM + 1))
  w = rng.standard_normal((DRAWS, DIM, DIM + 1)) / math.sqrt(DIM)
  _, k = _tokens(rng)
  slopes = jax.device_get(_query_slopes(w, x, k))
  left, right = [], []
  for of_w, of_x in slopes:
    left.append(spectral(of_x))
    size = np.sqrt(np.sum(of_w**2, (1, 2, 3)))
    right.append(spectral(w) * size / np.linalg.norm(x, axis=-1))
  return columns(*left), columns(*right)


@jax.jit
@jax.vmap
def _query_slopes(w: Array, x: Array, k: Array) -> list:
  """(∂A/∂W_Q, ∂A/∂x through the query) of every kernel, and of softmax."""
  softmax = lambda w, x: jax.nn.softmax(k @ (w @ x) / math.sqrt(DIM))
  rows = [lambda w, x, n=n: weights(n, w @ x, k) for n in KERNELS]
  rows = [*rows, softmax]
  return [jax.jacrev(row, (0, 1))(w, x) for row in rows]


def contraction(m: np.ndarray) -> np.ndarray:
  """Dobrushin's coefficient ½ max_ij Σ_l |m_il - m_jl| of row sums 1."""
  apart = np.abs(m[..., :, None, :] - m[..., None, :, :]).sum(-1)
  return 0.5 * apart.max((-2, -1))


def _rollout(rng: np.random.Generator) -> Pair:
  z = rng.standard_normal((DRAWS, 3, 5, 5)) * 10 ** rng.uniform(
    -2, 1, (DRAWS, 1, 1, 1)
  )
  a = normalised(np.exp(z))
  layers = (np.eye(5) + a) / 2
  rolled = layers[:, 2] @ layers[:, 1] @ layers[:, 0]
  product = contraction(layers).prod(1)
  return (
    columns(contraction(rolled), contraction(layers)),
    columns(product, (1 + contraction(a)) / 2),
  )


ROW = 'random queries and keys, d = 4, T = 9'

CHECKS = named(
  Check(
    name='normalised_rows',
    statement='rows divided by their sum add up to 1, whatever the kernel',
    source='definition',
    assumptions=f'{", ".join(KERNELS)}; {ROW}',
    sides=_row_sums,
    relation='==',
  ),
  Check(
    name='free_rows',
    statement='without a normaliser every positive row is attained',
    source='derived here',
    assumptions='relu features; keys a_j e_1, query e_1',
    sides=_free_mass,
    relation='==',
  ),
  Check(
    name='homogeneous_kernels',
    statement="relu and relu²: A(c q, c k) = c² A and c⁴ A, and ‖A' - A‖ / ‖A‖ "
    'does not see c: shrinking weights gains no ranks',
    source='derived here',
    assumptions=ROW + '; c from 0.01 to 30',
    sides=_homogeneous,
    relation='==',
  ),
  Check(
    name='flat_kernel_limit',
    statement='elu+1 and sigmoid features: A(τ q, τ k) = const + τ c b 1·k_j '
    '+ O(τ²): flat rows rank keys without looking at the query',
    source='derived here',
    assumptions=ROW + '; order of the rest at τ = 0.001, within 1 %',
    sides=_flat_limit,
    relation='==',
    tol=0.01,
  ),
  Check(
    name='kernel_entropy_floor',
    statement='elu+1 over its sum, |k| <= B: H >= the two-level floor of '
    'spread B + log(1 + B)',
    source='derived here',
    assumptions=ROW + '; B from 0.01 to 10',
    sides=_entropy,
  ),
  Check(
    name='cross_talk',
    statement='∂a_j / ∂k_l = 0 for l != j; divided by the row sum, it is '
    '-p_j p_l ∂ log a_l / ∂k_l',
    source='derived here',
    assumptions='elu+1; ' + ROW,
    sides=_cross_talk,
    relation='==',
  ),
  Check(
    name='query_route',
    statement='‖∂A/∂x‖ through the query <= ‖W_Q‖ / ‖x‖ ‖∂A/∂W_Q‖_F',
    source='derived here',
    assumptions=f'softmax rows; {", ".join(KERNELS)}; {ROW}',
    sides=_query_route,
  ),
  Check(
    name='rollout_contraction',
    statement='coefficient of Π ½ (1 + A) <= product of coefficients, and of '
    '½ (1 + A) <= ½ (1 + that of A)',
    source='Dobrushin; derived here for rollout',
    assumptions='three random row-stochastic layers, 5 tokens',
    sides=_rollout,
  ),
)
"""Attention rows from kernels: mass, scale, entropy, locality."""
