"""Shapes, callables and letters that the whole package agrees on.

Letters used in shape comments everywhere: B batch, H W pixels (or H heads,
where L stands beside it), L tokens, D width, Dh = D / H, M kernel features,
C classes, P number of parameters, K Lanczos steps, S probe draws.

Images are float arrays `[B, H, W, C]` in pixel units, 0 to 1. Networks
standardise inside, so that a radius, a gradient or a curvature in `x` is in
pixel units wherever it is written.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

Array = jax.Array
Tree = Any  # any pytree of arrays
Params = Tree
Batch = Mapping[str, Array]
"""'image' [B, H, W, C], 'label' [B] int32, 'index' [B] int32 (position in the
split); 'mask' [B, H, W] bool where the data set knows the truth."""

Mvp = Callable[[Tree], Tree]
"""v -> (a symmetric matrix) v, with the tree structure of v."""


class ApplyFn(Protocol):
  """The only view of a network outside `models`: any framework fits."""

  def __call__(self, params: Params, x: Array, /) -> tuple[Array, dict]:
    """x [B, ...] -> (logits [B, C], out), `out` a dict of intermediates."""
    ...


class LossFn(Protocol):
  """What training minimises, before the mean over examples is taken."""

  def __call__(
    self, params: Params, batch: Batch, key: Array
  ) -> tuple[Array, dict]:
    """Returns (loss of each example [B], aux with 'logits' [B, C])."""
    ...


class Explain(Protocol):
  """x, y -> attribution map, signed, with the shape of x."""

  def __call__(self, x: Array, y: Array) -> Array: ...


class Predict(Protocol):
  """x -> logits [B, C]."""

  def __call__(self, x: Array) -> Array: ...
