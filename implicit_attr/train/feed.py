"""Batches of a span of updates, drawn on the host and made on the device.

Stored pixels stay on the device, and what travels are the numbers that were
drawn. Sets too large for that, and batches that several processes share, send
their pixels. Either way a span is made while the last one runs: a program is
sent off and not waited for, so that this needs no thread of its own.
"""

from typing import Any

import jax
import numpy as np

from implicit_attr.train.lanes import Lanes
from implicit_attr.types import Tree

LONGEST = 512
"""Updates in a span, at most: what has been drawn is padded to this length."""
STREAMED_BYTES = 1 << 26
"""Pixels of a span that are not resident, at most."""


class Feed:
  """What the updates of a span are made of, for one program of lanes.

  Attributes:
    table: what stays on the device, see `data.Source.table`.
    longest: updates in a span, at most.
  """

  def __init__(self, lanes: Lanes, longest: int):
    source, mesh = lanes.template.train_set, lanes.template.mesh
    settings = lanes.template.settings
    self._lanes, self._mesh = lanes, mesh
    alone = jax.process_count() == 1
    fits = source.table_bytes <= settings.train.resident_bytes
    self.resident = alone and fits
    self.longest = min(LONGEST, longest)
    table: Any = {'levels': source.levels}
    if self.resident:
      table = lanes.of_images(lambda e: e.train_set.table())
    else:
      one = source.batch_size * source.image_bytes * len(lanes)
      self.longest = max(1, min(self.longest, STREAMED_BYTES // one))
    self.table = mesh.replicate(table)

  def __call__(self, step: int, n: int) -> Tree:
    """Draws of the `n` updates from `step` on, [longest, …], then zeros."""

    def padded(e):
      draws = e.train_set.draws(step, n, pixels=not self.resident)
      rest = self.longest - n
      end = lambda a: np.zeros((rest, *a.shape[1:]), a.dtype)
      return {k: np.concatenate([a, end(a)]) for k, a in draws.items()}

    drawn = self._lanes.of_seeds(padded)
    if self._lanes.alone:  # [longest, B, …]: examples are split over devices
      return self._mesh.join(drawn, axis=1)
    return self._mesh.replicate(drawn)
