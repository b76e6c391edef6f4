"""First-layer bounds of input curvature by parameter curvature.

Through the first layer z = W1 x + b1 and nothing else. δ = ∇_z loss and
H_z = ∇²_z loss; every norm without a mark is spectral, λ the largest
eigenvalue, λ⁺ = max(0, λ). The statements are worked out here from the
multiplicative structure that Ma & Ying (arXiv 2105.13462) use.
"""

import numpy as np

from implicit_attr.theory import small_networks as nets
from implicit_attr.theory.check import (
  Check,
  columns,
  frobenius,
  named,
  spectral,
  top_of,
)

Pair = tuple[np.ndarray, np.ndarray]

H = nets.WIDTHS[1]
B1 = slice(0, H)
W1 = slice(H, H + nets.FIRST)


def outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """a_i b_j of vectors [..., m] and [..., n]."""
  return a[..., :, None] * b[..., None, :]


def first_kernel(drawn: nets.Draw) -> np.ndarray:
  """W1 of every example's network, [draws, 1, h, d]."""
  return np.asarray(drawn.layers[0]['kernel'])[:, None]


def gradient_bound(w: np.ndarray, x: np.ndarray, norm: np.ndarray):
  """‖W1‖ ‖∇_W1‖_F / ‖x‖, which bounds ‖∇_x‖."""
  return spectral(w) * norm / np.linalg.norm(x, axis=-1)


def hessian_bound(w: np.ndarray, x: np.ndarray, norm: np.ndarray):
  """‖W1‖² ‖H_W1‖ / ‖x‖², which bounds ‖H_x‖ in the same norm."""
  return spectral(w) ** 2 * norm / np.sum(x**2, -1)


def bias_bound(w: np.ndarray, value: np.ndarray):
  """‖W1‖² λ⁺, which bounds input curvature by that of the first bias."""
  return spectral(w) ** 2 * np.maximum(value, 0)


def _gradients(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w, x, delta = first_kernel(drawn), drawn.x, facts.grad_z
  through = np.einsum('...hd,...h->...d', w, delta)
  return (
    columns(facts.grad[..., W1], facts.grad[..., B1], facts.grad_x),
    columns(outer(delta, x), delta, through),
  )


def _hessians(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w, h_z = first_kernel(drawn), facts.hess_z
  kernel = np.einsum('...ab,...i,...j->...aibj', h_z, drawn.x, drawn.x)
  return (
    columns(
      facts.hess[..., W1, W1], facts.hess[..., B1, B1], facts.hess_x
    ),
    columns(kernel, h_z, w.mT @ h_z @ w),
  )  # fmt: skip


def _gradient_bounds(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w, length = first_kernel(drawn), np.linalg.norm(facts.grad_x, axis=-1)
  norms = [np.linalg.norm(facts.grad[..., b], axis=-1) for b in (W1, B1)]
  by_kernel = gradient_bound(w, drawn.x, norms[0])
  return columns(length, length), columns(by_kernel, spectral(w) * norms[1])


def _hessian_bounds(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w, x = first_kernel(drawn), drawn.x
  kernel = facts.hess[..., W1, W1]
  size = spectral(facts.hess_x)
  return (
    columns(size, frobenius(facts.hess_x), size),
    columns(
      hessian_bound(w, x, spectral(kernel)),
      hessian_bound(w, x, frobenius(kernel)),
      bias_bound(w, spectral(facts.hess[..., B1, B1])),
    ),
  )


def _mean_identity(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w = first_kernel(drawn)[:, 0]
  block = facts.hess.mean(1)[:, B1, B1]
  return columns(facts.hess_x.mean(1)), columns(w.mT @ block @ w)


def _mean_bound(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w, whole = first_kernel(drawn)[:, 0], facts.hess.mean(1)
  near = bias_bound(w, top_of(whole[:, B1, B1]))
  far = bias_bound(w, top_of(whole))
  return columns(top_of(facts.hess_x.mean(1)), near), columns(near, far)


def _interlacing(rng: np.random.Generator) -> Pair:
  _, facts = nets.facts(rng)
  whole = facts.hess.mean(1)
  top, n = top_of(whole), W1.stop
  blocks = [top_of(whole[:, s, s]) for s in (B1, W1, slice(n), slice(n, None))]
  return columns(*blocks), columns(*[top] * len(blocks))


HERE = 'derived here, from the first layer of arXiv 2105.13462'
NET = (
  'dense first layer that shares no weights between pixels; random tanh '
  'networks 4-4-3-3, cross-entropy, float64'
)

CHECKS = named(
  Check(
    name='first_layer_gradient',
    statement='∇_W1 = δ xᵀ, ∇_b1 = δ, ∇_x = W1ᵀ δ, per example',
    source=HERE,
    assumptions=NET,
    sides=_gradients,
    relation='==',
  ),
  Check(
    name='first_layer_hessian',
    statement='H_W1 = H_z ⊗ x xᵀ, H_b1 = H_z, H_x = W1ᵀ H_z W1, per example',
    source=HERE,
    assumptions=NET,
    sides=_hessians,
    relation='==',
  ),
  Check(
    name='input_gradient_bound',
    statement='‖∇_x‖ <= ‖W1‖ ‖∇_W1‖_F / ‖x‖ and <= ‖W1‖ ‖∇_b1‖, per example',
    source=HERE,
    assumptions=NET,
    sides=_gradient_bounds,
  ),
  Check(
    name='input_hessian_bound',
    statement='‖H_x‖ <= ‖W1‖² ‖H_W1‖ / ‖x‖² (spectral and Frobenius) and '
    '<= ‖W1‖² ‖H_b1‖, per example',
    source=HERE,
    assumptions=NET + '; H may be indefinite',
    sides=_hessian_bounds,
  ),
  Check(
    name='mean_hessian_identity',
    statement='E_i H_x(x_i) = W1ᵀ H_b1 W1, with H_b1 of the mean loss',
    source=HERE,
    assumptions=NET,
    sides=_mean_identity,
    relation='==',
  ),
  Check(
    name='mean_hessian_bound',
    statement='λ(E_i H_x(x_i)) <= ‖W1‖² λ⁺(H_b1) <= ‖W1‖² λ⁺(H_θ)',
    source=HERE,
    assumptions=NET + '; says nothing about single examples, whose signs may '
    'cancel in the mean',
    sides=_mean_bound,
  ),
  Check(
    name='interlacing',
    statement='λ of a diagonal block of H_θ <= λ(H_θ)',
    source='Cauchy',
    assumptions=NET + '; blocks: b1, W1, both, all the rest',
    sides=_interlacing,
  ),
)
"""First-layer statements for weights that no two pixels share."""
