"""MadryCNN, the network for MNIST of Madry et al. (arXiv 1706.06083)."""

from flax import linen as nn

from implicit_attr.models import initial
from implicit_attr.models.activations import activate
from implicit_attr.models.cnn import head, pooled
from implicit_attr.models.conv import Conv
from implicit_attr.models.inputs import Scale, standardise
from implicit_attr.types import Array


class MadryCNN(nn.Module):
  """Two 5x5 convolutions with a 2x2 pool after each, then a dense head.

  The network for MNIST of Madry et al. (arXiv 1706.06083) and of Chen et al.
  (arXiv 1905.09957): with the defaults, 32 and 64 channels, 1024 hidden units
  and 3,274,634 parameters on 28x28 pixels. Only the weights start otherwise
  than theirs, see `initial`.

  With 'relu' and 'max', as published, the logits are piecewise linear in x:
  second derivatives of the loss are those of the softmax alone. A smooth
  `activation` with 'avg' is smooth everywhere. Neither choice changes shapes
  or parameters. `hidden` = 0 leaves the dense layer before the logits out.
  """

  num_classes: int = 10
  activation: str = 'relu'
  beta: float = 10.0
  mean: Scale = 0.0
  std: Scale = 1.0
  width: int = 32
  hidden: int = 1024
  pool: str = 'max'

  init = initial.init

  @nn.compact
  def __call__(
    self, x: Array, train: bool = False, beta: float | Array | None = None
  ) -> tuple[Array, dict]:
    """x [B, H, W, C] in pixel units -> (logits [B, num_classes], out).

    out['layers'] are both feature maps after their pools, [B, H/2, W/2, width]
    and [B, H/4, W/4, 2 width], sizes rounded up; out['features'] the second.
    `beta` replaces the option of that name and may be traced.
    """
    del train  # nothing here behaves differently in training
    act = activate(self.activation, self.beta if beta is None else beta)
    x = standardise(x, self.mean, self.std)
    layers = []
    for i, name in enumerate(('first', 'conv_1')):
      x = Conv(self.width * 2**i, size=5, name=name)(x)
      x = pooled(act(x), self.pool)
      layers.append(x)
    logits = head(x, act, self.hidden, self.num_classes)
    return logits, {'features': layers[-1], 'layers': tuple(layers)}
