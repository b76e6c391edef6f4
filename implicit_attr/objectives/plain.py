"""Plain training: the loss, and nothing beside it."""

from implicit_attr.losses import Loss
from implicit_attr.types import ApplyFn, LossFn


def plain(apply_fn: ApplyFn, loss: Loss) -> LossFn:
  """loss_fn without any regulariser: the implicit route."""

  def loss_fn(params, batch, key):
    logits, out = apply_fn(params, batch['image'])
    return loss(logits, batch['label']), {**out, 'logits': logits}

  return loss_fn
