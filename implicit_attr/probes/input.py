"""How curved is the network in its input, for each example, here and now?"""

import jax
import jax.numpy as jnp

from implicit_attr import attribution, curvature
from implicit_attr.losses import Loss
from implicit_attr.types import ApplyFn, Array, Batch, Params


def input_curvature(
  apply_fn: ApplyFn,
  loss: Loss,
  params: Params,
  batch: Batch,
  key: Array,
  *,
  order: int,
  tol: Array | float,
) -> dict[str, Array]:
  """Gradient norm, Hessian norm and their ratio, for target logit and loss.

  Args:
    order: at most this many Lanczos steps, all examples side by side.
    tol: residual, relative to the eigenvalue, at which they stop.

  Returns:
    [n] arrays under 'input/…' (the logit of the label) and 'input_loss/…':
    'grad_norm' ‖∇_x‖₂ per pixel unit; 'lambda_max', the spectral norm of the
    input Hessian per pixel unit squared, and 'lambda_signed', that eigenvalue
    with its sign; 'normalized_curvature', the ratio ‖H_x‖ / ‖∇_x‖ (Srinivas et
    al., arXiv 2206.07144), which is what a cosine between maps sees. A
    piecewise linear network has no logit curvature: 0.
  """
  x, y = batch['image'], batch['label']

  def logit(x: Array) -> Array:
    return attribution.target('logit', apply_fn(params, x)[0], y)

  def example_loss(x: Array) -> Array:
    return loss(apply_fn(params, x)[0], y)

  start = jax.random.normal(key, x.shape, x.dtype)
  found = {}
  for name, fun in (('input', logit), ('input_loss', example_loss)):
    gradients, mvp = curvature.per_example(fun, x)
    pairs = curvature.per_example_eigenpairs(mvp, start, order=order, tol=tol)
    found |= {
      f'{name}/grad_norm': curvature.gradient_norms(gradients),
      f'{name}/lambda_max': jnp.abs(pairs.values),
      f'{name}/lambda_signed': pairs.values,
      f'{name}/normalized_curvature': curvature.normalized_curvature(
        pairs.values, gradients
      ),
    }
  return found
