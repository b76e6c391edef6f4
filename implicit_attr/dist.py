"""Where does an array live? The only file that names devices.

One mesh axis, 'data'. Batches are split over it, everything else is whole on
every device, and a step is `jax.jit` of a function of global arrays: XLA
inserts the sums, so none can be forgotten or doubled. `parallel='pmap'` runs
the same `sums` through `jax.pmap` and one explicit psum; since jax 0.8 pmap is
itself jit of shard_map, so the choice is one of taste, and a test holds them
equal.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from implicit_attr import errors
from implicit_attr.types import Tree

MODES = ('jit', 'pmap')


@dataclasses.dataclass(frozen=True)
class Mesh:
  """All devices in one row, and how to lay arrays over them."""

  mode: str
  mesh: jax.sharding.Mesh

  @property
  def size(self) -> int:
    return self.mesh.size

  @property
  def whole(self) -> jax.NamedSharding:
    """The layout of everything that is not a batch: a copy on each device."""
    return jax.NamedSharding(self.mesh, jax.sharding.PartitionSpec())

  def split(self, batch: Tree) -> Tree:
    """Host arrays [B, ...] -> global arrays, examples split over devices."""
    spec = jax.sharding.PartitionSpec('data')
    return jax.device_put(batch, jax.NamedSharding(self.mesh, spec))

  def replicate(self, tree: Tree) -> Tree:
    """The same array on every device."""
    return jax.device_put(tree, self.whole)

  def sums(self, sums: Callable[..., Tree]) -> Callable[..., Tree]:
    """`sums(params, model_state, batch, key)` as this mode computes it."""
    if self.mode == 'jit':
      return sums

    def summed(*args):
      return jax.lax.psum(sums(*args), 'data')

    spread = jax.pmap(
      summed, 'data', in_axes=(None, None, 0, None), out_axes=None
    )

    def run(params, model_state, batch, key):
      rows = jax.tree.map(
        lambda a: np.asarray(a).reshape(self.size, -1, *a.shape[1:]), batch
      )
      return spread(params, model_state, rows, key)

    return run


def mesh(mode: str = 'jit') -> Mesh:
  """The mesh over all devices of the run.

  Raises:
    InputError: an unknown mode.
  """
  errors.choose('parallel', mode, MODES)
  devices: Any = np.array(jax.devices())
  return Mesh(mode, jax.sharding.Mesh(devices, ('data',)))
