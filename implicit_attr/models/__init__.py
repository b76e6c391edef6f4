"""Networks by name, and how they are built.

The only folder that knows flax. `build` gives a linen module; everything else
sees `apply_fn(params, x) -> (logits, out)`. In every parameter tree the layer
that touches the pixels is called `first`. `module.clone(activation='softplus')`
with the same parameters is the smooth surrogate of a ReLU network.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.core
from flax import linen as nn

from implicit_attr import errors
from implicit_attr.models import attention, interventions, own
from implicit_attr.models.activations import (
  ACTIVATIONS,
  activate,
  centred_softplus,
  softplus,
)
from implicit_attr.models.attention import KERNELS
from implicit_attr.models.cnn import POOLS, SimpleCNN
from implicit_attr.models.conv import Conv, conv2d
from implicit_attr.models.madry import MadryCNN
from implicit_attr.models.mlp import MLP
from implicit_attr.models.own import Own
from implicit_attr.models.resnet import NORMS, STAGES, WIDTHS, ResNet
from implicit_attr.models.vit import READOUTS, SIZES, ViT

__all__ = [
  'ACTIVATIONS',
  'KERNELS',
  'MLP',
  'MODELS',
  'SIZES',
  'Conv',
  'MadryCNN',
  'Own',
  'ResNet',
  'SimpleCNN',
  'ViT',
  'activate',
  'attention',
  'build',
  'centred_softplus',
  'conv2d',
  'interventions',
  'softplus',
]


def _vit(size: str = 'digits', **options: Any) -> ViT:
  errors.choose('model.size', size, SIZES)
  chosen: dict[str, Any] = SIZES[size] | options
  return ViT(**chosen)


MODELS: dict[str, Callable[..., nn.Module]] = {
  'mlp': MLP,
  'cnn': SimpleCNN,
  'madry': MadryCNN,
  **{
    name: functools.partial(ResNet, stages=STAGES[name], width=WIDTHS[name])
    for name in STAGES
  },
  'vit': _vit,
}
"""Name -> function of the options that makes the module."""

_CHOICES = {
  'activation': ACTIVATIONS,
  'attention': KERNELS,
  'downsample': ('stride', 'avg_pool'),
  'norm': NORMS,
  'pool': POOLS,
  'readout': READOUTS,
}
_COUNTS = ('num_classes', 'width', 'heads', 'patch', 'mlp_ratio')
LARGEST = 1 << 16
"""Of any width or other count of a network."""
DEEPEST = 1000
"""Of the depth of a network."""


def build(name: str, **options: Any) -> nn.Module | Own:
  """The module `name` of `MODELS`, for example build('cnn', width=8).

  A name with a colon, 'package.module:MyNet', is a network of one's own, of
  linen, nnx or equinox, and the options are its own: see `own.build`.

  Common options: num_classes, activation (one of `ACTIVATIONS`), beta (of the
  two softplus), mean and std (of the pixels, one number or one per channel).
  mlp: widths, gain (of the weights at the start). cnn: width, depth,
  downsample, hidden. madry: width, hidden, pool ('max' or 'avg'). resnetN:
  width, norm, stochastic_depth (in [0, 0.99]).
  vit: size (one of `SIZES`) and, over it, patch, width, depth, heads,
  mlp_ratio; readout, attention (one of `KERNELS`), qk_norm, temperature,
  layer_scale (initial value, 0 for none), stochastic_depth.

  The module's call is (x, train=False, beta=None) -> (logits, out).

  Raises:
    InputError: for an unknown name or option, and for a value out of range.
  """
  options = {
    key: tuple(v) if isinstance(v, list) else v for key, v in options.items()
  }
  if ':' in name:
    for key in {'mean', 'std'} & set(options):
      _check(key, options[key])
    return own.build(name, **options)
  try:
    errors.choose('model.name', name, MODELS)
  except errors.InputError as e:
    raise errors.InputError(f"{e}, or a path 'package.module:name'") from None
  maker = MODELS[name]
  known = _options(maker)
  for key, value in options.items():
    errors.choose('model option', key, known)
    _check(key, value)
  module = maker(**options)
  if name == 'cnn':
    errors.require(
      'model.depth',
      module.depth,
      module.width << (module.depth - 1) <= LARGEST,
      f'less: its last width, {module.width} 2^(depth - 1), is <= {LARGEST}',
    )
  if isinstance(module, ViT):
    errors.require(
      'model.heads',
      module.heads,
      module.width % module.heads == 0,
      f'a divisor of the width {module.width}',
    )
  return module


def _options(maker: Callable[..., nn.Module]) -> set[str]:
  """What `maker`, a module's class or a function, can be called with."""
  cls = ViT if maker is _vit else getattr(maker, 'func', maker)
  if not dataclasses.is_dataclass(cls):
    return set(inspect.signature(cls).parameters)
  fields = {f.name for f in dataclasses.fields(cls)}
  fields |= {'size'} if maker is _vit else set()
  return fields - {'parent', 'name', 'stages'}


def _check(key: str, value: Any) -> None:
  """Raises InputError if `value` cannot be the option `key`."""
  field = f'model.{key}'
  if isinstance(value, jax.core.Tracer):  # a number that lanes differ in
    return
  if key in _CHOICES:
    errors.choose(field, value, _CHOICES[key])
  elif key in _COUNTS:
    errors.number(field, value, 1, LARGEST, integer=True)
  elif key == 'depth':
    errors.number(field, value, 1, DEEPEST, integer=True)
  elif key == 'hidden':
    errors.number(field, value, 0, LARGEST, integer=True)
  elif key in ('beta', 'gain', 'temperature'):
    errors.number(field, value, 0, open_low=True)
  elif key == 'layer_scale':
    errors.number(field, value, 0)
  elif key == 'stochastic_depth':
    errors.number(field, value, 0, 0.99)
  elif key == 'widths':
    ok = isinstance(value, tuple)
    errors.require(field, value, ok, 'a tuple of integers')
    for width in value:
      errors.number(field, width, 1, LARGEST, integer=True)
  elif key in ('mean', 'std'):
    for number in value if isinstance(value, tuple) else (value,):
      if key == 'mean':
        errors.number(field, number)
      else:
        errors.number(field, number, 0, open_low=True)
  elif key == 'qk_norm':
    errors.require(field, value, isinstance(value, bool), 'True or False')
