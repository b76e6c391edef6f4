"""Mixup: mixed images, mixed losses (Zhang et al., arXiv 1710.09412)."""

import jax

from implicit_attr.losses import Loss
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, LossFn


def mixup(apply_fn: ApplyFn, loss: Loss, *, weight: float = 1.0) -> LossFn:
  """t ℓ(f(z), y) + (1 - t) ℓ(f(z), y') at z = t x + (1 - t) x'.

  Of a batch's examples x and a random order x' of them, with one t ~ Beta(α, α)
  for all. The weight is α; 1 is theirs for CIFAR-10. With parallel='pmap' each
  device mixes its own examples.

  aux is of the mixed images, its logits too.

  Raises:
    InputError: a negative weight.
  """
  validation.weight(weight)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    draw, order = jax.random.split(key)
    t = jax.random.beta(draw, weight, weight, dtype=x.dtype)
    other = jax.random.permutation(order, len(x))
    logits, out = apply_fn(params, t * x + (1 - t) * x[other])
    mixed = t * loss(logits, y) + (1 - t) * loss(logits, y[other])
    return mixed, {**out, 'logits': logits}

  return loss_fn
