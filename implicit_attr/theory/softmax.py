"""Softmax attention: what normalising rows fixes of entropy, spread and gaps.

p = softmax(z) over T tokens, J = diag p - p pᵀ, H its entropy in nats,
δ = log T - H, p_(1) >= p_(2) >= …, Δ = max z - min z, and a gap at k is
p_(k) - p_(k+1). Which theorem on entropy the paper proves is not public.
"""

import math

import jax
import numpy as np

from implicit_attr.theory import small_networks as nets
from implicit_attr.theory.check import (
  DRAWS,
  Check,
  columns,
  named,
  spectral,
  trace_of,
)
from implicit_attr.types import Array

Pair = tuple[np.ndarray, np.ndarray]

TOKENS = 9


def rows(rng: np.random.Generator, top: float = 1.5) -> np.ndarray:
  """Logits [draws, T] of scale 0.01 to 10^top, some with few levels."""
  z = rng.standard_normal((DRAWS, TOKENS))
  z[::4, 2:] = z[::4, 2:3]  # every fourth row: few levels, near the extremes
  z[1::4, :2] = 3 + z[1::4, :1]  # and two tokens tied at the top
  return z * 10 ** rng.uniform(-2, top, (DRAWS, 1))


def entropy(z: np.ndarray) -> np.ndarray:
  """H of softmax(z), in nats, exact near one-hot too; [..., T] -> [...]."""
  log_p = z - z.max(-1, keepdims=True)
  others = np.exp(log_p)
  np.put_along_axis(others, log_p.argmax(-1)[..., None], 0, -1)
  log_p = log_p - np.log1p(others.sum(-1, keepdims=True))
  return -np.sum(np.exp(log_p) * log_p, -1)


def deficit(z: np.ndarray) -> np.ndarray:
  """δ = log T - H."""
  return np.maximum(math.log(z.shape[-1]) - entropy(z), 0)


def _descending(p: np.ndarray) -> np.ndarray:
  return -np.sort(-p, -1)


def others(p: np.ndarray) -> np.ndarray:
  """1 - p_i, as the sum of the others: exact near one-hot; [..., T]."""
  return p @ (1 - np.eye(p.shape[-1]))


def jacobian_ceilings(z: np.ndarray) -> list[np.ndarray]:
  """Upper bounds on ‖J‖, loose and tight at different entropies."""
  p, t = nets.softmax(z), z.shape[-1]
  return [
    np.full(len(p), 0.5),
    p.max(-1),
    2 * np.max(p * others(p), -1),
    np.sum(p * others(p), -1),
    entropy(z),
    1 / t + np.sqrt(deficit(z) / 2),
  ]


def _norm_above(rng: np.random.Generator) -> Pair:
  z = rows(rng)
  size = spectral(nets.jacobian_of_softmax(nets.softmax(z)))
  ceilings = jacobian_ceilings(z)
  return columns(*[size] * len(ceilings)), columns(*ceilings)


def _norm_below(rng: np.random.Generator) -> Pair:
  p = nets.softmax(rows(rng))
  size = spectral(nets.jacobian_of_softmax(p))
  one, two = _descending(p)[:, :2].T
  rest = _descending(others(p))[:, ::-1]
  pair = one * rest[:, 0] + two * rest[:, 1] + 2 * one * two
  floors = [two, np.max(p * others(p), -1), pair / 2]
  return columns(*floors), columns(*[size] * 3)


def _mass(rng: np.random.Generator) -> Pair:
  z = rows(rng, top=0.5)
  p = nets.softmax(z)
  by_hand = nets.jacobian_of_softmax(p)
  j = np.asarray(_jacobian(z))
  zero, trace = np.zeros_like(p), 1 - np.sum(p**2, -1)
  return (
    columns(j, j.sum(-1), j.sum(-2), trace_of(j)),
    columns(by_hand, zero, zero, trace),
  )


@jax.jit
@jax.vmap
def _jacobian(z: Array) -> Array:
  return jax.jacfwd(jax.nn.softmax)(z)


def trace_floor(h: np.ndarray, tokens: int) -> np.ndarray:
  """(H - log 2) / log(T - 1), by Fano's inequality."""
  return (h - math.log(2)) / math.log(tokens - 1)


def _trace(rng: np.random.Generator) -> Pair:
  z = rows(rng)
  p = nets.softmax(z)
  rest = others(p)
  trace, rest = np.sum(p * rest, -1), rest.min(-1)
  return columns(rest, trace_floor(entropy(z), TOKENS)), columns(trace, rest)


def entropy_floor(radius: np.ndarray, tokens: int) -> np.ndarray:
  """log(1 + (T - 1) b) + s √(T (T - 1)) b / (1 + (T - 1) b) with
  b = exp(-s √(T / (T - 1))): the least H where ‖z - mean z‖ <= s."""
  b = np.exp(-radius * math.sqrt(tokens / (tokens - 1)))
  mass = 1 + (tokens - 1) * b
  slope = math.sqrt(tokens * (tokens - 1))
  return np.log(mass) + radius * slope * b / mass


def radius(z: np.ndarray) -> np.ndarray:
  return np.linalg.norm(z - z.mean(-1, keepdims=True), axis=-1)


def _entropy(rng: np.random.Generator) -> Pair:
  z = rows(rng)
  return entropy_floor(radius(z), TOKENS), entropy(z)


def _entropy_tight(rng: np.random.Generator) -> Pair:
  """One logit above all others, which are equal."""
  z = np.zeros((DRAWS, TOKENS))
  z[:, 0] = 10 ** rng.uniform(-2, 1.2, DRAWS)
  return entropy_floor(radius(z), TOKENS), entropy(z)


def spread_floor(spread: np.ndarray, tokens: int) -> np.ndarray:
  """The least H where max z - min z <= Δ: m logits at the top, all others at
  the bottom, for the worst m."""
  m = np.arange(1, tokens)[:, None]
  low = np.exp(-spread)
  mass = m + (tokens - m) * low
  return np.min(np.log(mass) + (tokens - m) * spread * low / mass, 0)


def _spread(rng: np.random.Generator) -> Pair:
  z = rows(rng)
  spread = np.ptp(z, -1)
  return (
    columns(spread_floor(spread, TOKENS), deficit(z)),
    columns(entropy(z), spread**2 / 8),
  )


def gap_ceiling(z: np.ndarray, k: int) -> np.ndarray:
  """T / (k (T - k)) min(√(δ / 2), tanh(Δ / 4)), which caps the gap at k."""
  t = z.shape[-1]
  variation = np.minimum(np.sqrt(deficit(z) / 2), np.tanh(np.ptp(z, -1) / 4))
  return t / (k * (t - k)) * variation


def _gap(rng: np.random.Generator) -> Pair:
  z = rows(rng)
  p = _descending(nets.softmax(z))
  left, right = [], []
  for k in range(1, TOKENS):
    mass = p[:, :k].sum(1)
    middle = (TOKENS * mass - k) / (k * (TOKENS - k))
    left += [p[:, k - 1] - p[:, k], middle]
    right += [middle, gap_ceiling(z, k)]
  return columns(*left), columns(*right)


def _distance(rng: np.random.Generator) -> Pair:
  z = rows(rng)
  p, spread = nets.softmax(z), np.ptp(z, -1)
  return (
    columns(
      np.abs(p - 1 / TOKENS).sum(1), p.max(1), np.exp(-spread) / TOKENS
    ),
    columns(
      np.sqrt(2 * deficit(z)), np.minimum(np.exp(spread) / TOKENS, 1), p.min(1)
    ),
  )  # fmt: skip


ROW = 'any logits; T = 9, scale 0.01 to 30, ties and two-level rows among them'

CHECKS = named(
  Check(
    name='softmax_jacobian_above',
    statement='‖J‖ <= min(1/2, p_(1), 2 max p(1 - p), 1 - ‖p‖², H, '
    '1/T + √(δ/2))',
    source='derived here',
    assumptions=ROW,
    sides=_norm_above,
  ),
  Check(
    name='softmax_jacobian_below',
    statement='‖J‖ >= max(p_(2), max p(1 - p), ½ (p_(1) + p_(2) '
    '- (p_(1) - p_(2))²))',
    source='derived here',
    assumptions=ROW,
    sides=_norm_below,
  ),
  Check(
    name='softmax_mass',
    statement='∂p/∂z = J, J 1 = 0 = 1ᵀ J and Tr J = 1 - ‖p‖²',
    source='classical',
    assumptions=ROW.replace('30', '3'),
    sides=_mass,
    relation='==',
  ),
  Check(
    name='trace_floor',
    statement='Tr J >= 1 - p_(1) >= (H - log 2) / log(T - 1)',
    source='derived here, by Fano',
    assumptions=ROW + '; of the trace only: ‖J‖ is not monotone in H',
    sides=_trace,
  ),
  Check(
    name='entropy_floor',
    statement='‖z - mean z‖ <= s implies H >= log(1 + (T - 1) b) '
    '+ s √(T (T - 1)) b / (1 + (T - 1) b), b = exp(-s √(T / (T - 1)))',
    source='Zhai et al., arXiv 2303.06296, derived again here',
    assumptions=ROW,
    sides=_entropy,
  ),
  Check(
    name='entropy_floor_tight',
    statement='the floor is met with one logit above equal others',
    source='derived here',
    assumptions='T = 9, height 0.01 to 16',
    sides=_entropy_tight,
    relation='==',
  ),
  Check(
    name='spread_floor',
    statement='H >= min over m of two-level rows of spread Δ, and δ <= Δ²/8',
    source='derived here',
    assumptions=ROW,
    sides=_spread,
  ),
  Check(
    name='topk_margin_ceiling',
    statement='gap at k <= (T P_k - k) / (k (T - k)) '
    '<= T / (k (T - k)) min(√(δ/2), tanh(Δ/4)), P_k the top-k mass',
    source='derived here',
    assumptions=ROW + '; every k; maps without a normaliser have no such cap',
    sides=_gap,
  ),
  Check(
    name='uniform_limit',
    statement='‖p - 1/T‖_1 <= √(2 δ) and exp(-Δ)/T <= p_i <= exp(Δ)/T',
    source='Pinsker; arXiv 2410.01104',
    assumptions=ROW,
    sides=_distance,
  ),
)
"""Entropy and sensitivity of a normalised attention row."""
