"""Certified radius of the top-k set of an MLP's gradient map.

The curvature of the network is bounded by norms of its layers, once and for
all inputs. Other certificates are in `certificates`.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.theory.certificates import checked, pair_radius
from implicit_attr.types import ApplyFn, Array, Params

SLOPES = {
  'tanh': (1.0, 4 / (3 * math.sqrt(3))),
  'softplus': (1.0, 0.25),
  'centred_softplus': (1.0, 0.25),
  'gelu': (1.1290, math.sqrt(2 / math.pi)),
}
"""(sup |σ'|, sup |σ''|) with β = 1; σ'' of both softplus scales with β. gelu:
σ'(√2) = Φ(√2) + √2 φ(√2), rounded up, and |σ''| = |2 - x²| φ(x) <= 2 φ(0)."""


def mlp_radius(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  k: int,
  *,
  layers: Sequence[tuple[Array, Array]],
  activation: str,
  beta: float = 1.0,
  mean: float = 0.0,
  std: float = 1.0,
  norm: str = 'l2',
) -> np.ndarray:
  """A radius for the gradient of logit y of a network of dense layers.

  ∇_x f = W1ᵀ u(z) with z = W1 x + b1, and u has a Lipschitz constant M that
  the norms of the later layers bound (`tail_constant`). So φ_i ± φ_j changes
  by at most ‖W1 (e_i ± e_j)‖ M ‖W1 δ‖. Sound for any distance and any input;
  small, as products of norms are. Derived here.

  Args:
    apply_fn, params: the network; compared with `layers` at `x`.
    x: [B, ...] in pixel units.
    y: [B] int.
    layers: (kernel [in, out], bias [out]) of every dense layer, in order,
      the logits last.
    activation: between the layers, one of `SLOPES`.
    beta: of the softplus functions.
    mean, std: the network standardises its input by, one number each.
    norm: of δ; 'l2' or 'linf'.

  Returns:
    [B], in pixel units.

  Raises:
    InputError: an activation without bounded derivatives (relu); layers that
      are not those of `apply_fn`; fewer than two of them; as `affine_radius`.
  """
  errors.choose('activation', activation, SLOPES)
  errors.require('layers', len(layers), len(layers) >= 2, 'at least two')
  _same_network(apply_fn, params, x, layers, activation, beta, mean, std)

  def total(x: Array) -> Array:
    return jnp.sum(jnp.take_along_axis(apply_fn(params, x)[0], y[:, None], 1))

  phi = np.asarray(jax.grad(total)(x), np.float64).reshape(len(x), -1)
  phi = checked(phi, k, norm)
  kernels = [np.asarray(kernel, np.float64) for kernel, _ in layers]
  first = kernels[0] / std
  # How far W1 δ can go: the spectral norm, or rows of signs.
  reach = np.linalg.norm(first, 2)
  if norm == 'linf':
    reach = min(reach * math.sqrt(len(first)),
                np.linalg.norm(np.abs(first).sum(0)))  # fmt: skip
  bend = np.array([
    tail_constant(kernels[1:-1], kernels[-1][:, c], activation, beta)
    for c in range(kernels[-1].shape[1])
  ])[np.asarray(y)]  # fmt: skip
  pairs = lambda b, i, j, sign: np.linalg.norm(
    first[i] + sign * first[j], axis=-1
  )
  return pair_radius(phi, k, lambda *at: pairs(*at) * reach * bend[at[0]])


def tail_constant(
  kernels: Sequence[np.ndarray], read: np.ndarray, activation: str, beta: float
) -> float:
  """Lipschitz constant of z -> ∇_z f for f = read · σ(W_L … σ(W_2 σ(z))).

  The Hessian is a sum over layers, Σ_l J_lᵀ diag(σ''(z_l) u_l) J_l, with
  J_l = ∂z_l/∂z of norm at most Π s ‖W_m‖ and u_l = ∂f/∂h_l no larger in any
  entry than ‖column of W_l+1‖ Π … ‖read‖; s = sup |σ'|.

  Args:
    kernels: of the layers between, [in, out].
    read: [width of the last layer].
  """
  slope, bend = SLOPES[activation]
  bend = bend * beta if activation.endswith('softplus') else bend
  total, below = 0.0, 1.0
  for i in range(len(kernels) + 1):
    above = np.abs(read).max()
    if i < len(kernels):
      norms = [np.linalg.norm(w, 2) for w in kernels[i + 1 :]]
      rows = np.linalg.norm(kernels[i], axis=1).max()
      above = rows * np.prod(norms) * slope ** (len(norms) + 1)
      above = above * np.linalg.norm(read)
    total += below**2 * bend * above
    if i < len(kernels):
      below *= slope * np.linalg.norm(kernels[i], 2)
  return float(total)


def _same_network(
  apply_fn, params, x, layers, activation, beta, mean, std
) -> None:
  """Raises InputError unless `layers` give the logits of `apply_fn` at x."""
  acts = {
    'tanh': np.tanh,
    'softplus': lambda z: np.logaddexp(0, beta * z) / beta,
    'centred_softplus': lambda z: (
      np.logaddexp(0, beta * z) - math.log(2)
    ) / beta,
    'gelu': lambda z: z * np.vectorize(math.erf)(z / 2**0.5) / 2 + z / 2,
  }  # fmt: skip
  h = (np.asarray(x, np.float64).reshape(len(x), -1) - mean) / std
  for i, (kernel, bias) in enumerate(layers):
    h = acts[activation](h) if i else h
    fits = np.ndim(kernel) == 2 and np.shape(kernel)[0] == h.shape[1]
    allowed = f'a dense layer of {h.shape[1]} inputs'
    errors.require(f'layers[{i}]', np.shape(kernel), fits, allowed)
    h = h @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)
  f = np.asarray(apply_fn(params, x)[0], np.float64)
  error = float(np.max(np.abs(f - h)) / np.max(np.abs(f)))
  errors.require(
    'layers', f'logits off by {error:.1g}', error < 1e-3,
    'the dense layers of apply_fn, with its activation and its mean and std',
  )  # fmt: skip
