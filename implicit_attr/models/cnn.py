"""SimpleCNN, the small convolutional network without normalisation."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from implicit_attr.models import initial
from implicit_attr.models.activations import activate
from implicit_attr.models.conv import Conv
from implicit_attr.models.inputs import Scale, standardise
from implicit_attr.types import Array

POOLS = {'max': jnp.maximum, 'avg': lambda a, b: 0.5 * (a + b)}
"""What becomes of two pixels; of four by pairs."""


def pooled(x: Array, pool: str) -> Array:
  """2x2 pixels as one: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

  An odd last row or column is pooled with itself. Equal pixels share the
  derivative of their maximum.
  """
  b, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode='edge')
  x = x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c)
  # By pairs, for x.max((2, 4)) took longer: 109 instead of 64 ms for a step of
  # PGD training (8 channels, 50 images, one busy core of an AMD EPYC).
  x = POOLS[pool](x[:, :, 0], x[:, :, 1])
  return POOLS[pool](x[:, :, :, 0], x[:, :, :, 1])


def head(
  x: Array, act: Callable[[Array], Array], hidden: int, num_classes: int
) -> Array:
  """Feature maps [B, h, w, D] -> logits, by layers of the calling module.

  `hidden` is the width of the dense layer before the logits; 0 leaves it out.
  """
  x = x.reshape(x.shape[0], -1)
  if hidden:
    x = nn.Dense(hidden, kernel_init=initial.scaled(2.0), name='hidden')(x)
    x = act(x)
  return nn.Dense(
    num_classes, kernel_init=initial.scaled(initial.SMALL), name='logits'
  )(x)


class SimpleCNN(nn.Module):
  """`depth` 3x3 convolutions of widths `width` 2^i, then a dense head.

  The first convolution works at full resolution; each later one at half that
  of the one before, by a stride of 2 or by averaging 2x2 pixels before it,
  so that both choices of `downsample` have the same shapes and parameters.
  `hidden` is the width of the dense layer before the logits; 0 leaves it out.
  """

  num_classes: int = 10
  activation: str = 'relu'
  beta: float = 10.0
  mean: Scale = 0.0
  std: Scale = 1.0
  width: int = 16
  depth: int = 3
  downsample: str = 'stride'
  hidden: int = 64

  init = initial.init

  @nn.compact
  def __call__(
    self, x: Array, train: bool = False, beta: float | Array | None = None
  ) -> tuple[Array, dict]:
    """x [B, H, W, C] in pixel units -> (logits [B, num_classes], out).

    out['features'] [B, h, w, D] is the last feature map, out['layers'] all of
    them in order. `beta` replaces the option of that name and may be traced.
    """
    del train  # nothing here behaves differently in training
    act = activate(self.activation, self.beta if beta is None else beta)
    x = standardise(x, self.mean, self.std)
    layers = []
    for i in range(self.depth):
      if i and self.downsample == 'avg_pool':
        x = pooled(x, 'avg')
      x = Conv(
        self.width * 2**i,
        stride=2 if i and self.downsample == 'stride' else 1,
        name=f'conv_{i}' if i else 'first',
      )(x)
      x = act(x)
      layers.append(x)
    logits = head(x, act, self.hidden, self.num_classes)
    return logits, {'features': layers[-1], 'layers': tuple(layers)}
