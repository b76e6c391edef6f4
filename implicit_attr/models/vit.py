"""What is the vision transformer whose attention kernel is a choice?

Pre-LN (arXiv 2010.11929), learned positions, without dropout. Every kernel uses
the same projections, so a trained network can be read with another kernel at
the same weights: `module.clone(attention='linear')`.
"""

import jax.numpy as jnp
from flax import linen as nn

from implicit_attr import errors
from implicit_attr.models import initial
from implicit_attr.models.activations import activate
from implicit_attr.models.attention import attend
from implicit_attr.models.inputs import Scale, standardise
from implicit_attr.types import Array

READOUTS = ('cls', 'mean')
SIZES: dict[str, dict[str, int]] = {
  'digits': {'patch': 2, 'width': 64, 'depth': 2, 'heads': 4, 'mlp_ratio': 2},
  'cifar': {'patch': 4, 'width': 192, 'depth': 12, 'heads': 3, 'mlp_ratio': 4},
  'ti': {'patch': 16, 'width': 192, 'depth': 12, 'heads': 3, 'mlp_ratio': 4},
  's': {'patch': 16, 'width': 384, 'depth': 12, 'heads': 6, 'mlp_ratio': 4},
  'b': {'patch': 16, 'width': 768, 'depth': 12, 'heads': 12, 'mlp_ratio': 4},
}
"""Named sizes: 8x8 digits, 32x32 images, and Ti, S, B for 224 pixels."""


class ViT(nn.Module):
  """Patches, `depth` blocks of attention and MLP, and a linear read-out."""

  num_classes: int = 10
  activation: str = 'gelu'
  beta: float = 10.0
  mean: Scale = 0.0
  std: Scale = 1.0
  patch: int = 2
  width: int = 64
  depth: int = 2
  heads: int = 4
  mlp_ratio: int = 2
  readout: str = 'cls'
  attention: str = 'softmax'
  qk_norm: bool = False
  temperature: float = 1.0

  init = initial.init

  @nn.compact
  def __call__(
    self, x: Array, train: bool = False, beta: float | Array | None = None
  ) -> tuple[Array, dict]:
    """x [B, H, W, C] in pixel units -> (logits [B, num_classes], out).

    out['features'] [B, L, D]: the tokens after the last layer norm, the class
    token first if there is one. out['attention']: for each block the weights
    [B, heads, L, L], at least float32. out['layers']: the tokens after each
    block. `beta` replaces the option of that name and may be traced.

    Raises:
      InputError: if the patch does not divide the image.
    """
    del train  # nothing here behaves differently in training
    act = activate(self.activation, self.beta if beta is None else beta)
    x = standardise(x, self.mean, self.std)
    x, grid = patches(x, self.patch)
    x = _dense(self.width, 1.0, 'first')(x)
    # Of length 1: a layer norm of much shorter tokens would be all curvature.
    token_init = initial.normal(self.width**-0.5)
    if self.readout == 'cls':
      token = self.param('cls', token_init, (1, 1, self.width)).astype(x.dtype)
      token = jnp.broadcast_to(token, (x.shape[0], 1, self.width))
      x = jnp.concatenate([token, x], 1)
    x = x + jnp.broadcast_to(
      self.param('positions', token_init, (1, *x.shape[1:])).astype(x.dtype),
      x.shape,
    )
    attention, layers = [], []
    for i in range(self.depth):
      y = nn.LayerNorm(epsilon=1e-6, name=f'block_{i}_norm_0')(x)
      y, a = self._attend(y, grid, f'block_{i}')
      x = x + y
      y = nn.LayerNorm(epsilon=1e-6, name=f'block_{i}_norm_1')(x)
      y = _dense(self.width * self.mlp_ratio, 2.0, f'block_{i}_mlp_0')(y)
      x = x + _dense(self.width, 1.0, f'block_{i}_mlp_1')(act(y))
      attention.append(a)
      layers.append(x)
    x = nn.LayerNorm(epsilon=1e-6, name='norm')(x)
    read = x[:, 0] if self.readout == 'cls' else x.mean(1)
    logits = _dense(self.num_classes, initial.SMALL, 'logits')(read)
    return logits, {
      'features': x,
      'attention': tuple(attention),
      'layers': tuple(layers),
    }

  def _attend(
    self, x: Array, grid: tuple[int, int], name: str
  ) -> tuple[Array, Array]:
    """Multi-head attention over x [B, L, D], with the weights."""
    heads = (*x.shape[:2], self.heads, self.width // self.heads)
    q, k, v = (
      _dense(self.width, 1.0, f'{name}_{n}')(x).reshape(heads)
      for n in ('query', 'key', 'value')
    )
    if self.qk_norm:
      q, k = _unit(q), _unit(k)
    o, a = attend(
      self.attention,
      q / self.temperature,
      k,
      v,
      grid=grid,
      return_weights=True,
    )
    return _dense(self.width, 1.0, f'{name}_out')(o.reshape(x.shape)), a


def patches(x: Array, size: int) -> tuple[Array, tuple[int, int]]:
  """x [B, H, W, C] -> patches [B, L, size size C] in row order, (rows, cols).

  Raises:
    InputError: if `size` does not divide H and W.
  """
  b, h, w, c = x.shape
  errors.require(
    'model.patch', size, h % size == w % size == 0, f'a divisor of {h} and {w}'
  )
  x = x.reshape(b, h // size, size, w // size, size, c)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, -1, size * size * c), (h // size, w // size)


def _dense(features: int, gain: float, name: str) -> nn.Dense:
  return nn.Dense(features, kernel_init=initial.scaled(gain), name=name)


def _unit(x: Array) -> Array:
  """x with a root mean square of 1 over the last axis."""
  return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)
