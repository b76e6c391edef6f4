"""Stability of gradient descent: curvature thresholds, the edge of stability.

On quadratics the thresholds are exact; the run at the edge of stability is an
observation with a tolerance, and says so.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature
from implicit_attr.theory import small_networks as nets
from implicit_attr.theory.check import DRAWS, Check, columns, named, top_of
from implicit_attr.types import Array

Pair = tuple[np.ndarray, np.ndarray]

STEPS = 400
SPREAD = (0.2, 0.4, 0.6)
"""Other eigenvalues of the quadratics, as shares of the largest."""


def _growth(
  lam: np.ndarray, lr: np.ndarray, beta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Heavy ball on ½ Σ λ_i θ_i²: growth of ‖θ‖ in the last step, and whether
  it grew over the second half of the steps."""
  values = lam[:, None] * np.array([1, *SPREAD])
  theta, lr, beta = np.ones_like(values), lr[:, None], beta[:, None]
  speed, sizes = np.zeros_like(theta), []
  for _ in range(STEPS):
    size = np.linalg.norm(theta, axis=1, keepdims=True)
    theta, speed = theta / size, speed / size
    speed = beta * speed + values * theta
    theta = theta - lr * speed
    sizes.append(np.linalg.norm(theta, axis=1))
  return sizes[-1], np.sum(np.log(sizes[STEPS // 2 :]), 0) > 0


def threshold(lr: np.ndarray, beta: np.ndarray) -> np.ndarray:
  """The λ at which descent neither grows nor shrinks, 2 (1 + β) / η.

  For m <- β m + g, θ <- θ - η m: Polyak (1964); Cohen et al., arXiv
  2103.00065, section 2.
  """
  return 2 * (1 + beta) / lr


def _edge(rng: np.random.Generator, top_beta: float) -> Pair:
  lr = 10 ** rng.uniform(-3, 1, DRAWS)
  beta = rng.uniform(0, top_beta, DRAWS)
  lam = threshold(lr, beta)
  at, _ = _growth(lam, lr, beta)
  grew = [_growth(c * lam, lr, beta)[1] for c in (0.98, 1.02)]
  one = np.ones(DRAWS)
  return columns(at, *grew), columns(one, 0 * one, one)


def second_moment(
  hessians: np.ndarray, lr: np.ndarray, batch: int
) -> np.ndarray:
  """(1 - ηH)² + η² (n - B) / (B (n - 1)) Σ; [draws, n, d, d] -> [draws, d, d].

  Σ = E_i H_i² - H², from `curvature.noise_covariance`.
  """
  n, d = hessians.shape[1:3]
  mean = hessians.mean(1)
  lr = lr[:, None, None]
  still = np.eye(d) - lr * mean
  share = (n - batch) / (batch * (n - 1))
  return still @ still + lr**2 * share * np.asarray(_spread(hessians))


@jax.jit
@jax.vmap
def _spread(hessians: Array) -> Array:
  """Σ [d, d] of symmetric matrices [n, d, d]."""
  form = lambda theta, h: 0.5 * jnp.vdot(theta, h @ theta)
  basis = jnp.eye(hessians.shape[-1], dtype=hessians.dtype)
  sigma = curvature.noise_covariance(form, basis[0], hessians)
  return jax.vmap(sigma)(basis)


def _quadratics(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """(Hessians of 5 examples [draws, 5, 3, 3], learning rates [draws])."""
  a = rng.standard_normal((DRAWS, 5, 3, 2))
  hessians = a @ a.mT
  lr = rng.uniform(0.1, 3, DRAWS) / top_of(hessians.mean(1))
  return hessians, lr


def _batches(rng: np.random.Generator) -> Pair:
  """E ‖(1 - η H_B) θ‖² over every batch there is, drawn without repeats."""
  hessians, lr = _quadratics(rng)
  theta = rng.standard_normal((DRAWS, 3))
  left, right = [], []
  for batch in (1, 2, 3, 5):
    subsets = list(itertools.combinations(range(5), batch))
    lengths = []
    for subset in subsets:
      h = hessians[:, subset].mean(1)
      moved = theta - lr[:, None] * np.einsum('bij,bj->bi', h, theta)
      lengths.append(np.sum(moved**2, 1))
    left.append(np.mean(lengths, 0))
    m = second_moment(hessians, lr, batch)
    right.append(np.einsum('bi,bij,bj->b', theta, m, theta))
  return columns(*left), columns(*right)


def _necessary(rng: np.random.Generator) -> Pair:
  hessians, lr = _quadratics(rng)
  flat, noisy = (1 - lr * top_of(hessians.mean(1))) ** 2, _spread(hessians)
  left, right = [], []
  for batch in (1, 2, 4):
    share = (5 - batch) / (batch * 4)
    left += [flat, lr**2 * share * top_of(np.asarray(noisy))]
    right += [top_of(second_moment(hessians, lr, batch))] * 2
  return columns(*left), columns(*right)


LR = 0.5
RUNS, UNITS, POINTS = 4, 8, 12
CHUNKS, CHUNK = 24, 250


def _at_the_edge(rng: np.random.Generator) -> Pair:
  """Mean of η λ(H_θ) over the last third of a full-batch run."""
  normal = rng.standard_normal
  params = {
    'in': normal((RUNS, UNITS)),
    'shift': normal((RUNS, UNITS)),
    'out': 0.1 * normal((RUNS, UNITS)),
  }
  sharpness = np.asarray(_descend(params))[:, -CHUNKS // 3 :]
  return LR * sharpness.mean(1), np.full(RUNS, 2.0)


@jax.jit
@jax.vmap
def _descend(params: dict[str, Array]) -> Array:
  """λ(H_θ) after each chunk of plain descent on E ½(f(t) - sin 6t)²; [24]."""
  flat, unravel = ravel_pytree(params)
  t = jnp.linspace(-1, 1, POINTS, dtype=flat.dtype)

  def loss(flat: Array) -> Array:
    p = unravel(flat)
    f = jnp.tanh(jnp.outer(t, p['in']) + p['shift'][None]) @ p['out']
    return 0.5 * jnp.mean((f - jnp.sin(6 * t)) ** 2)

  def chunk(flat: Array, _: None) -> tuple[Array, Array]:
    step = lambda z, _: (z - LR * jax.grad(loss)(z), None)
    flat, _ = jax.lax.scan(step, flat, length=CHUNK)
    return flat, jnp.linalg.eigvalsh(nets.both(loss, flat)[1])[-1]

  return jax.lax.scan(chunk, flat, length=CHUNKS)[1]


STEP = 0.004


def _orders(rng: np.random.Generator) -> Pair:
  """log2 of how the error of one step shrinks when η is halved."""
  drawn = nets.draw(rng, (3, 3, nets.CLASSES), n=2, count=100)
  errors = np.asarray(_one_step(drawn))
  order = np.log2(errors[:, 0] / errors[:, 1])
  return order, np.broadcast_to([2.0, 3.0], order.shape)


@jax.jit
@jax.vmap
def _one_step(drawn: nets.Draw) -> Array:
  """‖a step of descent - a flow for time η‖; rows η, η / 2; columns the flow
  of L and of L + η/4 ‖∇L‖²."""
  flat, unravel = ravel_pytree(drawn.layers)

  def loss(flat: Array) -> Array:
    f = jax.vmap(nets.logits, (None, 0))(unravel(flat), drawn.x)
    return jnp.mean(jax.vmap(nets.cross_entropy)(f, drawn.y))

  def error(lr: Array, weight: Array) -> Array:
    def slope(z: Array) -> Array:
      grad, mvp = curvature.grad_and_hvp(loss, z)
      return -(grad + weight * regulariser(lr, mvp(grad)))

    end = _flow(slope, flat, lr)
    return jnp.linalg.norm(flat - lr * jax.grad(loss)(flat) - end)

  rates = jnp.array([STEP, STEP / 2], flat.dtype)
  both = jax.vmap(error, (None, 0))
  return jax.vmap(both, (0, None))(rates, jnp.array([0.0, 1.0], flat.dtype))


def regulariser(lr: Array, product: Array) -> Array:
  """∇ (η/4 ‖∇L‖²) = η/2 H ∇L, from `product` = H ∇L."""
  return 0.5 * lr * product


def _flow(slope, z: Array, time: Array, pieces: int = 8) -> Array:
  """z after `time` along `slope`, by classical Runge–Kutta, order 4."""
  h = time / pieces

  def piece(z: Array, none: None) -> tuple[Array, None]:
    def stage(carry, weights):
      k, total = carry
      ahead, share = weights
      k = slope(z + ahead * h * k)
      return (k, total + share * k), None

    stages = jnp.array([[0, 0.5, 0.5, 1], [1, 2, 2, 1]], z.dtype).T
    start = (jnp.zeros_like(z), jnp.zeros_like(z))
    (_, total), _ = jax.lax.scan(stage, start, stages)
    return z + h / 6 * total, None

  return jax.lax.scan(piece, z, length=pieces)[0]


QUADRATIC = 'quadratic loss; random η, growth after 400 steps at λ times 1, '

CHECKS = named(
  Check(
    name='descent_edge',
    statement='gradient descent on a quadratic grows iff λ > 2 / η',
    source='classical',
    assumptions=QUADRATIC + '.98 and 1.02',
    sides=functools.partial(_edge, top_beta=0.0),
    relation='==',
  ),
  Check(
    name='heavy_ball_edge',
    statement='heavy ball on a quadratic grows iff λ > 2 (1 + β) / η',
    source='Polyak 1964; arXiv 2103.00065',
    assumptions=QUADRATIC + '.98 and 1.02; β <= 0.9',
    sides=functools.partial(_edge, top_beta=0.9),
    relation='==',
  ),
  Check(
    name='sgd_second_moment',
    statement='E ‖θ_t+1‖² = θᵀ ((1 - ηH)² + η² (n - B) / (B (n - 1)) Σ) θ',
    source='Wu, Ma & E, NeurIPS 2018',
    assumptions='interpolation, quadratic losses; all batches of 1, 2, 3 and 5 '
    'of n = 5 examples',
    sides=_batches,
    relation='==',
  ),
  Check(
    name='sgd_edge',
    statement='stable in mean square only if λ(H) <= 2 / η and '
    'η² (n - B) / (B (n - 1)) λ(Σ) <= 1: both squares bound the growth',
    source='Wu, Ma & E, NeurIPS 2018',
    assumptions='as sgd_second_moment; B = 1, 2, 4',
    sides=_necessary,
  ),
  Check(
    name='edge_of_stability',
    statement='full-batch descent ends with η λ(H_θ) near 2',
    source='arXiv 2103.00065, an observation',
    assumptions='4 tanh networks of 8 units fit 12 points of sin 6t, squared '
    'error, η = 0.5, 6,000 steps; mean over the last third within 15 %',
    sides=_at_the_edge,
    relation='==',
    tol=0.15,
  ),
  Check(
    name='implicit_gradient_regularisation',
    statement='a step of descent is the flow of L to order η², and of '
    'L + η/4 ‖∇L‖² to order η³',
    source='Barrett & Dherin, arXiv 2009.11162',
    assumptions='100 random tanh networks, η = 0.004 and 0.002; orders '
    'within 4 %',
    sides=_orders,
    relation='==',
    tol=0.04,
  ),
)
"""What step size, momentum and batch size say of curvature."""
