"""Augmentations: crops and flips, drawn on the host, made where the images are.

An augmentation draws for all examples of a global batch, and what a shard uses
are the rows of its own, so that the result depends on (seed, step, place in the
batch) alone. A mask moves with its image; labels and indices stay.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How a training image differs from the stored one.

  Attributes:
    draw: (generator, batch size, image shape) -> numbers [B, …].
    apply: (images [B, H, W, …], numbers, xp) -> images of the same shape and
      type; xp is numpy or jax.numpy.
  """

  draw: Callable[[np.random.Generator, int, tuple[int, ...]], np.ndarray]
  apply: Callable[[Any, Any, Any], Any]


def _draw_crop(
  draws: np.random.Generator, size: int, shape: tuple[int, ...]
) -> np.ndarray:
  """Top and left of a window of the bordered image, [B, 2]."""
  pads = [side // 8 for side in shape[:2]]
  places = [draws.integers(0, 2 * pad + 1, size) for pad in pads]
  return np.stack(places, axis=1).astype(np.int32)


def _crop(images: Any, places: Any, xp: Any) -> Any:
  """A random window of the image, after black borders were put around it.

  The border is an eighth of the side: 4 pixels for 32, as is usual for CIFAR.
  """
  height, width = images.shape[1:3]
  border = [(0, 0), (height // 8,) * 2, (width // 8,) * 2]
  border += [(0, 0)] * (images.ndim - 3)
  y = (places[:, :1] + xp.arange(height)[None])[:, :, None]
  x = (places[:, 1:] + xp.arange(width)[None])[:, None, :]
  each = xp.arange(len(places))[:, None, None]
  return xp.pad(images, border)[each, y, x]


def _draw_flip(
  draws: np.random.Generator, size: int, shape: tuple[int, ...]
) -> np.ndarray:
  return draws.integers(0, 2, size).astype(bool)


def _flip(images: Any, mirrored: Any, xp: Any) -> Any:
  """The mirror image, left for right, of about every second example."""
  height, width = images.shape[1:3]
  x = xp.where(mirrored[:, None], xp.arange(width)[::-1], xp.arange(width))
  each = xp.arange(len(x))[:, None, None]
  return images[each, xp.arange(height)[:, None], x[:, None, :]]


AUGMENTATIONS: dict[str, Augmentation] = {
  'crop': Augmentation(_draw_crop, _crop),
  'flip': Augmentation(_draw_flip, _flip),
}
"""By name; several are applied in the order of this table."""
