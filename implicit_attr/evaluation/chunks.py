"""Chunks of a batch, all of one size, so that one compilation serves them."""

import math
from collections.abc import Iterator

import numpy as np

from implicit_attr.types import Batch


def chunks(
  batch: Batch, size: int, multiple: int = 1
) -> Iterator[tuple[Batch, np.ndarray]]:
  """Yields (chunk, weight [size]), all of one size; padding weighs 0.

  `size` is raised to a multiple of `multiple` devices; one compilation serves
  every chunk.
  """
  n = len(batch['label'])
  size = multiple * math.ceil(size / multiple)
  for start in range(0, n, size):
    take = np.arange(start, start + size)
    weight = (take < n).astype(np.float32)
    take = np.minimum(take, n - 1)
    yield {name: value[take] for name, value in batch.items()}, weight
