"""How sharp is the loss as the optimiser sees it, and how sharp may it be?

An optimiser that scales its step by P⁻¹ follows the curvature P^-1/2 H P^-1/2,
which has the eigenvalues of P⁻¹ H.
"""

import jax
import jax.numpy as jnp
import optax

from implicit_attr.types import Array, Mvp, Tree


def precondition(mvp: Mvp, diagonal: Tree) -> Mvp:
  """v -> P^-1/2 A P^-1/2 v, symmetric, for P = diag(`diagonal`) > 0.

  An eigenvector u of it stands for the eigenvector P^-1/2 u of P⁻¹ A.
  """
  root = jax.tree.map(lambda d: jax.lax.rsqrt(d), diagonal)

  def scaled(v: Tree) -> Tree:
    return optax.tree.mul(root, mvp(optax.tree.mul(root, v)))

  return scaled


def adam_diagonal(
  nu: Tree,
  count: Array | int,
  *,
  b1: Array | float = 0.9,
  b2: Array | float = 0.999,
  eps: Array | float = 1e-8,
) -> Tree:
  """Adam's preconditioner P after `count` >= 1 steps.

  P = (1 - b1^t) (sqrt(ν / (1 - b2^t)) + eps), the bias correction of the
  first moment counted in: Cohen et al., arXiv 2207.14484, section 2.

  Args:
    nu: the running mean of squared gradients, as in optax's `ScaleByAdamState`.
    count: t, as in the same state.
  """
  first, second = 1 - b1**count, 1 - b2**count
  return jax.tree.map(lambda leaf: first * (jnp.sqrt(leaf / second) + eps), nu)


def momentum_threshold(
  lr: Array | float, momentum: Array | float = 0.0
) -> Array | float:
  """2 (1 + β) / η: the sharpness at which heavy-ball descent turns unstable.

  For the form m <- β m + g, θ <- θ - η m, optax's `sgd(lr, momentum)`; 2 / η
  without momentum. Polyak (1964); Cohen et al., arXiv 2103.00065, section 2.
  """
  return 2 * (1 + momentum) / lr


def adam_threshold(lr: Array | float, b1: Array | float = 0.9) -> Array | float:
  """2 (1 + b1) / ((1 - b1) η): the same for Adam's *preconditioned* sharpness.

  38 / η at b1 = 0.9: Adam averages gradients, m <- b1 m + (1 - b1) g (Cohen et
  al., arXiv 2207.14484, section 3).
  """
  return 2 * (1 + b1) / ((1 - b1) * lr)


def alignment(grad: Tree, vectors: Tree) -> Array:
  """Share of ‖grad‖² that lies along each vector, [k]; 0 for a zero gradient.

  Args:
    vectors: leaves [k, ...], orthonormal, as `eigenpairs` returns them; then
      the shares add up to at most 1.
  """
  dots = jax.vmap(lambda v: optax.tree.vdot(grad, v))(vectors)
  square = optax.tree.vdot(grad, grad)
  return dots**2 / jnp.where(square > 0, square, 1)
