"""Rows of attention weights: entropy, spread, saturation, gaps, their bounds.

`p` are rows of weights over L tokens, [..., L], non-negative; each is divided
by its sum first, so that rows without a normaliser can be read too (a row of
zeros counts as uniform). Entropies are in nats, spreads in log units. Bounds
stand beside what they bound.
"""

import math

import jax
import jax.numpy as jnp

from implicit_attr.types import Array


def normalised(p: Array) -> Array:
  """Rows that sum to 1."""
  total = p.sum(-1, keepdims=True)
  some = total > 0
  return jnp.where(some, p / jnp.where(some, total, 1), 1 / p.shape[-1])


def entropy(p: Array) -> Array:
  """H = -Σ p log p, 0 to log L."""
  p = normalised(p)
  return -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)), -1)


def spread(p: Array) -> Array:
  """Δ = log(max p / min p): for softmax, that of the logits.

  Weights below the smallest number of their type count as that number.
  """
  logs = _logs(p)
  return logs.max(-1) - logs.min(-1)


def radius(p: Array) -> Array:
  """σ = ‖log p - mean log p‖₂: for softmax, that of the logits."""
  logs = _logs(p)
  return jnp.linalg.norm(logs - logs.mean(-1, keepdims=True), axis=-1)


def jacobian_norm(p: Array) -> Array:
  """‖diag p - p p'‖₂, the softmax Jacobian's, at most 1/2.

  The root of Σ p_i² / (p_i - λ) = 1 between the two largest p, by bisection to
  the last digit. For weights that softmax did not make it says what its
  normaliser would do.
  """
  p = normalised(p)
  low, high = jnp.moveaxis(jax.lax.top_k(p, 2)[0][..., ::-1], -1, 0)

  def halve(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = ends
    middle = 0.5 * (low + high)
    away = p - middle[..., None]
    away = jnp.where(away == 0, jnp.finfo(p.dtype).tiny, away)
    above = jnp.sum(p**2 / away, -1) > 1
    return jnp.where(above, low, middle), jnp.where(above, middle, high)

  digits = 2 * jnp.finfo(p.dtype).nmant
  low, high = jax.lax.fori_loop(0, digits, halve, (low, high))
  return 0.5 * (low + high)


def jacobian_trace(p: Array) -> Array:
  """Tr(diag p - p p') = 1 - ‖p‖², 0 to 1 - 1 / L."""
  return 1 - jnp.sum(normalised(p) ** 2, -1)


def trace_floor(p: Array) -> Array:
  """(H - log 2) / log(L - 1) <= Tr J, by Fano's inequality; L > 2."""
  return (entropy(p) - math.log(2)) / math.log(p.shape[-1] - 1)


def top_gap(p: Array, k: int) -> Array:
  """p_(k) - p_(k+1), of the k-th and the next largest."""
  top = jax.lax.top_k(normalised(p), k + 1)[0]
  return top[..., k - 1] - top[..., k]


def gap_cap(p: Array, k: int) -> Array:
  """L / (k (L - k)) min(√(δ/2), tanh(Δ/4)) >= `top_gap`, δ = log L - H.

  The k largest lie above the mean of the rest by what they have more than
  k / L, at most the total variation from uniform, over k and L - k; that is
  bounded by Pinsker's inequality, and for densities within e^Δ by tanh(Δ/4).
  """
  size = p.shape[-1]
  # log L - H would cancel: the mean of (1 + t) log(1 + t) - t, by its series.
  t = size * normalised(p) - 1
  near = t * t * (1 / 2 - t / 6 + t * t / 12)
  far = jax.scipy.special.xlogy(1 + t, 1 + t) - t
  delta = jnp.where(jnp.abs(t) < 0.03, near, far).mean(-1)
  variation = jnp.minimum(jnp.sqrt(delta / 2), jnp.tanh(spread(p) / 4))
  return size / (k * (size - k)) * variation


def entropy_floor(sigma: Array, size: int) -> Array:
  """The least entropy of softmax over `size` logits within `sigma` of their
  mean (ℓ2), from Zhai et al. (arXiv 2303.06296, theorem 3.1); attained.

  log(1 + (L-1) b) + σ √(L (L-1)) b / (1 + (L-1) b), b = exp(-σ √(L / (L-1))).
  """
  b = jnp.exp(-sigma * math.sqrt(size / (size - 1)))
  whole = 1 + (size - 1) * b
  return jnp.log(whole) + sigma * math.sqrt(size * (size - 1)) * b / whole


def spread_floor(delta: Array, size: int) -> Array:
  """The least entropy of softmax over `size` logits with spread `delta`.

  Extremes have two levels, m logits above: the minimum over m = 1 … L - 1 of
  log(m + (L-m) b) + (L-m) Δ b / (m + (L-m) b), b = exp(-Δ). Attained.
  """
  delta = delta[..., None]
  m = jnp.arange(1, size, dtype=delta.dtype)
  m = m.reshape((1,) * (delta.ndim - 1) + (-1,))
  rest = (size - m) * jnp.exp(-delta)
  return jnp.min(jnp.log(m + rest) + delta * rest / (m + rest), -1)


def sum_variation(p: Array) -> Array:
  """Standard deviation over mean of the rows' sums, [..., K, L] -> [...]."""
  sums = p.sum(-1)
  mean = sums.mean(-1)
  return jnp.where(mean > 0, sums.std(-1) / jnp.where(mean > 0, mean, 1), 0)


def _logs(p: Array) -> Array:
  return jnp.log(jnp.maximum(normalised(p), jnp.finfo(p.dtype).tiny))
