"""Jacobians of logits in the pixels of each example, by their Gram matrices.

With few classes the exact answers are cheap: C backward passes give the Gram
matrix J J' [C, C] of every example, and every singular value follows from it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors, numerics
from implicit_attr.types import Array


class Gram(NamedTuple):
  """J_b J_b' = scale_b² matrix_b, kept apart so that nothing underflows."""

  matrix: Array  # [B, C, C]
  scale: Array  # [B], powers of two


def jacobian_gram(fun: Callable[[Array], Array], x: Array) -> Gram:
  """J_b J_b' of x -> outputs for every example, exact.

  C backward passes through one linearisation; keeps C gradients [B, ...] in
  memory.

  Args:
    fun: x [B, ...] -> [B, C], examples independent.

  Raises:
    InputError: `fun` does not return [B, C].
  """
  outputs, pull = jax.vjp(fun, x)
  errors.require(
    'fun(x)',
    outputs.shape,
    outputs.ndim == 2 and outputs.shape[0] == x.shape[0],
    'of shape [B, C], one row per example',
  )

  def row(one_hot: Array) -> Array:
    (gradient,) = pull(jnp.broadcast_to(one_hot[None], outputs.shape))
    return gradient.reshape(x.shape[0], -1)

  rows = jax.lax.map(row, jnp.eye(outputs.shape[1], dtype=outputs.dtype))
  scale = numerics.power_of_two(rows, (0, 2))
  rows = rows / scale
  gram = jnp.einsum('cbn,dbn->bcd', rows, rows, precision='highest')
  return Gram(gram, scale[0, :, 0])


def jacobian_norms(gram: Gram) -> tuple[Array, Array]:
  """(operator norm [B], Frobenius norm [B]) of J from `jacobian_gram`."""
  largest = jnp.linalg.eigvalsh(gram.matrix)[:, -1]
  square = jnp.trace(gram.matrix, axis1=1, axis2=2)
  root = lambda a: gram.scale * jnp.sqrt(jnp.maximum(a, 0))
  return root(largest), root(square)


def gauss_newton_eigenvalues(gram: Gram, logits: Array) -> Array:
  """λ_max and trace of the Gauss–Newton part of the input Hessian, [B, 2].

  Of the cross-entropy: J' (diag p - p p') J, exact through its C x C twin
  A' J J' A with A A' = diag p - p p'; the whole Hessian if the network is
  piecewise linear (Wang et al., arXiv 2006.06643). Independent of the label.

  Args:
    gram: of x -> logits.
    logits: [B, C].
  """
  p = jax.nn.softmax(logits)
  root = jnp.sqrt(p)
  # A = diag(√p) - p √p': A A' = diag p - p p', as √p has length 1. Its
  # diagonal is √p_i (1 - p_i), where 1 - p_i is the sum of the others.
  eye = jnp.eye(p.shape[-1], dtype=bool)[None]
  rest = jnp.sum(jnp.where(eye, 0, p[:, None, :]), axis=-1)
  off = -p[:, :, None] * root[:, None, :]
  factor = jnp.where(eye, (root * rest)[:, :, None], off)
  twin = jnp.einsum(
    'bki,bkl,blj->bij', factor, gram.matrix, factor, precision='highest'
  )
  values = jnp.linalg.eigvalsh((twin + twin.mT) / 2)
  both = jnp.stack([values[:, -1], jnp.sum(values, -1)], -1)
  return both * jnp.square(gram.scale)[:, None]
