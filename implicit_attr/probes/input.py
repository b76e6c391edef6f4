"""How curved is the network in its input, for each example, here and now?"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import attribution, curvature
from implicit_attr.losses import Loss
from implicit_attr.types import ApplyFn, Array, Batch, Params


def gradient_norms(
  apply_fn: ApplyFn, loss: Loss, params: Params, batch: Batch
) -> dict[str, Array]:
  """'input/grad_norm' and 'input_loss/grad_norm' alone, [n] each."""
  found = {}
  for name, fun in _targets(apply_fn, loss, params, batch).items():
    grad = jax.grad(lambda x, fun=fun: jnp.sum(fun(x)))(batch['image'])
    found[f'{name}/grad_norm'] = curvature.gradient_norms(grad)
  return found


def _targets(
  apply_fn: ApplyFn, loss: Loss, params: Params, batch: Batch
) -> dict[str, Callable[[Array], Array]]:
  """x -> [n] of the logit of the label ('input') and of the loss."""
  y = batch['label']
  return {
    'input': lambda x: attribution.target('logit', apply_fn(params, x)[0], y),
    'input_loss': lambda x: loss(apply_fn(params, x)[0], y),
  }


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
  x = batch['image']
  start = jax.random.normal(key, x.shape, x.dtype)
  found = {}
  for name, fun in _targets(apply_fn, loss, params, batch).items():
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
