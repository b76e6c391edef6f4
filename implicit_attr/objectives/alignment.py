"""Local gradient alignment, ℓ2 + cosine (Joo et al., arXiv 2211.15900)."""

import jax

from implicit_attr.curvature.inputs import sum_pixels
from implicit_attr.losses import Loss
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, LossFn


def gradient_alignment(
  apply_fn: ApplyFn,
  loss: Loss,
  *,
  weight: float = 0.1,
  distance: float = 0.1,
  eps: float = 4 / 255,
) -> LossFn:
  """loss + weight · ((1 - cos(g, g')) / 2 + distance · ‖g - g'‖²).

  Local gradient alignment, ℓ2 + cosine, of Joo et al. (arXiv 2211.15900): g is
  the gradient of the label's logit at x and held fixed, g' the one at x + z
  with z uniform in ±eps. (0.1, 0.1) are their weights 0.1 and 0.01 for a
  ResNet-18 on CIFAR-10; LeNet has 1.0 and 0.01, which is (1.0, 0.01).

  Raises:
    InputError: a bad option.
  """
  validation.weight(weight)
  validation.share(distance=distance, eps=eps)

  def loss_fn(params, batch, key):
    x = batch['image']
    fun = derivatives.field(apply_fn, loss, params, batch['label'], 'logit')
    clean, (per_example, aux) = derivatives.slope(fun)(x)
    clean = jax.lax.stop_gradient(clean)
    noise = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
    near, _ = derivatives.slope(fun)(x + eps * noise)
    change = clean - near
    term = (1 - derivatives.cosine(clean, near)) / 2
    term = term + distance * sum_pixels(change * change)
    return per_example + weight * term, aux

  return loss_fn
