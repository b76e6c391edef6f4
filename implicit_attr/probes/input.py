"""Input curvature of logit and loss for each example, and gradient norms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import attribution, curvature
from implicit_attr.losses import Loss
from implicit_attr.types import ApplyFn, Array, Batch, Params

Product = Callable[[Array], Array]
"""v [n, ...] -> [n, ...], the Hessian of each example's loss in its pixels."""


def gradient_norms(
  apply_fn: ApplyFn, loss: Loss, params: Params, batch: Batch
) -> dict[str, Array]:
  """'input/grad_norm' and 'input_loss/grad_norm' alone, [n] each.

  The loss is differentiated in the mean, as in `parameter_curvature`: beside
  that, XLA does one forward and one backward pass for both. The logit is that
  of the predicted class, as in `input_curvature`.
  """
  y = batch['label']
  logits, back = jax.vjp(lambda x: apply_fn(params, x)[0], batch['image'])

  def norms(fun: Callable[[Array], Array]) -> Array:
    return curvature.gradient_norms(back(jax.grad(fun)(logits))[0])

  of_mean = norms(lambda z: jnp.mean(loss(z, y)))
  return {
    'input/grad_norm': norms(lambda z: _predicted(z).sum()),
    'input_loss/grad_norm': len(y) * of_mean,
  }


def _predicted(logits: Array) -> Array:
  """The logit that an attribution map explains: of the predicted class; [n]."""
  return attribution.target('logit', logits, jnp.argmax(logits, axis=-1))


def _both(
  apply_fn: ApplyFn, loss: Loss, params: Params, batch: Batch
) -> tuple[Callable[[Array], Array], Array]:
  """(x [2n, ...] -> [2n], the examples twice): predicted logit, then loss.

  One function of a batch that holds every example twice, so that one
  linearisation and one search serve both targets: half as much to compile.
  """
  y = batch['label']

  def fun(x: Array) -> Array:
    first, second = jnp.split(apply_fn(params, x)[0], 2)
    return jnp.concatenate([_predicted(first), loss(second, y)])

  return fun, jnp.concatenate([batch['image'], batch['image']])


def input_curvature(
  apply_fn: ApplyFn,
  loss: Loss,
  params: Params,
  batch: Batch,
  key: Array,
  *,
  order: int,
  tol: Array | float,
) -> tuple[dict[str, Array], Product]:
  """Gradient norm, Hessian norm and their ratio, for target logit and loss.

  Args:
    order: at most this many Lanczos steps, all examples side by side.
    tol: residual, relative to the eigenvalue, at which they stop.

  Returns:
    [n] arrays under 'input/…' (the logit of the predicted class, which is
    what a map explains) and 'input_loss/…' (the loss of the label):
    'grad_norm' ‖∇_x‖₂ per pixel unit; 'lambda_max', the spectral norm of the
    input Hessian per pixel unit squared, and 'lambda_signed', that eigenvalue
    with its sign; 'normalized_curvature', the ratio ‖H_x‖ / ‖∇_x‖ (Srinivas et
    al., arXiv 2206.07144), which is what a cosine between maps sees. A
    piecewise linear network has no logit curvature: 0. And the product with
    the input Hessians of the loss, for whoever needs it at the same examples.
  """
  fun, twice = _both(apply_fn, loss, params, batch)
  gradients, mvp = curvature.per_example(fun, twice)
  n = len(batch['label'])
  start = jax.random.normal(key, batch['image'].shape, twice.dtype)
  pairs = curvature.per_example_eigenpairs(
    mvp, jnp.concatenate([start, start]), order=order, tol=tol
  )
  ratio = curvature.normalized_curvature(pairs.values, gradients)
  norms = curvature.gradient_norms(gradients)
  measured = {}
  for name, part in (('input', slice(n)), ('input_loss', slice(n, None))):
    measured |= {
      f'{name}/grad_norm': norms[part],
      f'{name}/lambda_max': jnp.abs(pairs.values[part]),
      f'{name}/lambda_signed': pairs.values[part],
      f'{name}/normalized_curvature': ratio[part],
    }
  return measured, lambda v: mvp(jnp.concatenate([v, v]))[n:]
