"""Interventions on a trained ViT: kernels swapped, scores scaled.

All kernels share one parameter tree, so that the weights can stay while the
kernel, its normaliser or the size of the scores changes.
"""

import re
from typing import Any

import jax
from flax import linen as nn

from implicit_attr import errors
from implicit_attr.models.attention import KERNELS
from implicit_attr.types import Array, Params

_SCORERS = r'block_\d+_(query|key)'


def swap_kernel(module: nn.Module, attention: str) -> nn.Module:
  """`module` with another kernel of `KERNELS`, for the same parameters.

  Raises:
    InputError: an unknown kernel; a module without attention.
  """
  errors.choose('model.attention', attention, KERNELS)
  return _attentive(module).clone(attention=attention)


def without_normalizer(module: nn.Module, normalize: str = 'none') -> nn.Module:
  """`module` with phi(q) phi(k) itself as weight, for the same parameters.

  With `normalize` 'n' or 'nm' it is divided by a constant, L or L M, which
  keeps the size of the weights and couples no two of them.

  Raises:
    InputError: a kernel without features (softmax, the pointwise ones), or one
      that exists only normalised (favor); another normaliser.
  """
  kind, feature_map, _ = KERNELS[_attentive(module).attention]
  errors.choose('normalize', normalize, ('none', 'n', 'nm'))
  name = f'{feature_map}_{normalize}'
  errors.require(
    'model.attention', module.attention, kind == 'linear' and name in KERNELS,
    'a kernel with features, save favor, to be without its normaliser',
  )  # fmt: skip
  return module.clone(attention=name)


def scale_scores(params: Params, tau: float | Array) -> Params:
  """W_Q and W_K with their biases times `tau` in every block; may be traced.

  Queries and keys of all blocks but the first see other tokens then: only the
  first block's are exactly tau times what they were.

  Raises:
    InputError: no such weights in `params`.
  """
  chosen = [name for name in params if re.fullmatch(_SCORERS, name)]
  errors.require(
    'params', 'a tree', bool(chosen), "that of models.build('vit')"
  )
  scaled = {
    name: jax.tree.map(lambda p: tau * p, params[name]) for name in chosen
  }
  return {**params, **scaled}


def _attentive(module: Any) -> nn.Module:
  ok = hasattr(module, 'attention')
  name = type(module).__name__
  errors.require('model.name', name, ok, "a network with a field 'attention'")
  return module
