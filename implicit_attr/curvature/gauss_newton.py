"""Gauss–Newton and Fisher products, and what of the Hessian they leave out.

For loss(model(x)): H = G + R with G = J' (∇² loss) J, the Gauss–Newton part,
positive semi-definite for a convex loss, and R = Σ_k (∂loss/∂output_k)
∇² output_k, which carries the curvature of the network itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from implicit_attr import errors
from implicit_attr.curvature import products
from implicit_attr.curvature.flat import check_tree
from implicit_attr.types import Array, Mvp, Tree

Model = Callable[[Tree], Tree]
"""x -> outputs, any tree; for instance params -> logits [B, C]."""
OutputLoss = Callable[[Tree], Array]
"""outputs -> []."""


def gauss_newton(model: Model, loss: OutputLoss, x: Tree) -> Mvp:
  """v -> G v, linearised once.

  For the cross-entropy of logits G is also the Fisher information (Martens,
  arXiv 1412.1193, section 9). Right at any margin if `loss` is: write it with
  `losses.cross_entropy`, or see `fisher`.

  Raises:
    InputError: `loss` is not scalar; `x` is empty or has integer leaves.
  """
  check_tree('x', x)
  outputs, push = jax.linearize(model, x)
  pull = jax.linear_transpose(push, x)
  middle = products.linearize_hvp(loss, outputs)
  return lambda v: pull(middle(push(v)))[0]


def residual_part(model: Model, loss: OutputLoss, x: Tree) -> Mvp:
  """v -> R v, linearised once, without a difference of two products.

  R is the Hessian of <c, model(x)> with c = ∇loss(outputs) held fixed.

  Raises:
    InputError: as `gauss_newton`.
  """
  slope = jax.grad(loss)(model(x))
  held = lambda x: jnp.asarray(optax.tree.vdot(slope, model(x)))
  return products.linearize_hvp(held, x)


def split(model: Model, loss: OutputLoss, x: Tree) -> tuple[Mvp, Mvp]:
  """(v -> G v, v -> R v); their sum is the Hessian of loss(model(x)).

  Raises:
    InputError: as `gauss_newton`.
  """
  return gauss_newton(model, loss, x), residual_part(model, loss, x)


def fisher(logits_fn: Callable[[Tree], Array], x: Tree) -> Mvp:
  """v -> F v, the Fisher information of softmax(logits), mean over examples.

  F = 1/B Σ_b J_b' (diag p_b - p_b p_b') J_b: the expectation over labels drawn
  from the model itself, so no labels are needed.

  Args:
    logits_fn: x -> [B, C].

  Raises:
    InputError: as `gauss_newton`.
  """

  check_tree('x', x)
  logits, push = jax.linearize(logits_fn, x)
  pull = jax.linear_transpose(push, x)
  p, top = jax.nn.softmax(logits), jnp.argmax(logits, -1, keepdims=True)

  def mvp(v: Tree) -> Tree:
    # (diag p - p p') u does not change when u is shifted. From the likeliest
    # class's entry on, nothing is subtracted from 1 or from its own rounding.
    u = push(v)
    u = u - jnp.take_along_axis(u, top, -1)
    u = p * (u - jnp.sum(p * u, -1, keepdims=True))
    return pull(u / logits.shape[0])[0]

  return mvp


def empirical_fisher(losses_fn: Callable[[Tree], Array], x: Tree) -> Mvp:
  """v -> 1/B Σ_b g_b g_b' v with the gradients g_b of single losses.

  With the labels of the data it is the second moment of the gradient, not the
  Fisher information (Kunstner et al., arXiv 1905.12558).

  Args:
    losses_fn: x -> [B], the loss of each example.

  Raises:
    InputError: `losses_fn` does not return [B]; or as `gauss_newton`.
  """
  check_tree('x', x)
  losses, push = jax.linearize(losses_fn, x)
  errors.require('fun(x)', losses.shape, losses.ndim == 1, 'of shape [B]')
  pull = jax.linear_transpose(push, x)
  return lambda v: pull(push(v) / losses.shape[0])[0]
