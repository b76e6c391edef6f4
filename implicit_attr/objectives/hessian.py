"""Input-Hessian penalty, ‖H‖_F² (Dombrowski et al., arXiv 2012.10425)."""

import jax
import jax.numpy as jnp

from implicit_attr.curvature.inputs import sum_pixels
from implicit_attr.losses import Loss
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import second_order, validation
from implicit_attr.types import ApplyFn, LossFn


def hessian_penalty(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 1e-3,
  target: str = 'logit',
  draws: int = 1,
  hvp: str = 'exact',
  h: float = 0.01,
) -> LossFn:
  """loss + weight · mean over draws of ‖H v‖², v ~ N(0, I).

  An unbiased estimate of ‖H‖_F², the squared Frobenius norm of the Hessian in
  x: Dombrowski et al. (arXiv 2012.10425). One draw of the label's logit and
  1e-3 are the settings of Joo et al. (arXiv 2211.15900) for LeNet; they take
  1e-4 for a ResNet-18.

  Args:
    target: one of `input_derivatives.SCALARS`.
    draws: products an example; memory grows with them.
    hvp: 'exact', or 'fd' with noise of standard deviation `h`, in pixel units.

  Raises:
    InputError: a bad option; where the loss is traced, a piecewise linear
      network with hvp='exact' and target 'logit' or 'margin', whose Hessian
      is zero.
  """
  validation.weight(weight)
  validation.choose(derivatives.SCALARS, target=target)
  validation.count(draws=draws)
  validation.product(hvp, h)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    if hvp == 'exact' and target in ('logit', 'margin'):
      what = "hessian_penalty of a logit with hvp='exact'; or take hvp='fd'"
      second_order.require(apply_fn, params, x, what)
    fun = derivatives.field(apply_fn, loss, params, y, target)

    _, product, (per_example, aux) = derivatives.products(fun, x, hvp=hvp, h=h)
    v = jax.random.normal(key, (draws, *x.shape), x.dtype)
    square = jax.vmap(lambda v: sum_pixels(jnp.square(product(v))))(v)
    return per_example + weight * jnp.mean(square, 0), aux

  return loss_fn
