"""Networks as people bring them: public architectures, written anew here.

Those of flax's examples and tutorials (linen and nnx), of the ViT and Mixer
repository in linen, and of equinox's documentation. Haiku ships its own. Sizes
are fields, so that tests can take small ones.
"""

import itertools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx


class LinenCNN(nn.Module):
  """Two convolutions with average pooling, as in flax's MNIST example."""

  classes: int = 10
  widths: Sequence[int] = (32, 64, 256)

  @nn.compact
  def __call__(self, x):
    *features, width = self.widths
    for n in features:
      x = nn.relu(nn.Conv(n, (3, 3))(x))
      x = nn.avg_pool(x, (2, 2), (2, 2))
    x = nn.relu(nn.Dense(width)(x.reshape(len(x), -1)))
    return nn.Dense(self.classes)(x)


class LinenResNet(nn.Module):
  """ResNet v1.5 with batch norm, as in flax's ImageNet example.

  Blocks have a bottleneck; (3, 4, 6, 3) of them are ResNet-50.
  """

  blocks: Sequence[int] = (3, 4, 6, 3)
  classes: int = 1000
  width: int = 64

  @nn.compact
  def __call__(self, x, train=False):
    norm = lambda: nn.BatchNorm(use_running_average=not train)
    conv = lambda n, size, stride=1: nn.Conv(
      n, (size, size), (stride, stride), use_bias=False
    )
    x = nn.relu(norm()(conv(self.width, 7, 2)(x)))
    x = nn.max_pool(x, (3, 3), (2, 2), 'SAME')
    for i, count in enumerate(self.blocks):
      n = self.width * 2**i
      for j in range(count):
        stride = 2 if i and not j else 1
        y = nn.relu(norm()(conv(n, 1)(x)))
        y = nn.relu(norm()(conv(n, 3, stride)(y)))
        y = norm()(conv(4 * n, 1)(y))
        if x.shape != y.shape:
          x = norm()(conv(4 * n, 1, stride)(x))
        x = nn.relu(x + y)
    return nn.Dense(self.classes)(x.mean((1, 2)))


class LinenViT(nn.Module):
  """Vision transformer with a class token, pre-norm, gelu and dropout."""

  classes: int = 10
  patch: int = 4
  width: int = 16
  depth: int = 2
  heads: int = 2

  @nn.compact
  def __call__(self, x, train=False):
    size, still = (self.patch, self.patch), not train
    x = nn.Conv(self.width, size, size)(x).reshape(len(x), -1, self.width)
    token = self.param('cls', nn.initializers.zeros, (1, 1, self.width))
    x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], 1)
    place = nn.initializers.normal(0.02)
    x = x + self.param('position', place, (1, *x.shape[1:]))
    for _ in range(self.depth):
      y = nn.LayerNorm()(x)
      y = nn.MultiHeadDotProductAttention(self.heads)(y, y)
      x = x + nn.Dropout(0.1, deterministic=still)(y)
      y = nn.gelu(nn.Dense(2 * self.width)(nn.LayerNorm()(x)))
      x = x + nn.Dropout(0.1, deterministic=still)(nn.Dense(self.width)(y))
    return nn.Dense(self.classes)(nn.LayerNorm()(x)[:, 0])


class LinenMixer(nn.Module):
  """MLP-Mixer: perceptrons over patches, then over channels."""

  classes: int = 10
  patch: int = 4
  width: int = 16
  depth: int = 2

  @nn.compact
  def __call__(self, x):
    size = (self.patch, self.patch)
    x = nn.Conv(self.width, size, size)(x).reshape(len(x), -1, self.width)
    mlp = lambda y: nn.Dense(y.shape[-1])(nn.gelu(nn.Dense(32)(y)))
    for _ in range(self.depth):
      x = x + mlp(nn.LayerNorm()(x).swapaxes(1, 2)).swapaxes(1, 2)
      x = x + mlp(nn.LayerNorm()(x))
    return nn.Dense(self.classes)(nn.LayerNorm()(x).mean(1))


class NnxCNN(nnx.Module):
  """Two convolutions, batch norm and dropout, as in flax's nnx tutorial."""

  def __init__(self, rngs, size=28, widths=(32, 64, 256), classes=10):
    a, b, c = widths
    self.conv1 = nnx.Conv(1, a, (3, 3), rngs=rngs)
    self.norm1 = nnx.BatchNorm(a, rngs=rngs)
    self.conv2 = nnx.Conv(a, b, (3, 3), rngs=rngs)
    self.norm2 = nnx.BatchNorm(b, rngs=rngs)
    self.dropout = nnx.Dropout(0.025, rngs=rngs)
    self.dense1 = nnx.Linear((size // 4) ** 2 * b, c, rngs=rngs)
    self.dense2 = nnx.Linear(c, classes, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm1(self.dropout(self.conv1(x))))
    x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
    x = nnx.relu(self.norm2(self.conv2(x)))
    x = nnx.avg_pool(x, (2, 2), strides=(2, 2)).reshape(len(x), -1)
    return self.dense2(self.dropout(nnx.relu(self.dense1(x))))


class NnxBlock(nnx.Module):
  """A basic block of a ResNet: two 3 x 3 convolutions and a shortcut."""

  def __init__(self, n, m, rngs):
    conv = lambda n, m, size, stride: nnx.Conv(
      n, m, (size, size), strides=stride, use_bias=False, rngs=rngs
    )
    stride = 1 if n == m else 2
    self.conv1, self.conv2 = conv(n, m, 3, stride), conv(m, m, 3, 1)
    self.norm1, self.norm2 = (nnx.BatchNorm(m, rngs=rngs) for _ in '12')
    self.short = conv(n, m, 1, stride)

  def __call__(self, x):
    y = nnx.relu(self.norm1(self.conv1(x)))
    return nnx.relu(self.short(x) + self.norm2(self.conv2(y)))


def nnx_resnet(rngs, widths=(8, 8, 16), classes=10):
  """A ResNet of basic blocks with batch norm."""
  blocks = [NnxBlock(n, m, rngs) for n, m in itertools.pairwise(widths)]
  return nnx.Sequential(
    nnx.Conv(3, widths[0], (3, 3), rngs=rngs), *blocks,
    lambda x: x.mean((1, 2)), nnx.Linear(widths[-1], classes, rngs=rngs),
  )  # fmt: skip


class EqxCNN(eqx.Module):
  """One convolution with max-pooling, as in equinox's MNIST example."""

  layers: list

  def __init__(self, key, size=28, widths=(3, 512, 64), classes=10):
    k1, k2, k3, k4 = jax.random.split(key, 4)
    a, b, c = widths
    flat = a * (size - 4) ** 2
    self.layers = [
      eqx.nn.Conv2d(1, a, 4, key=k1), eqx.nn.MaxPool2d(2), jax.nn.relu,
      jnp.ravel, eqx.nn.Linear(flat, b, key=k2), jax.nn.sigmoid,
      eqx.nn.Linear(b, c, key=k3), jax.nn.relu,
      eqx.nn.Linear(c, classes, key=k4), jax.nn.log_softmax,
    ]  # fmt: skip

  def __call__(self, x):
    for layer in self.layers:
      x = layer(x)
    return x


class EqxNormed(eqx.Module):
  """A convolution with batch norm, whose statistics are equinox's state."""

  conv: eqx.nn.Conv2d
  norm: eqx.nn.BatchNorm
  dropout: eqx.nn.Dropout
  head: eqx.nn.Linear

  def __init__(self, key, width=8, classes=10):
    k1, k2 = jax.random.split(key)
    self.conv = eqx.nn.Conv2d(3, width, 3, 2, key=k1)
    self.norm = eqx.nn.BatchNorm(width, 'batch', mode='batch')
    self.dropout = eqx.nn.Dropout(0.2)
    self.head = eqx.nn.Linear(width, classes, key=k2)

  def __call__(self, x, state, key=None):
    x, state = self.norm(self.conv(x), state)
    x = self.dropout(jax.nn.relu(x).mean((1, 2)), key=key)
    return self.head(x), state


class EqxBlock(eqx.Module):
  """A block of a vision transformer."""

  norm1: eqx.nn.LayerNorm
  norm2: eqx.nn.LayerNorm
  attention: eqx.nn.MultiheadAttention
  mlp: eqx.nn.MLP

  def __init__(self, width, heads, key):
    k1, k2 = jax.random.split(key)
    self.norm1, self.norm2 = (eqx.nn.LayerNorm(width) for _ in '12')
    self.attention = eqx.nn.MultiheadAttention(heads, width, key=k1)
    self.mlp = eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=k2)

  def __call__(self, x):
    y = jax.vmap(self.norm1)(x)
    x = x + self.attention(y, y, y)
    return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))


class EqxViT(eqx.Module):
  """Vision transformer, as in equinox's documentation; mean over tokens."""

  patches: eqx.nn.Conv2d
  position: jax.Array
  blocks: list
  head: eqx.nn.Linear

  def __init__(self, key, tokens, width=16, depth=2, heads=2, classes=10):
    k1, k2, k3, *rest = jax.random.split(key, 3 + depth)
    self.patches = eqx.nn.Conv2d(3, width, 4, 4, key=k1)
    self.position = 0.02 * jax.random.normal(k2, (tokens, width))
    self.blocks = [EqxBlock(width, heads, k) for k in rest]
    self.head = eqx.nn.Linear(width, classes, key=k3)

  def __call__(self, x):
    x = self.patches(x)
    x = x.reshape(len(x), -1).T + self.position
    for block in self.blocks:
      x = block(x)
    return self.head(x.mean(0))
