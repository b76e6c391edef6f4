"""Vision transformer (arXiv 2010.11929) whose attention kernel is a choice.

Pre-LN (arXiv 2010.11929), learned positions, without dropout. Every kernel uses
the same projections, so a trained network can be read with another kernel at
the same weights: `interventions.swap_kernel(module, 'linear')`.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from implicit_attr import errors
from implicit_attr.models import initial
from implicit_attr.models.activations import activate
from implicit_attr.models.attention import KERNELS, attend
from implicit_attr.models.features import feature_pair
from implicit_attr.models.inputs import Scale, standardise
from implicit_attr.models.stochastic_depth import stay
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
  """Patches, `depth` blocks of attention and MLP, and a linear read-out.

  layer_scale: where above 0, each branch is multiplied by a learned vector that
  starts there (arXiv 2103.17239, eq. 4). stochastic_depth: the rate at which
  training leaves out the branches of the last block, per example; that of
  block l of n is l / n of it, and what stays is divided by the chance to stay
  (arXiv 1603.09382, eq. 4). It draws from the stream 'dropout'.
  """

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
  layer_scale: float = 0.0
  stochastic_depth: float = 0.0

  init = initial.init

  @nn.compact
  def __call__(
    self, x: Array, train: bool = False, beta: float | Array | None = None
  ) -> tuple[Array, dict]:
    """x [B, H, W, C] in pixel units -> (logits [B, num_classes], out).

    out['features'] [B, L, D]: the tokens after the last layer norm, the class
    token first if there is one; out['tokens']: those that the first block gets.
    All else has one entry for each block: out['layers'], the tokens after it;
    out['preactivations'] and ['activations'] of its MLP; and, save in training,
    where nothing reads it and it is not made, what `_attend` tells. `beta`
    replaces the option of that name and may be traced.

    Raises:
      InputError: if the patch does not divide the image.
    """
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
    blocks, tokens = [], x
    for i in range(self.depth):
      name = f'block_{i}'
      y = nn.LayerNorm(epsilon=1e-6, name=f'{name}_norm_0')(x)
      y, seen = self._attend(y, grid, name, train)
      x = x + self._stay(y, i, train)
      y = nn.LayerNorm(epsilon=1e-6, name=f'{name}_norm_1')(x)
      before = _dense(self.width * self.mlp_ratio, 2.0, f'{name}_mlp_0')(y)
      after = act(before)
      y = _dense(self.width, 1.0, f'{name}_mlp_1')(after)
      scale = self._scale(f'{name}_scale_1')
      x = x + self._stay(y if scale is None else y * scale, i, train)
      seen |= {'layers': x, 'preactivations': before, 'activations': after}
      blocks.append(seen)
    x = nn.LayerNorm(epsilon=1e-6, name='norm')(x)
    read = x[:, 0] if self.readout == 'cls' else x.mean(1)
    logits = _dense(self.num_classes, initial.SMALL, 'logits')(read)
    out = {key: tuple(b[key] for b in blocks) for key in blocks[0]}
    return logits, {'features': x, 'tokens': tokens} | out

  def _attend(
    self, x: Array, grid: tuple[int, int], name: str, train: bool
  ) -> tuple[Array, dict[str, Any]]:
    """Multi-head attention over x [B, L, D], and what is to be seen of it.

    'queries', 'keys' (as the kernel gets them), 'values' and 'mixed', what the
    kernel makes of them, [B, L, H, Dh]; 'attention', the weights, and 'scores',
    see `scores`, [B, H, L, L], at least float32; 'projections' [H, Dh, D], what
    takes a head's share of 'mixed' to the tokens; for kernels with features
    'factors', see `factors`.
    """
    heads = (*x.shape[:2], self.heads, self.width // self.heads)
    q, k, v = (
      _dense(self.width, 1.0, f'{name}_{n}')(x).reshape(heads)
      for n in ('query', 'key', 'value')
    )
    if self.qk_norm:
      q, k = _unit(q), _unit(k)
    q = q / self.temperature
    dense = _dense(self.width, 1.0, f'{name}_out')
    scale = self._scale(f'{name}_scale_0')
    if train:
      y = dense(attend(self.attention, q, k, v, grid=grid).reshape(x.shape))
      return y if scale is None else y * scale, {}
    o, a = attend(self.attention, q, k, v, grid=grid, return_weights=True)
    y = dense(o.reshape(x.shape))
    projection = dense.variables['params']['kernel'].reshape(*heads[2:], -1)
    if scale is not None:
      y, projection = y * scale, projection * scale
    seen = {
      'queries': q, 'keys': k, 'values': v, 'mixed': o, 'attention': a,
      'scores': scores(self.attention, q, k, a, grid),
      'projections': projection,
    }  # fmt: skip
    made_of = factors(self.attention, q, k, grid)
    return y, seen if made_of is None else seen | {'factors': made_of}

  def _scale(self, name: str) -> Array | None:
    """LayerScale's vector [1, 1, D], if there is one."""
    if not self.layer_scale:
      return None
    start = nn.initializers.constant(self.layer_scale)
    return self.param(name, start, (self.width,), jnp.float32)[None, None]

  def _stay(self, y: Array, block: int, train: bool) -> Array:
    """The branch y [B, L, D], or nothing of it for some examples."""
    most = self.stochastic_depth if train else 0.0
    return stay(self, y, most, block, self.depth)


def scores(
  name: str, q: Array, k: Array, a: Array, grid: tuple[int, int]
) -> Array:
  """What the kernel `name` normalises, [B, H, L, L], at least float32.

  The logits q k / sqrt(Dh) of softmax, phi(q) phi(k) of a kernel with features,
  and for the pointwise kernels, which normalise nothing, the weights a.
  """
  dtype = jnp.promote_types(q.dtype, jnp.float32)
  q, k = q.astype(dtype), k.astype(dtype)
  kind, feature_map, _ = KERNELS[name]
  if kind == 'linear':
    q, k = feature_pair(feature_map, q, k, grid)
  elif kind == 'softmax':
    q = q / math.sqrt(q.shape[-1])
  else:
    return a
  return jnp.einsum('bihm,bjhm->bhij', q, k)


def factors(
  name: str, q: Array, k: Array, grid: tuple[int, int]
) -> tuple[Array, Array, Array] | None:
  """phi(q), phi(k) [B, L, H, M] and 1 / d [B, L, H]; no array is [L, L].

  A_ij = phi(q_i) phi(k_j) / d_i. None for kernels without features, and for the
  normaliser rms, whose d depends on the values.
  """
  kind, feature_map, normalize = KERNELS[name]
  if kind != 'linear' or normalize == 'rms':
    return None
  dtype = jnp.promote_types(q.dtype, jnp.float32)
  q, k = q.astype(dtype), k.astype(dtype)
  phi_q, phi_k = feature_pair(feature_map, q, k, grid)
  total = jnp.einsum('blhm,bhm->blh', phi_q, phi_k.sum(1))
  # Values of 1 give the sums of A: over those of phi(q) phi(k) it is 1 / d.
  sums = attend(name, q, k, jnp.ones((*k.shape[:3], 1), dtype), grid=grid)
  alive = total > 0
  inverse = jnp.where(alive, sums[..., 0] / jnp.where(alive, total, 1), 0)
  return phi_q, phi_k, inverse


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
