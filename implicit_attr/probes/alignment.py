"""Alignment of input and parameter curvature through the first layer."""

import jax
import jax.numpy as jnp

from implicit_attr import curvature
from implicit_attr.probes.input import Product
from implicit_attr.types import Array, Batch, Params


def alignment(
  product: Product,
  params: Params,
  batch: Batch,
  key: Array,
  *,
  lambda_max: Array,
  scale: float,
  order: int,
  tol: Array | float,
) -> dict[str, Array]:
  """λ_max of the mean input Hessian beside ‖W1‖² λ_max in the parameters.

  For a first layer z = W1 x + b1 that shares no weights between pixels (a
  dense one; a patch embedding with learned positions), the Hessian of the mean
  loss in b1 is a block of that in θ, and E_i H_x(x_i) = W1' H_b1 W1, so

      λ_max(E_i H_x(x_i)) <= ‖W1‖² max(0, λ_max(H_θ)).

  Convolutions share a bias between pixels: there the right side is a scale to
  compare with and no bound. Derived here from the identities of Ma & Ying
  (arXiv 2105.13462).

  Args:
    product: with the input Hessians of the loss, from `input_curvature`.
    lambda_max: of the Hessian of the mean loss over the same `batch`.
    scale: pixels -> first layer input; 1 / std of the standardisation.
    order, tol: of the Lanczos run for the left side.

  Returns:
    'align/mean_input_lambda' (left), 'align/w1_sq_lambda' (right), per pixel
    unit squared, and 'align/slack', right minus left.
  """
  x = batch['image']

  def mean_product(v: Array) -> Array:
    return jnp.mean(product(jnp.broadcast_to(v, x.shape)), axis=0)

  start = jax.random.normal(key, x.shape[1:], x.dtype)
  values, _, _ = curvature.top_eigenpairs(
    mean_product, start, order=order, tol=tol
  )
  kernel = params['first']['kernel']
  w1 = jnp.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), ord=2)
  bound = jnp.square(scale * w1) * jnp.maximum(lambda_max, 0)
  return {
    'align/mean_input_lambda': values[0],
    'align/w1_sq_lambda': bound,
    'align/slack': bound - values[0],
  }
