"""Statements of the theory on a trained network, and how tightly they hold.

The inequalities that a network has to obey whatever it is, and those that its
first layer earns it. Run in the precision of its parameters; the tolerance is
that of the arithmetic.
"""

import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature, errors, numerics
from implicit_attr.theory import (
  certificates,
  maps,
  softmax,
  table,
)
from implicit_attr.theory import (
  small_networks as nets,
)
from implicit_attr.theory.check import Check, columns, judge, spectral, top_of
from implicit_attr.theory.first_layer import bias_bound
from implicit_attr.theory.transfer import gauss_newton
from implicit_attr.types import ApplyFn, Array, Params

LARGEST = 1024
"""Pixels above which input Hessians would not be made dense."""
RADIUS = 0.03
NODES = 4
ORDER = 20
"""Lanczos products for the curvature in the parameters."""
ROWS = 512
"""Most attention rows that are looked at."""


def run_on(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  scale: float = 1.0,
  workdir: pathlib.Path | None = None,
) -> str:
  """The table of `run` for one network and a few examples.

  For every network: how a logit's Hessian and gradient add up to the loss's
  Hessian; the change of gradient and gradient × input along random directions
  of length 0.03; the top-k set (a tenth) under these. For a dense first layer
  ('first' with 'kernel' and 'bias'): mean and single input curvature against
  those of the first bias and of all parameters. For softmax rows in
  out['attention']: norm of the Jacobian, entropy floor, cap on margins.

  Args:
    apply_fn: twice differentiable for the Hessians to say anything.
    params: a tree; the first layer is known by its name.
    x: [B, ...] in pixel units; at most 1024 pixels. Costs a dense Hessian an
      example, so take a few.
    y: [B] int.
    scale: pixels -> first layer input, 1 / std of the standardisation.
    workdir: where theory_network.json is written.

  Raises:
    InputError: too many pixels; a folder that cannot be written.
  """
  pixels = int(np.prod(x.shape[1:]))
  errors.number('pixels', pixels, 1, LARGEST, integer=True)
  with numerics.exact():
    measured, attention = jax.device_get(
      jax.jit(_measure, static_argnums=0)(apply_fn, params, x, y)
    )
  # Sums of a few hundred products that cancel.
  tol = 1e4 * float(jnp.finfo(x.dtype).eps)
  rows = [*_of_any(measured), *_of_first(params, measured, scale)]
  rows += _of_rows(attention)
  judged = [
    (check, judge(lhs, rhs, check.relation, tol)) for check, lhs, rhs in rows
  ]
  if workdir is not None:
    table.write(workdir / 'theory_network.json', judged)
  return table.text(judged)


def _measure(apply_fn, params, x, y):
  """(derivatives of every example and of the mean loss, attention rows)."""
  size = x[0].size
  flat = x.reshape(len(x), size)
  logits = lambda z: apply_fn(params, z.reshape(x.shape))[0]
  logit = lambda z: jnp.take_along_axis(logits(z), y[:, None], 1)[:, 0]

  def losses(params: Params, z: Array) -> Array:
    f = apply_fn(params, z.reshape(x.shape))[0]
    return jax.vmap(nets.cross_entropy)(f, y)

  def dense(fun: Callable[[Array], Array], z: Array) -> Array:
    """Hessian of each example [B, n, n]; examples do not see each other."""
    _, mvp = curvature.per_example(fun, z)
    column = lambda e: mvp(jnp.broadcast_to(e[None], z.shape))
    return jax.lax.map(column, jnp.eye(size, dtype=z.dtype)).swapaxes(0, 1)

  slope = lambda fun: jax.grad(lambda z: jnp.sum(fun(z)))
  f, out = apply_fn(params, x)
  rows = [slope(lambda z, c=c: logits(z)[:, c]) for c in range(f.shape[1])]
  error = jax.nn.softmax(f) - jax.nn.one_hot(y, f.shape[1], dtype=f.dtype)
  d = jax.random.normal(jax.random.key(0), flat.shape, flat.dtype)
  d = RADIUS * d / jnp.linalg.norm(d, axis=1, keepdims=True)
  steps, shares = maps.nodes(NODES)
  along = jax.lax.map(
    lambda t: dense(logit, flat + t * d), jnp.asarray(steps, flat.dtype)
  )
  measured = {
    'x': flat, 'd': d, 'logits': f, 'shares': jnp.asarray(shares),
    'jac': jnp.stack([row(flat) for row in rows], 1),
    'hess': dense(lambda z: losses(params, z), flat),
    'bent': dense(lambda z: jnp.sum(error * logits(z), 1), flat),
    'along': along.swapaxes(0, 1),
    'g': slope(logit)(flat), 'moved': slope(logit)(flat + d),
    'grad': slope(lambda z: losses(params, z))(flat),
  }  # fmt: skip
  if _dense_first(params, size):
    measured |= _of_bias(lambda p: losses(p, flat), params)
  return measured, out.get('attention', ())


def _dense_first(params: Params, pixels: int) -> bool:
  first = params.get('first', {}) if isinstance(params, dict) else {}
  shapes = {name: jnp.shape(leaf) for name, leaf in first.items()}
  return 'bias' in shapes and shapes.get('kernel', ())[:-1] == (pixels,)


def _of_bias(losses: Callable[[Params], Array], params: Params) -> dict:
  """Curvature in the first bias and, started from there, in all parameters.

  Lanczos never falls below the quotient of its start, so what it finds is no
  less than the block's eigenvalue, converged or not.
  """
  bias = params['first']['bias']
  swap = lambda b: {**params, 'first': {**params['first'], 'bias': b}}
  _, block = nets.both(lambda b: jnp.mean(losses(swap(b))), bias)
  start = jax.tree.map(jnp.zeros_like, params)
  start['first'] = {**start['first'], 'bias': jnp.linalg.eigh(block)[1][:, -1]}
  mvp = curvature.linearize_hvp(lambda p: jnp.mean(losses(p)), params)
  order = min(ORDER, sum(leaf.size for leaf in jax.tree.leaves(params)))
  top = curvature.top_eigenpairs(mvp, start, order=order)[0][0]
  each = jax.jacrev(lambda b: losses(swap(b)))(bias)
  return {'block': block, 'top': top, 'each': each}


Side = tuple[Check, np.ndarray, np.ndarray]


def _of_any(measured: dict[str, np.ndarray]) -> list[Side]:
  x, d, g, moved = (measured[name] for name in ('x', 'd', 'g', 'moved'))
  split = gauss_newton(measured['jac'], measured['logits']) + measured['bent']
  # p is off by the precision, so errors are relative to ‖J‖² and not to what
  # is left of it where the network is sure.
  size = spectral(measured['jac']) ** 2
  curvatures = spectral(measured['along'])
  top, mean = curvatures.max(1), curvatures @ measured['shares']
  change = np.linalg.norm(moved - g, axis=1)
  phi, after = np.abs(g), np.abs(moved)
  k = max(1, phi.shape[1] // 10)
  ordered = -np.sort(-phi, 1)
  lost = (certificates.top_set(g, k) != certificates.top_set(moved, k)).any(1)
  gap = np.where(lost, ordered[:, k - 1] - ordered[:, k], 0)
  product = np.linalg.norm((x + d) * moved - x * g, axis=1)
  return [
    _side('input_hessian_split', columns(measured['hess'], size),
          columns(split, size)),
    _side('gradient_lipschitz', change, maps.gradient_bound(mean, d)),
    _side(
      'gradient_x_input_lipschitz', product,
      maps.gradient_x_input_bound(moved, x, top, d),
    ),
    _side('topk_gap', gap, maps.topk_gap(after - phi)),
  ]  # fmt: skip


def _of_first(
  params: Params, measured: dict[str, np.ndarray], scale: float
) -> list[Side]:
  if 'block' not in measured:
    return []
  w = scale * np.asarray(params['first']['kernel']).T
  near = bias_bound(w, top_of(measured['block']))
  far = bias_bound(w, measured['top'])
  mean = top_of(measured['hess'].mean(0))
  size = np.linalg.norm(measured['grad'], axis=1)
  slope = spectral(w) * np.linalg.norm(measured['each'], axis=1)
  through = measured['each'] @ w
  return [
    _side('first_layer_gradient', measured['grad'], through),
    _side('input_gradient_bound', size, slope),
    _side('mean_hessian_bound', np.array([mean, near]), np.array([near, far])),
  ]


def _of_rows(attention: Sequence[np.ndarray]) -> list[Side]:
  """Rows whose sum is 1; kernels without a normaliser have no such bounds."""
  p = [np.asarray(a, np.float64).reshape(-1, a.shape[-1]) for a in attention]
  if not p or any(np.abs(a.sum(1) - 1).max() > 1e-3 for a in p):
    return []
  p = np.concatenate(p)[:ROWS]
  z, tokens = (
    np.log(np.maximum(p / p.sum(1, keepdims=True), 1e-300)),
    p.shape[1],
  )
  norm = spectral(nets.jacobian_of_softmax(nets.softmax(z)))
  k = max(1, tokens // 10)
  ordered = -np.sort(-nets.softmax(z), 1)
  return [
    _side('softmax_jacobian_above', norm,
          np.min(softmax.jacobian_ceilings(z), 0)),
    _side('entropy_floor', softmax.entropy_floor(softmax.radius(z), tokens),
          softmax.entropy(z)),
    _side('topk_margin_ceiling', ordered[:, k - 1] - ordered[:, k],
          softmax.gap_ceiling(z, k)),
  ]  # fmt: skip


def _side(name: str, lhs: np.ndarray, rhs: np.ndarray) -> Side:
  return table.CHECKS[name], lhs, rhs
