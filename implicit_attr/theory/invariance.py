"""Invariances of attention maps under the scale of their logits.

p = softmax(c z) as c goes from flat to saturated: ranks and relative changes
stay, raw similarity and loss curvature move. Notation as in `softmax`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr.theory import small_networks as nets
from implicit_attr.theory.check import DRAWS, Check, columns, named, spectral
from implicit_attr.theory.softmax import TOKENS, jacobian_ceilings
from implicit_attr.types import Array

Pair = tuple[np.ndarray, np.ndarray]

SCALES = (0.01, 0.1, 1.0, 3.0)


def _two_rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Logits of a map before and after an attack."""
  z = rng.standard_normal((DRAWS, TOKENS))
  return z, z + 0.3 * rng.standard_normal(z.shape)


def _ranks(rng: np.random.Generator) -> Pair:
  z, moved = _two_rows(rng)

  def ranks(c: float) -> np.ndarray:
    places = [np.argsort(nets.softmax(c * a), -1) for a in (z, moved)]
    return np.concatenate(places, 1)

  each = [ranks(c) for c in SCALES]
  logits = np.concatenate([np.argsort(a, -1) for a in (z, moved)], 1)
  return columns(*each), columns(*[logits] * len(SCALES))


def centred_log(p: np.ndarray) -> np.ndarray:
  """clr p = log p - mean log p, coordinates of Aitchison's geometry."""
  log_p = np.log(p)
  return log_p - log_p.mean(-1, keepdims=True)


def _aitchison(rng: np.random.Generator) -> Pair:
  z, moved = _two_rows(rng)
  centre = lambda a: a - a.mean(-1, keepdims=True)
  length = lambda a: np.linalg.norm(a, axis=-1)
  wanted = length(centre(moved - z)) / length(centre(z))
  changes = []
  for c in SCALES:
    a, b = (centred_log(nets.softmax(c * y)) for y in (z, moved))
    changes.append(length(b - a) / length(a))
  return columns(*changes), columns(*[wanted] * len(SCALES))


def _cosine(rng: np.random.Generator) -> Pair:
  z, moved = _two_rows(rng)
  z, moved = (a * 10 ** rng.uniform(-2, 1, (DRAWS, 1)) for a in (z, moved))
  p, q = nets.softmax(z), nets.softmax(moved)
  length = lambda a: np.linalg.norm(a, axis=-1)
  cosine = np.sum(p * q, 1) / (length(p) * length(q))
  return 1 / np.cosh(np.ptp(moved - z, -1) / 2), cosine


def _gate(rng: np.random.Generator) -> Pair:
  """One query x, keys K, values V, read-out v: y = v · Σ_j p_j V_j."""
  drawn, grad, slope = _attention(rng)
  z, values = drawn
  ceiling = np.min(jacobian_ceilings(z), 0)
  read = np.linalg.norm(values, axis=-1)
  return grad, ceiling * read * slope


def _attention(rng: np.random.Generator):
  """((logits, V v), ‖∇_W y‖_F, ‖∂z/∂W‖) of an attention row, by JAX."""
  normal = rng.standard_normal
  scale = 10 ** rng.uniform(-2, 1.5, DRAWS)
  w, x = normal((DRAWS, 3, 4)) * scale[:, None, None], normal((DRAWS, 4))
  keys, values = normal((DRAWS, TOKENS, 3)), normal((DRAWS, TOKENS))

  z, grad, slope = jax.device_get(_of_row(w, x, keys, values))
  slope = spectral(slope.reshape(DRAWS, TOKENS, -1))
  return (z, values), np.linalg.norm(grad, axis=(1, 2)), slope


@jax.jit
@jax.vmap
def _of_row(w: Array, x: Array, keys: Array, values: Array) -> tuple:
  """(z, ∇_W y, ∂z/∂W) for z = K W x / √3 and y = softmax(z) · values."""
  logits = lambda w: keys @ (w @ x) / math.sqrt(3)
  y = lambda w: jnp.vdot(jax.nn.softmax(logits(w)), values)
  return logits(w), jax.grad(y)(w), jax.jacrev(logits)(w)


TALL = 10.0


def _saturation(rng: np.random.Generator) -> Pair:
  """z -> c z with a planted winner: what the loss sees, and what z does."""
  z = rng.standard_normal((DRAWS, TOKENS))
  z[:, 0] = z[:, 1:].max(1) + rng.uniform(0.5, 2, DRAWS)
  slope = rng.uniform(1, 9, DRAWS)  # ‖∂z/∂x‖ at c = 1
  see = [
    spectral(nets.jacobian_of_softmax(nets.softmax(c * z))) * c * slope
    for c in (TALL, 2 * TALL)
  ]
  gap = z[:, 0] - z[:, 1:].max(1)
  fall = [
    2 * (TOKENS - 1) * np.exp(-c * gap) * c * slope for c in (TALL, 2 * TALL)
  ]
  return columns(*see), columns(*fall)


CHECKS = named(
  Check(
    name='rank_invariance',
    statement='the order of softmax(c z) is that of z for every c > 0',
    source='derived here',
    assumptions='random z and attacked z; c = 0.01, 0.1, 1, 3',
    sides=_ranks,
    relation='==',
  ),
  Check(
    name='aitchison_invariance',
    statement="‖clr p' - clr p‖ / ‖clr p‖ = ‖z' - z‖ / ‖z‖ of centred logits, "
    'for every scale c',
    source='derived here',
    assumptions='random z and attacked z; c = 0.01, 0.1, 1, 3',
    sides=_aitchison,
    relation='==',
  ),
  Check(
    name='raw_cosine_saturates',
    statement="cos(p, p') >= 1 / cosh(½ (max - min)(z' - z)): near 1 for any "
    'two flat rows',
    source='derived here, by Pólya and Szegő',
    assumptions='random pairs of rows, scale 0.01 to 10',
    sides=_cosine,
  ),
  Check(
    name='flatness_gate',
    statement='‖∇_W y‖ <= (bounds on ‖J‖) ‖V v‖ ‖∂z/∂W‖ '
    'for y = v · Σ_j p_j V_j',
    source='derived here',
    assumptions='one attention row, random weights of scale 0.01 to 30',
    sides=_gate,
  ),
  Check(
    name='saturation',
    statement='‖J(c z)‖ c ‖∂z/∂x‖ <= 2 (T - 1) exp(-c gap) c ‖∂z/∂x‖ -> 0 '
    'while the logits move c times as far',
    source='derived here',
    assumptions='a winner by gap 0.5 to 2; c = 10 and 20; so a flat loss may '
    'be a saturated softmax',
    sides=_saturation,
  ),
)
"""What the scale of the logits cannot buy."""
