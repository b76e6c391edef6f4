"""Certified radii within which no attack changes the top-k set of a map.

A certificate is a proof, not a measurement: inside of it the set of the k
largest |φ_i| stays what it is, whatever the attack. It holds the class fixed;
whether the prediction changes is not asked. `empirical_radius` is the other
thing, a distance at which an attack did change the set, so an upper bound.

How: |φ_i| > |φ_j| for i inside and j outside of the set holds as long as
neither φ_i - φ_j nor φ_i + φ_j changes its sign. If both change by at most L
per unit of distance, the distance is the smaller of the two over L. Without
ties; a tie certifies 0.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.types import Array

NORMS = ('l2', 'linf')


class Smoothed(NamedTuple):
  """A certificate that holds with probability 1 - alpha over the noise."""

  radius: np.ndarray  # [B], ℓ2, in units of x
  phi: np.ndarray  # [B, n], the estimated map
  error: float  # every entry of φ is this near its mean


def affine_radius(
  matrix: np.ndarray, phi: np.ndarray, k: int, norm: str = 'l2'
) -> np.ndarray:
  """The largest radius itself, for maps φ(x + δ) = φ(x) + A δ.

  Such maps are: the gradient of a quadratic (A its Hessian) and gradient times
  input of a linear function (A = diag w). A constant map (A = 0) has radius
  inf. Exact: just beyond it lies a point with another set. Derived here.

  Args:
    matrix: A [n, d], or [B, n, d] for one of each example.
    phi: maps [B, n].
    k: how many entries are in the set; from 1 to n - 1.
    norm: of δ; 'l2' or 'linf'.

  Returns:
    [B], in units of x.

  Raises:
    InputError: shapes that do not fit, k outside 1 … n - 1, another norm.
  """
  phi, matrix = checked(phi, k, norm), np.asarray(matrix, np.float64)
  fits = matrix.ndim in (2, 3) and matrix.shape[-2] == phi.shape[1]
  errors.require('matrix', matrix.shape, fits, f'[…, {phi.shape[1]}, d]')
  order = 2 if norm == 'l2' else 1  # of the dual norm
  matrix = np.broadcast_to(matrix, (len(phi), *matrix.shape[-2:]))
  return pair_radius(
    phi, k, lambda b, i, j, sign: np.linalg.norm(
      matrix[b, i] + sign * matrix[b, j], order, axis=-1
    ),
  )  # fmt: skip


def lipschitz_radius(phi: np.ndarray, k: int, constant: float) -> np.ndarray:
  """gap / (√2 L) for a map with ‖φ(x + δ) - φ(x)‖ <= L ‖δ‖, both ℓ2; [B].

  √2, not 2: |Δφ_i| + |Δφ_j| <= √2 ‖Δφ‖. Derived here.

  Raises:
    InputError: k outside 1 … n - 1; a negative constant.
  """
  phi = checked(phi, k, 'l2')
  errors.number('constant', float(constant), 0)
  return pair_radius(phi, k, lambda b, i, j, sign: math.sqrt(2) * constant)


def smoothed_radius(
  explain: Callable[[Array], Array],
  x: Array,
  key: Array,
  k: int,
  *,
  sigma: float,
  samples: int,
  alpha: float = 0.001,
) -> Smoothed:
  """A radius for the mean of a unit-length map under noise, of any network.

  φ(x) = E m(x + N(0, σ²)), m = map / ‖map‖: whatever the network, φ_i ± φ_j
  has the Lipschitz constant √2 √(2/π) / σ. The mean is estimated, and
  Hoeffding's bound for all entries of an example at once is taken off the gap.
  In the spirit of Levine, Singla & Feizi, arXiv 1905.12105; derived here.

  Args:
    explain: x [B, ...] -> maps of the same shape; row b sees row b alone.
    key: of the noise.
    sigma: standard deviation of the noise, in units of x.
    samples: maps per example.
    alpha: chance that an example's certificate is wrong.

  Raises:
    InputError: sigma not above 0, samples below 1, alpha outside (0, 1].
  """
  errors.number('sigma', sigma, 0, open_low=True)
  errors.number('samples', samples, 1, integer=True)
  errors.number('alpha', alpha, 0, 1, open_low=True)

  def one(total: Array, key: Array) -> tuple[Array, None]:
    noisy = x + sigma * jax.random.normal(key, x.shape, x.dtype)
    a = explain(noisy).reshape(len(x), -1)
    size = jnp.linalg.norm(a, axis=1, keepdims=True)
    return total + a / jnp.where(size > 0, size, 1), None

  zero = jnp.zeros((len(x), x[0].size), x.dtype)
  total = jax.lax.scan(one, zero, jax.random.split(key, samples))[0]
  phi = checked(np.asarray(total, np.float64) / samples, k, 'l2')
  # Entries lie in [-1, 1]: P(|mean - E| >= t) <= 2 exp(-samples t² / 2).
  error = math.sqrt(2 * math.log(2 * phi.shape[1] / alpha) / samples)
  constant = math.sqrt(2) * math.sqrt(2 / math.pi) / sigma
  radius = pair_radius(phi, k, lambda *_: constant, spare=2 * error)
  return Smoothed(radius, phi, error)


def empirical_radius(
  phi_of: Callable[[np.ndarray], np.ndarray],
  attack: Callable[[np.ndarray, float], np.ndarray],
  x: np.ndarray,
  k: int,
  eps: Sequence[float],
  norm: str = 'l2',
) -> np.ndarray:
  """The nearest point at which an attack changed the set; inf if none did.

  An upper bound on the true radius, as a certificate is a lower one.

  Args:
    phi_of: x [B, ...] -> maps [B, n].
    attack: (x, eps) -> attacked x.
    eps: radii to try, in units of x.
    norm: in which distances are measured.
  """
  clean = checked(phi_of(x), k, norm)
  best, order = np.full(len(x), np.inf), 2 if norm == 'l2' else np.inf
  for radius in eps:
    moved = np.asarray(attack(x, radius))
    changed = (top_set(phi_of(moved), k) != top_set(clean, k)).any(1)
    away = (moved - np.asarray(x)).reshape(len(x), -1)
    far = np.linalg.norm(away, order, axis=1)
    best = np.where(changed, np.minimum(best, far), best)
  return best


def top_set(phi: np.ndarray, k: int) -> np.ndarray:
  """Indices of the k largest |φ_i|, ascending; [B, n] -> [B, k]."""
  order = np.argsort(-np.abs(np.asarray(phi)), 1, kind='stable')
  return np.sort(order[:, :k], 1)


def pair_radius(
  phi: np.ndarray,
  k: int,
  constant: Callable[..., np.ndarray | float],
  spare: float = 0.0,
) -> np.ndarray:
  """min over pairs and signs of (|φ_i ± φ_j| - spare) / constant, >= 0; [B].

  constant(b, i, j, sign): how fast φ_i + sign φ_j can change; i and b are
  numbers, j an array of those outside of the set.
  """
  inside, radii = top_set(phi, k), np.zeros(len(phi))
  for b, row in enumerate(phi):
    outside = np.setdiff1d(np.arange(len(row)), inside[b])
    nearest = np.inf
    for i in inside[b]:
      for sign in (-1, 1):
        gap = np.abs(row[i] + sign * row[outside]) - spare
        speed = np.broadcast_to(constant(b, i, outside, sign), gap.shape)
        # Where nothing moves the pair keeps its order, unless it is a tie.
        still = np.where(gap > 0, np.inf, 0.0)
        moving = gap / np.where(speed > 0, speed, 1)
        nearest = min(nearest, np.where(speed > 0, moving, still).min())
    radii[b] = max(nearest, 0.0)
  return radii


def checked(phi: np.ndarray, k: int, norm: str) -> np.ndarray:
  phi = np.asarray(phi, np.float64)
  errors.require('phi', phi.shape, phi.ndim == 2, 'of shape [B, n]')
  errors.number('k', k, 1, phi.shape[1] - 1, integer=True)
  errors.choose('norm', norm, NORMS)
  return phi
