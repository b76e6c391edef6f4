"""Maps under a moving input: how far a map can move, which ranks must stay.

g = ∇_x f_c of one logit, H its Hessian, ‖·‖ of vectors ℓ2, x' = x + d. The
largest ‖H‖ on a segment is that at its Gauss–Legendre nodes: the change of g
is their weighted mean times d, to the accuracy of the quadrature.
"""

import functools
import math

import jax
import numpy as np

from implicit_attr.theory import small_networks as nets
from implicit_attr.theory.check import DRAWS, Check, columns, named, spectral
from implicit_attr.types import Array

Pair = tuple[np.ndarray, np.ndarray]


def nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
  """Gauss–Legendre nodes and weights on [0, 1]."""
  nodes, weights = np.polynomial.legendre.leggauss(count)
  return (nodes + 1) / 2, weights / 2


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0))
@functools.partial(jax.vmap, in_axes=(None, 0))
def _at(layers: nets.Layers, x: Array) -> tuple[Array, Array, Array]:
  """(f, g, H) of the first logit at x [draws, points, d]."""
  of = lambda x: nets.logits(layers, x)[0]
  return of(x), *nets.both(of, x)


class _Moved:
  """Gradient, input and map before and after, and the largest curvature."""

  def __init__(self, rng: np.random.Generator):
    drawn = nets.draw(rng, n=1)
    x = drawn.x[:, 0]
    d = rng.standard_normal(x.shape)
    d *= 10 ** rng.uniform(-3, 0, (DRAWS, 1)) / _length(d)[:, None]
    steps, self.shares = nodes(12)
    points = x[:, None] + np.array([0, 1, *steps])[:, None] * d[:, None]
    _, g, h = jax.device_get(_at(drawn.layers, points))
    self.x, self.d, self.g, self.moved = x, d, g[:, 0], g[:, 1]
    self.curvatures = spectral(h[:, 2:])
    self.top = self.curvatures.max(1)


def _length(a: np.ndarray) -> np.ndarray:
  return np.linalg.norm(a, axis=-1)


def _largest(a: np.ndarray) -> np.ndarray:
  return np.abs(a).max(-1)


def gradient_bound(top: np.ndarray, d: np.ndarray) -> np.ndarray:
  """sup ‖H‖ ‖d‖."""
  return top * _length(d)


def gradient_x_input_bound(
  moved: np.ndarray, x: np.ndarray, top: np.ndarray, d: np.ndarray
) -> np.ndarray:
  """(‖g(x')‖_∞ + ‖x‖_∞ sup ‖H‖) ‖d‖."""
  return (_largest(moved) + _largest(x) * top) * _length(d)


def path_bound(
  mean_g: np.ndarray, x: np.ndarray, top: np.ndarray, d: np.ndarray
) -> np.ndarray:
  """(sup ‖g‖_∞ + ½ ‖x‖_∞ sup ‖H‖) ‖d‖; the ½ is the mean of t over a path."""
  return (mean_g + 0.5 * _largest(x) * top) * _length(d)


def _gradient(rng: np.random.Generator) -> Pair:
  m = _Moved(rng)
  change = _length(m.moved - m.g)
  mean = m.curvatures @ m.shares
  near = gradient_bound(mean, m.d)
  return columns(change, near), columns(near, gradient_bound(m.top, m.d))


def cosine_bound(relative: np.ndarray) -> np.ndarray:
  """√(1 - r²), below which no cosine falls at a relative change r < 1."""
  return np.sqrt(np.maximum(1 - relative**2, 0))


def _cosine(rng: np.random.Generator) -> Pair:
  g = rng.standard_normal((DRAWS, 3))
  change = rng.standard_normal((DRAWS, 3))
  # Every other change is the worst there is: orthogonal to what results.
  ratio = rng.uniform(0, 0.99, DRAWS)
  across = change - g * (np.sum(change * g, 1) / np.sum(g**2, 1))[:, None]
  across /= _length(across)[:, None]
  unit = g / _length(g)[:, None]
  worst = ratio[:, None] * (
    np.sqrt(1 - ratio**2)[:, None] * across - ratio[:, None] * unit
  )
  any_way = ratio[:, None] * change / _length(change)[:, None]
  even = (np.arange(DRAWS) % 2 == 0)[:, None]
  moved = g + _length(g)[:, None] * np.where(even, worst, any_way)
  cosine = np.sum(g * moved, 1) / (_length(g) * _length(moved))
  return cosine_bound(ratio), cosine


def _gradient_x_input(rng: np.random.Generator) -> Pair:
  m = _Moved(rng)
  change = _length((m.x + m.d) * m.moved - m.x * m.g)
  return change, gradient_x_input_bound(m.moved, m.x, m.top, m.d)


def _paths(rng: np.random.Generator):
  """(x, d, f at both ends, IG of x and x', sup ‖g‖_∞ of x', sup ‖H‖)."""
  drawn = nets.draw(rng, n=1, count=200)
  x = 0.7 * drawn.x[:, 0]
  d = rng.standard_normal(x.shape)
  d *= 10 ** rng.uniform(-3, -0.3, (len(x), 1)) / _length(d)[:, None]
  t, shares = nodes(40)
  s, _ = nodes(6)
  ends = x[:, None] + np.array([0, 1, *s])[:, None] * d[:, None]
  points = ends[:, :, None] * np.array([0, 1, *t])[:, None]
  flat = points.reshape(len(x), -1, x.shape[1])
  f, g, h = jax.device_get(_at(drawn.layers, flat))
  f, g = f.reshape(points.shape[:3]), g.reshape(points.shape)
  top = spectral(h).max(1)
  maps = ends[:, :2] * np.einsum('bstd,t->bsd', g[:, :2, 2:], shares)
  return x, d, f[:, :2, 1] - f[:, :2, 0], maps, _largest(g[:, 1, 2:]), top


def _complete(rng: np.random.Generator) -> Pair:
  *_, gained, maps, _, _ = _paths(rng)
  return maps.sum(-1), gained


def _integrated(rng: np.random.Generator) -> Pair:
  x, d, _, maps, steepest, top = _paths(rng)
  change = _length(maps[:, 1] - maps[:, 0])
  return change, path_bound(steepest.max(1), x, top, d)


def smoothing_bound(sup: np.ndarray, sigma: np.ndarray) -> np.ndarray:
  """√(2/π) sup ‖g‖ / σ: Lipschitz constant of a map smoothed by N(0, σ²)."""
  return math.sqrt(2 / math.pi) * sup / sigma


def soft_corners(
  read: np.ndarray, kernel: np.ndarray, z: np.ndarray, width: np.ndarray
) -> np.ndarray:
  """Σ_j v_j w_j erf(z_j / (√2 s_j)): the gradient of Σ_j v_j |z_j| whose
  corners are rounded by a Gaussian of width s_j; closed under smoothing."""
  erf = np.vectorize(math.erf)
  return np.einsum('bj,bjd->bd', read * erf(z / (2**0.5 * width)), kernel)


def _smoothed(rng: np.random.Generator) -> Pair:
  """σ² ‖w_j‖² is added to every s_j²; one unit of many has s near 0, so that
  both bounds are met."""
  units, normal = 3, rng.standard_normal
  kernel, bias = normal((DRAWS, units, 3)), 0.1 * normal((DRAWS, units))
  read = normal((DRAWS, units))
  read[::2, 1:] = 0  # a single corner: the worst case
  bias[::2] = 0
  sigma = 10 ** rng.uniform(-1, 1, DRAWS)
  own = 10 ** rng.uniform(-3, 1, (DRAWS, units))
  wide = np.sqrt(own**2 + sigma[:, None] ** 2 * np.sum(kernel**2, -1))
  x = 0.01 * normal((DRAWS, 3))
  d = normal((DRAWS, 3)) * sigma[:, None]
  x[::2], d[::2] = 0, 1e-3 * sigma[::2, None] * kernel[::2, 0]
  z = np.einsum('bjd,bd->bj', kernel, x) + bias
  step = np.einsum('bjd,bd->bj', kernel, d)
  maps = [soft_corners(read, kernel, a, wide) for a in (z, z + step)]
  steep = np.abs(read) * _length(kernel)
  bent = steep * _length(kernel) * math.sqrt(2 / math.pi) / own
  bounds = np.stack([bent.sum(1), smoothing_bound(steep.sum(1), sigma)])
  return _length(maps[1] - maps[0]), bounds.min(0) * _length(d)


ENTRIES = 8


def _changed_maps(rng: np.random.Generator, k: int = 3):
  """Maps [draws, 8] and changes of them, half aimed at the k-th gap."""
  phi = np.abs(rng.standard_normal((DRAWS, ENTRIES)))
  order = np.argsort(-phi, 1)
  rows = np.arange(DRAWS)
  last, first = order[:, k - 1], order[:, k]
  gap = phi[rows, last] - phi[rows, first]
  change = rng.standard_normal(phi.shape) * rng.uniform(0, 1, (DRAWS, 1))
  even = rows[::2]
  change[even] = 0
  size = 0.5 * gap[even] * (1 + 1e-6)
  change[even, last[even]], change[even, first[even]] = -size, size
  return phi, change, gap, k


def topk_gap(change: np.ndarray) -> np.ndarray:
  """2 ‖Δφ‖_∞: a gap above it outlives the change Δφ."""
  return 2 * np.abs(change).max(-1)


def _topk(rng: np.random.Generator) -> Pair:
  phi, change, gap, k = _changed_maps(rng)
  sets = [np.sort(np.argsort(-a, 1)[:, :k]) for a in (phi, phi + change)]
  lost = (sets[0] != sets[1]).any(1)
  return np.where(lost, gap, 0), topk_gap(change)


def _kendall(rng: np.random.Generator) -> Pair:
  phi, change, _, _ = _changed_maps(rng)
  i, j = np.triu_indices(ENTRIES, 1)
  gaps, now = phi[:, i] - phi[:, j], (phi + change)[:, i] - (phi + change)[:, j]
  swapped, limit = gaps * now < 0, topk_gap(change)
  worst = np.where(swapped, np.abs(gaps), 0).max(1)
  at_risk = (np.abs(gaps) <= limit[:, None]).mean(1)
  tau = np.mean(np.sign(gaps) * np.sign(now), 1)
  return columns(worst, (1 - tau) / 2), columns(limit, at_risk)


NET = 'tanh networks 4-4-3-3, a logit; random d, ‖d‖ from 0.001 to 1'

CHECKS = named(
  Check(
    name='gradient_lipschitz',
    statement='‖g(x + d) - g(x)‖ <= mean ‖H‖ ‖d‖ <= sup ‖H‖ ‖d‖ on the segment',
    source='derived here',
    assumptions=NET + '; twice differentiable on the segment',
    sides=_gradient,
    tol=1e-8,
  ),
  Check(
    name='cosine_bound',
    statement='cos(g, g + Δ) >= √(1 - r²) for r = ‖Δ‖ / ‖g‖ < 1',
    source='derived here',
    assumptions='any vectors; half of the draws are the worst case',
    sides=_cosine,
  ),
  Check(
    name='gradient_x_input_lipschitz',
    statement="‖x' g' - x g‖ <= (‖g'‖_∞ + ‖x‖_∞ sup ‖H‖) ‖d‖",
    source='derived here',
    assumptions=NET,
    sides=_gradient_x_input,
    tol=1e-8,
  ),
  Check(
    name='integrated_gradients_complete',
    statement='Σ IG(x) = f(x) - f(0)',
    source='arXiv 1703.01365',
    assumptions='200 tanh networks; 40 Gauss–Legendre nodes',
    sides=_complete,
    relation='==',
  ),
  Check(
    name='integrated_gradients_lipschitz',
    statement="‖IG(x') - IG(x)‖ <= (sup ‖g‖_∞ + ½ ‖x‖_∞ sup ‖H‖) ‖d‖",
    source='derived here',
    assumptions='200 tanh networks; baseline 0; sup over the '
    'triangle 0, x, x + d',
    sides=_integrated,
    tol=1e-8,
  ),
  Check(
    name='smoothgrad_lipschitz',
    statement="‖SG(x') - SG(x)‖ <= min(sup ‖H‖, √(2/π) sup ‖g‖ / σ) ‖d‖",
    source='derived here',
    assumptions='networks of rounded corners, whose smoothed map is exact; '
    'half of the draws are one corner, the worst case',
    sides=_smoothed,
  ),
  Check(
    name='topk_gap',
    statement='the top-k set changes only if its gap is <= 2 ‖Δφ‖_∞',
    source='derived here',
    assumptions='any maps; half of the changes are the smallest that do',
    sides=_topk,
  ),
  Check(
    name='kendall_gap',
    statement='a pair swaps only if its gap is <= 2 ‖Δφ‖_∞, so (1 - τ) / 2 '
    '<= the share of such pairs',
    source='derived here',
    assumptions='any maps without ties; half of the changes swap one pair',
    sides=_kendall,
  ),
)
"""From input curvature to the robustness of maps."""
