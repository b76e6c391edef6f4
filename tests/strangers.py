"""Networks as other people write them, for tests: of linen and nnx.

Forms that are met in public: a residual network of batch norm with its layers
handed in by `partial`, dropout told by an argument or by a field, no mode at
all, logits alone or beside a dict.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from flax import nnx


class Block(nn.Module):
  features: int
  conv: Callable
  norm: Callable
  strides: int = 1

  @nn.compact
  def __call__(self, x):
    strides = (self.strides, self.strides)
    y = nn.relu(self.norm()(self.conv(self.features, (3, 3), strides)(x)))
    y = self.norm()(self.conv(self.features, (3, 3))(y))
    if x.shape != y.shape:
      x = self.norm()(self.conv(self.features, (1, 1), strides)(x))
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Batch norm told by `train`, which has no default, and dropout."""

  stages: tuple[int, ...]
  num_classes: int
  width: int = 8

  @nn.compact
  def __call__(self, x, train: bool):
    conv = functools.partial(nn.Conv, use_bias=False)
    norm = functools.partial(
      nn.BatchNorm, use_running_average=not train, momentum=0.9
    )
    x = nn.relu(norm()(conv(self.width, (3, 3))(x)))
    for i, blocks in enumerate(self.stages):
      for j in range(blocks):
        strides = 2 if i and not j else 1
        x = Block(self.width * 2**i, conv, norm, strides)(x)
    x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
    return nn.Dense(self.num_classes)(x)


ResNet5 = functools.partial(ResNet, stages=(1, 1))


class Deterministic(nn.Module):
  """Told by `deterministic`; the number of classes has a name of its own."""

  n_out: int = 10

  @nn.compact
  def __call__(self, x, deterministic=True):
    x = nn.tanh(nn.Dense(8, name='first')(x.reshape(len(x), -1)))
    self.sow('intermediates', 'hidden', x)
    x = nn.Dropout(0.5)(x, deterministic=deterministic)
    return nn.Dense(self.n_out)(x), {'features': x}


class Field(nn.Module):
  """Told by a field."""

  num_classes: int = 10
  training: bool = False

  @nn.compact
  def __call__(self, x):
    x = nn.BatchNorm(use_running_average=not self.training)(x)
    x = nn.Dropout(0.5, deterministic=not self.training)(x)
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Plain(nn.Module):
  """Told nothing."""

  num_classes: int = 10

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_classes)(nn.gelu(x.reshape(len(x), -1)))


class NnxCNN(nnx.Module):
  """Batch norm, dropout, more than ten layers in a list, a counter."""

  def __init__(self, width: int, num_classes: int, *, rngs: nnx.Rngs):
    self.stem = nnx.Conv(1, width, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(width, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.blocks = nnx.List(
      [nnx.Linear(width, width, rngs=rngs) for _ in range(12)]
    )
    self.calls = nnx.Variable(jnp.zeros((), jnp.int32))
    self.head = nnx.Linear(width, num_classes, rngs=rngs)

  def __call__(self, x):
    self.calls[...] += 1
    x = nnx.relu(self.norm(self.stem(x)))
    x = self.drop(x.mean((1, 2)))
    for block in self.blocks:
      x = x + nnx.relu(block(x))
    return self.head(x)


def no_network(width=3):
  return width


def broken(num_classes):
  raise RuntimeError('a shape\nof no use')


class Headless(nn.Module):
  """Gives features, not logits."""

  @nn.compact
  def __call__(self, x):
    return nn.Conv(4, (3, 3))(x)


class Weightless(nn.Module):
  num_classes: int = 10

  @nn.compact
  def __call__(self, x):
    return jnp.zeros((len(x), self.num_classes)) + x.mean((1, 2))
