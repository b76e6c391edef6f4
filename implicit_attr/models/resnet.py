"""Residual networks (He et al., arXiv 1512.03385), with and without norms.

Basic blocks (He et al., arXiv 1512.03385) with the CIFAR stem: one 3x3
convolution, no pooling. Without a norm, the last convolution of each block
starts smaller by 1 / sqrt(number of blocks), so that depth does not raise the
scale of the sum (in the spirit of Zhang et al., arXiv 1901.09321).
"""

from flax import linen as nn

from implicit_attr.models import initial
from implicit_attr.models.activations import activate
from implicit_attr.models.conv import Conv
from implicit_attr.models.inputs import Scale, standardise
from implicit_attr.models.stochastic_depth import stay
from implicit_attr.types import Array

STAGES = {
  'resnet8': (1, 1, 1),
  'resnet18': (2, 2, 2, 2),
  'resnet34': (3, 4, 6, 3),
}
WIDTHS = {'resnet8': 16, 'resnet18': 64, 'resnet34': 64}
NORMS = ('none', 'group', 'batch')


class Norm(nn.Module):
  """none, group (of at most 8 groups) or batch normalisation of channels."""

  kind: str
  train: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.kind == 'batch':
      return nn.BatchNorm(
        use_running_average=not self.train, momentum=0.9, name='batch'
      )(x)
    if self.kind == 'group':
      groups = max(g for g in range(1, 9) if x.shape[-1] % g == 0)
      return nn.GroupNorm(num_groups=groups, epsilon=1e-5, name='group')(x)
    return x


class ResNet(nn.Module):
  """Stages of basic blocks; each stage after the first halves and doubles.

  `norm` batch keeps its statistics in the collection 'batch_stats', which
  changes only with `train=True`; with none and group, examples do not see
  each other.
  """

  stages: tuple[int, ...] = (1, 1, 1)
  num_classes: int = 10
  activation: str = 'relu'
  beta: float = 10.0
  mean: Scale = 0.0
  std: Scale = 1.0
  width: int = 16
  norm: str = 'none'
  stochastic_depth: float = 0.0

  init = initial.init

  @nn.compact
  def __call__(
    self, x: Array, train: bool = False, beta: float | Array | None = None
  ) -> tuple[Array, dict]:
    """x [B, H, W, C] in pixel units -> (logits [B, num_classes], out).

    out['features'] [B, h, w, D] is the last feature map, out['layers'] the
    map after each stage. `beta` replaces the option and may be traced.
    """
    act = activate(self.activation, self.beta if beta is None else beta)
    bare = self.norm == 'none'
    depth = sum(self.stages)
    branch_gain = 2.0 / depth if bare else 2.0

    def conv(features, name, size=3, stride=1, gain=2.0):
      return Conv(features, size, stride, bare, gain, name=name)

    def norm(x, name):
      return x if bare else Norm(self.norm, train, name=name)(x)

    x = standardise(x, self.mean, self.std)
    x = act(norm(conv(self.width, 'first')(x), 'first_norm'))
    layers = []
    for i, blocks in enumerate(self.stages):
      width = self.width * 2**i
      for j in range(blocks):
        name = f'stage_{i}_block_{j}'
        stride = 2 if i and not j else 1
        y = conv(width, f'{name}_conv_0', stride=stride)(x)
        y = act(norm(y, f'{name}_norm_0'))
        y = conv(width, f'{name}_conv_1', gain=branch_gain)(y)
        y = norm(y, f'{name}_norm_1')
        block = sum(self.stages[:i]) + j
        y = stay(self, y, self.stochastic_depth if train else 0.0, block, depth)
        if x.shape != y.shape:
          x = conv(width, f'{name}_skip', size=1, stride=stride, gain=1.0)(x)
          x = norm(x, f'{name}_skip_norm')
        x = act(x + y)
      layers.append(x)
    logits = nn.Dense(
      self.num_classes, kernel_init=initial.scaled(initial.SMALL), name='logits'
    )(x.mean((1, 2)))
    return logits, {'features': x, 'layers': tuple(layers)}
