"""How does a training image differ from the stored one?

Every augmentation is `fun(draws, batch, size, rows) -> batch`: it draws for
the `size` examples of the global batch and uses the `rows` of its own shard,
so that the result depends on (seed, step, place in the batch) alone. A mask
moves with its image; labels and indices stay.
"""

from collections.abc import Callable

import numpy as np

Batch = dict[str, np.ndarray]


def crop(
  draws: np.random.Generator, batch: Batch, size: int, rows: slice
) -> Batch:
  """A random window of the image, after black borders were put around it.

  The border is an eighth of the side: 4 pixels for 32, as is usual for CIFAR.
  """
  height, width = batch['image'].shape[1:3]
  pad_y, pad_x = height // 8, width // 8
  tops = draws.integers(0, 2 * pad_y + 1, size)[rows]
  lefts = draws.integers(0, 2 * pad_x + 1, size)[rows]
  y = (tops[:, None] + np.arange(height))[:, :, None]
  x = (lefts[:, None] + np.arange(width))[:, None, :]
  each = np.arange(len(tops))[:, None, None]

  def window(images):
    border = [(0, 0), (pad_y, pad_y), (pad_x, pad_x)]
    border += [(0, 0)] * (images.ndim - 3)
    return np.pad(images, border)[each, y, x]

  return _on_pixels(window, batch)


def flip(
  draws: np.random.Generator, batch: Batch, size: int, rows: slice
) -> Batch:
  """The mirror image, left for right, of about every second example."""
  mirrored = draws.integers(0, 2, size)[rows].astype(bool)

  def mirror(images):
    where = mirrored.reshape((-1,) + (1,) * (images.ndim - 1))
    return np.where(where, images[:, :, ::-1], images)

  return _on_pixels(mirror, batch)


AUGMENTATIONS: dict[str, Callable[..., Batch]] = {'crop': crop, 'flip': flip}


def _on_pixels(fun: Callable[[np.ndarray], np.ndarray], batch: Batch) -> Batch:
  pixels = {k: fun(batch[k]) for k in ('image', 'mask') if k in batch}
  return batch | pixels
