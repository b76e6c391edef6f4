"""MLP, the multilayer perceptron."""

from flax import linen as nn

from implicit_attr.models import initial
from implicit_attr.models.activations import activate
from implicit_attr.models.inputs import Scale, standardise
from implicit_attr.types import Array


class MLP(nn.Module):
  """Dense layers of `widths` on the flattened image, then the logits.

  `gain` multiplies the standard deviation that all weights start with.
  """

  num_classes: int = 10
  activation: str = 'relu'
  beta: float = 10.0
  mean: Scale = 0.0
  std: Scale = 1.0
  widths: tuple[int, ...] = (128, 128)
  gain: float = 1.0

  init = initial.init

  @nn.compact
  def __call__(
    self, x: Array, train: bool = False, beta: float | Array | None = None
  ) -> tuple[Array, dict]:
    """x [B, ...] in pixel units -> (logits [B, C], out).

    out['features'] [B, widths[-1]], out['layers'] the hidden layers in order.
    `beta` replaces the option of that name and may be traced.
    """
    del train  # nothing here behaves differently in training
    act = activate(self.activation, self.beta if beta is None else beta)
    x = standardise(x, self.mean, self.std)
    x = x.reshape(x.shape[0], -1)
    scaled = lambda variance: initial.scaled(self.gain**2 * variance)
    layers = []
    for i, width in enumerate(self.widths):
      x = nn.Dense(
        width,
        kernel_init=scaled(2.0),
        name=f'dense_{i}' if i else 'first',
      )(x)
      x = act(x)
      layers.append(x)
    logits = nn.Dense(
      self.num_classes, kernel_init=scaled(initial.SMALL), name='logits'
    )(x)
    return logits, {'features': x, 'layers': tuple(layers)}
