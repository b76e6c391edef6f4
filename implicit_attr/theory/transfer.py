"""Transfer of parameter to input curvature by traces, logits and kinds of loss.

P parameters θ, n examples, K logits f; G the Gauss–Newton part of a Hessian.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from implicit_attr.theory import small_networks as nets
from implicit_attr.theory.check import (
  Check,
  columns,
  named,
  spectral,
  top_of,
  trace_of,
)
from implicit_attr.theory.first_layer import NET, W1, first_kernel
from implicit_attr.types import Array

Pair = tuple[np.ndarray, np.ndarray]


def gauss_newton(jacobian: np.ndarray, f: np.ndarray) -> np.ndarray:
  """Jᵀ (diag p - p pᵀ) J for J [..., K, m] and logits f [..., K]."""
  middle = nets.jacobian_of_softmax(nets.softmax(f))
  return jacobian.mT @ middle @ jacobian


def trace_bound(w: np.ndarray, x: np.ndarray, trace: np.ndarray) -> np.ndarray:
  """‖W1‖² / min ‖x‖² times a parameter trace; w [draws, h, d]."""
  return spectral(w) ** 2 * trace / np.sum(x**2, -1).min(1)


def _traces(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w = first_kernel(drawn)[:, 0]
  of_x = trace_of(gauss_newton(facts.jac_x, facts.logits)).mean(1)
  g = gauss_newton(facts.jac, facts.logits).mean(1)
  near = trace_bound(w, drawn.x, trace_of(g[:, W1, W1]))
  return columns(of_x, near), columns(
    near, trace_bound(w, drawn.x, trace_of(g))
  )


def _worst_example(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  w, n = first_kernel(drawn)[:, 0], nets.EXAMPLES
  of_x = spectral(gauss_newton(facts.jac_x, facts.logits)).max(1)
  g = gauss_newton(facts.jac, facts.logits).mean(1)
  return of_x, n * trace_bound(w, drawn.x, top_of(g))


def _input_split(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  error = nets.softmax(facts.logits) - np.eye(nets.CLASSES)[drawn.y]
  rest = np.einsum('...k,...kij->...ij', error, facts.logit_hess_x)
  whole = gauss_newton(facts.jac_x, facts.logits) + rest
  return columns(facts.hess_x), columns(whole)


def _transfer(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  inputs, slopes = jax.device_get(_layers(drawn.layers, drawn.x))
  total = np.zeros(facts.grad_x.shape[:2])
  for layer, h, slope in zip(drawn.layers, inputs, slopes, strict=True):
    norm = spectral(np.asarray(layer['kernel']))[:, None] * spectral(slope)
    total = total + (1 + np.sum(h**2, -1)) / norm**2
  left = np.sum(facts.jac_x**2, -1) * total[..., None]
  return columns(left), columns(np.sum(facts.jac**2, -1))


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0))
@functools.partial(jax.vmap, in_axes=(None, 0))
def _layers(layers: nets.Layers, x: Array) -> tuple[list, list]:
  """What each layer takes in, and its Jacobian in x."""
  of = functools.partial(nets.hidden, layers)
  return of(x), jax.jacfwd(of)(x)


def _interpolating(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  hessian = jax.device_get(_squared(drawn.layers, drawn.x, facts.logits))
  return trace_of(hessian), np.sum(facts.jac**2, (-2, -1)).mean(1)


def _interpolating_bound(rng: np.random.Generator) -> Pair:
  drawn, facts = nets.facts(rng)
  hessian = jax.device_get(_squared(drawn.layers, drawn.x, facts.logits))
  left = np.sum(facts.jac_x**2, (-2, -1)).mean(1)
  w = first_kernel(drawn)[:, 0]
  near = trace_bound(w, drawn.x, trace_of(hessian[:, W1, W1]))
  return columns(left, near), columns(
    near, trace_bound(w, drawn.x, trace_of(hessian))
  )


@jax.jit
@jax.vmap
def _squared(layers: nets.Layers, x: Array, labels: Array) -> Array:
  """H_θ of E_i ½‖f(x_i) - label_i‖², by automatic differentiation."""
  flat, unravel = ravel_pytree(layers)

  def loss(flat: Array) -> Array:
    f = jax.vmap(nets.logits, (None, 0))(unravel(flat), x)
    return jnp.mean(0.5 * jnp.sum((f - labels) ** 2, -1))

  return nets.both(loss, flat)[1]


def _piecewise(rng: np.random.Generator) -> Pair:
  drawn = nets.draw(rng, n=1)
  # Small logits: where p is nearly one-hot the two sides cancel.
  drawn.layers[-1].update({k: 0.3 * v for k, v in drawn.layers[-1].items()})
  f, jacobian, of_logits, of_loss = jax.device_get(
    _rectified(drawn.layers, drawn.x[:, 0], drawn.y[:, 0])
  )
  zero = np.zeros_like(of_logits)
  return columns(of_loss, of_logits), columns(gauss_newton(jacobian, f), zero)


@jax.jit
@jax.vmap
def _rectified(layers: nets.Layers, x: Array, y: Array):
  """Of a relu net: f, Jacobian, Hessians of f · weights and of the loss."""
  of = lambda x: nets.logits(layers, x, jax.nn.relu)
  weights = jnp.arange(1.0, nets.CLASSES + 1, dtype=x.dtype)
  _, of_logits = nets.both(lambda x: jnp.vdot(weights, of(x)), x)
  _, of_loss = nets.both(lambda x: nets.cross_entropy(of(x), y), x)
  return of(x), jax.jacrev(of)(x), of_logits, of_loss


SCALES = (1.0, 3.0, 10.0, 30.0)


def _scaled(facts: nets.Facts, right: np.ndarray, c: float) -> np.ndarray:
  """‖H_x‖ of the loss when all logits are multiplied by c."""
  error = nets.softmax(c * facts.logits) - np.eye(nets.CLASSES)[right]
  bent = np.einsum('...k,...kij->...ij', error, c * facts.logit_hess_x)
  return spectral(gauss_newton(c * facts.jac_x, c * facts.logits) + bent)


def saturation_bound(
  c: float, margin: np.ndarray, slope: np.ndarray, bend: np.ndarray
) -> np.ndarray:
  """2 (K - 1) exp(-c margin) (c² ‖J‖² + c max_k ‖∇² f_k‖).

  At margin m > 0 the wrong classes share at most (K - 1) exp(-c m), and both
  ‖diag p - p pᵀ‖ and Σ |p - label| are at most twice that share.
  """
  share = (nets.CLASSES - 1) * np.exp(-c * margin)
  return 2 * share * (c**2 * slope**2 + c * bend)


def _saturating(rng: np.random.Generator) -> Pair:
  """Labels are what the network says, so every margin is positive."""
  _, facts = nets.facts(rng)
  ordered = np.sort(facts.logits, -1)
  margin, right = ordered[..., -1] - ordered[..., -2], facts.logits.argmax(-1)
  slope, bend = spectral(facts.jac_x), spectral(facts.logit_hess_x).max(-1)
  return (
    columns(*[_scaled(facts, right, c) for c in SCALES]),
    columns(*[saturation_bound(c, margin, slope, bend) for c in SCALES]),
  )


CHECKS = named(
  Check(
    name='trace_bound',
    statement='E_i Tr G_x(x_i) <= ‖W1‖² / min ‖x‖² Tr G_W1 <= the same of G_θ',
    source='derived here; compare arXiv 2301.12309',
    assumptions=NET + '; G is positive semi-definite, H is not',
    sides=_traces,
  ),
  Check(
    name='worst_example_bound',
    statement='max_i ‖G_x(x_i)‖ <= n ‖W1‖² / min ‖x‖² λ(G_θ)',
    source='derived here',
    assumptions=NET + '; loses the factor n',
    sides=_worst_example,
  ),
  Check(
    name='transfer_bound',
    statement='‖∇_x f_k‖² Σ_l (1 + ‖h_l-1‖²) / (‖W_l‖² ‖∂h_l-1/∂x‖²) '
    '<= ‖∇_θ f_k‖²',
    source='the form of arXiv 2209.13083, derived again here',
    assumptions=NET + '; every layer has a bias',
    sides=_transfer,
  ),
  Check(
    name='interpolation_identity',
    statement='Tr H_θ = E_i ‖∂f(x_i)/∂θ‖_F² where squared error is zero',
    source='arXiv 2105.13462',
    assumptions=NET.replace('cross-entropy', 'squared error')
    + '; labels equal the logits',
    sides=_interpolating,
    relation='==',
  ),
  Check(
    name='interpolation_bound',
    statement='E_i ‖∂f/∂x‖_F² <= ‖W1‖² / min ‖x‖² Tr H_W1 <= the same of H_θ',
    source='the form of arXiv 2105.13462 and 2301.12309, derived again here',
    assumptions=NET.replace('cross-entropy', 'squared error')
    + '; labels equal the logits',
    sides=_interpolating_bound,
  ),
  Check(
    name='input_hessian_split',
    statement='H_x of the loss = Jᵀ (diag p - p pᵀ) J '
    '+ Σ_k (p_k - y_k) ∇²_x f_k',
    source='chain rule',
    assumptions=NET,
    sides=_input_split,
    relation='==',
  ),
  Check(
    name='piecewise_linear_hessian',
    statement='relu: H_x of the loss = Jᵀ (diag p - p pᵀ) J, and ∇²_x f = 0',
    source='arXiv 2006.06643',
    assumptions='almost everywhere; random relu networks 4-4-3-3',
    sides=_piecewise,
    relation='==',
  ),
  Check(
    name='saturated_loss_curvature',
    statement='logits c f with margin c m: ‖H_x‖ of the loss '
    '<= 2 (K - 1) exp(-c m) (c² ‖J‖² + c max_k ‖∇² f_k‖), while '
    '‖∇²(c f)‖ grows like c',
    source='derived here',
    assumptions=NET + '; rightly classified; c = 1, 3, 10, 30',
    sides=_saturating,
  ),
)
"""From parameter to input curvature beyond the first layer's Hessian."""
