"""How strongly do the logits of an example move with its pixels?

With few classes the exact answers are cheap: C backward passes give the Gram
matrix J J' [C, C] of every example, and every singular value follows from it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array


def jacobian_gram(fun: Callable[[Array], Array], x: Array) -> Array:
  """J_b J_b' of x -> outputs for every example, [B, C, C], exact.

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
  return jnp.einsum('cbn,dbn->bcd', rows, rows, precision='highest')


def jacobian_norms(gram: Array) -> tuple[Array, Array]:
  """(operator norm [B], Frobenius norm [B]) of J from `jacobian_gram`."""
  largest = jnp.linalg.eigvalsh(gram)[:, -1]
  square = jnp.trace(gram, axis1=1, axis2=2)
  return jnp.sqrt(jnp.maximum(largest, 0)), jnp.sqrt(square)


def gauss_newton_eigenvalues(gram: Array, logits: Array) -> Array:
  """λ_max and trace of the Gauss–Newton part of the input Hessian, [B, 2].

  Of the cross-entropy: J' (diag p - p p') J, exact through its C x C twin
  A' J J' A with A A' = diag p - p p'; the whole Hessian if the network is
  piecewise linear (Wang et al., arXiv 2006.06643). Independent of the label.

  Args:
    gram: [B, C, C] of x -> logits.
    logits: [B, C].
  """
  p = jax.nn.softmax(logits)
  root = jnp.sqrt(p)
  # A = diag(√p) - p √p': A A' = diag p - p p', as √p has length 1.
  factor = jax.vmap(jnp.diag)(root) - p[:, :, None] * root[:, None, :]
  twin = jnp.einsum(
    'bki,bkl,blj->bij', factor, gram, factor, precision='highest'
  )
  values = jnp.linalg.eigvalsh((twin + twin.mT) / 2)
  return jnp.stack([values[:, -1], jnp.sum(values, -1)], -1)
