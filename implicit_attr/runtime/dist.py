"""Devices and processes: a mesh, and where an array lives on it.

One mesh axis, 'data'. Batches are split over it, everything else is whole on
every device, and a step is `jax.jit` of a function of global arrays: XLA
inserts the sums, so none can be forgotten or doubled. `parallel='pmap'` runs
the same `sums` through `jax.pmap` and one explicit psum; since jax 0.8 pmap is
itself jit of shard_map, so the choice is one of taste, and a test holds them
equal.
"""

import dataclasses
import functools
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

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

  def rows(self, axis: int = 0) -> jax.NamedSharding:
    """The layout of a batch: examples, along `axis`, split over the devices."""
    axes = (*[None] * axis, 'data')
    return jax.NamedSharding(self.mesh, jax.sharding.PartitionSpec(*axes))

  @property
  def shard(self) -> tuple[int, int]:
    """(i, n): this process has the i-th of n equal slices of a batch."""
    return jax.process_index(), jax.process_count()

  def split(self, batch: Tree) -> Tree:
    """Arrays [B, ...], the same on every process -> one global array each,
    examples split over devices. Only a process's own rows leave the host."""
    return self._place(batch, self.rows())

  def join(self, batch: Tree, axis: int = 0) -> Tree:
    """This process's slice [B / n, ...] of a batch (`shard`) -> global arrays
    [B, ...], examples split over devices, without any communication.

    Examples lie along `axis`: 1 for the batches of a span of updates.
    """
    if jax.process_count() == 1:
      return self._place(batch, self.rows(axis))
    put = jax.make_array_from_process_local_data
    return jax.tree.map(lambda a: put(self.rows(axis), a), batch)

  def replicate(self, tree: Tree) -> Tree:
    """The same array on every device."""
    return self._place(tree, self.whole)

  def fetch(self, tree: Tree) -> Tree:
    """Global arrays -> the whole of each as numpy, on every process."""
    if jax.process_count() == 1:
      return jax.device_get(tree)
    return jax.device_get(_laid_out(tree, self.whole))

  def decide(self, value: bool) -> bool:
    """What the first process says, so that all take the same branch.

    For what depends on a clock. Every process must call it.
    """
    if jax.process_count() == 1:
      return value
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(value)))

  @property
  def stops_itself(self) -> bool:
    """True if this process decides alone when to stop; see `stopping`."""
    return jax.process_count() == 1

  def stopping(self, step: int, signalled: bool) -> bool:
    """True if the run is to stop before update `step`, on all processes alike.

    A process alone stops when it is `signalled`. Several stop at one step,
    which JAX's coordination service agrees on once any of them was sent
    SIGTERM (JAX must be the one to catch it); no message passes otherwise.
    """
    if self.stops_itself:
      return signalled
    return bool(multihost_utils.reached_preemption_sync_point(step))

  def _place(self, tree: Tree, layout: jax.NamedSharding) -> Tree:
    if jax.process_count() == 1:
      return jax.device_put(tree, layout)

    def place(a: Any) -> jax.Array:
      if isinstance(a, jax.Array) and not a.is_fully_addressable:
        return _laid_out(a, layout)
      a = np.asarray(a)
      return jax.make_array_from_callback(a.shape, layout, lambda i: a[i])

    return jax.tree.map(place, tree)

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


def _laid_out(tree: Tree, layout: jax.NamedSharding) -> Tree:
  """Global arrays in another layout: only a program can move those."""
  return _mover(layout)(tree)


@functools.cache
def _mover(layout: jax.NamedSharding) -> Callable[[Tree], Tree]:
  return jax.jit(lambda tree: tree, out_shardings=layout)


def initialize(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  patience: int = 60,
) -> None:
  """Joins this process to the others of its run; before any device is used.

  Args:
    coordinator: 'host:port' of process 0, the same for all.
    processes: how many there are.
    process: which this is, 0 to processes - 1.
    patience: seconds to wait for the others.

  The first three, or none: then JAX finds them out itself, on a TPU pod from
  its metadata, under SLURM or Open MPI from the variables of the job.

  Raises:
    InputError: only some were given, or none and nothing could be found, or
      nobody answered in time.
  """
  given = {
    '--coordinator': coordinator, '--processes': processes,
    '--process': process,
  }  # fmt: skip
  missing = [name for name, value in given.items() if value is None]
  errors.require(
    '--distributed', True, len(missing) in (0, 3),
    f'given with {", ".join(missing)} as well',
  )  # fmt: skip
  if coordinator is not None:
    errors.require(
      '--coordinator', coordinator,
      re.fullmatch(r'.+:[0-9]{1,5}', coordinator) is not None, 'host:port',
    )  # fmt: skip
    assert processes is not None and process is not None
    errors.number('--processes', processes, 1, integer=True)
    errors.number('--process', process, 0, processes - 1, integer=True)
    _reach(coordinator, process, patience)
  try:
    jax.distributed.initialize(
      coordinator, processes, process, initialization_timeout=patience
    )
  except (ValueError, RuntimeError) as e:
    reason = (str(e).splitlines() or [''])[0]
    raise errors.InputError(
      '--distributed found no run to join: give --coordinator=host:port, '
      f'--processes and --process, or start it under SLURM ({reason})'
    ) from e


def _reach(coordinator: str, process: int, patience: int) -> None:
  """Waits until process 0 listens: JAX ends a process that waits in vain.

  Raises:
    InputError: it did not within `patience` seconds.
  """
  if process == 0:
    return
  host, _, port = coordinator.rpartition(':')
  began = time.monotonic()
  while True:
    try:
      socket.create_connection((host, int(port)), timeout=patience).close()
      return
    except OSError as e:
      errors.require(
        '--coordinator', coordinator, time.monotonic() - began < patience,
        f'where process 0 listens within --patience={patience} seconds ({e})',
      )  # fmt: skip
      time.sleep(0.2)


def mesh(mode: str = 'jit') -> Mesh:
  """The mesh over all devices of the run.

  Raises:
    InputError: an unknown mode, or pmap with several processes.
  """
  errors.choose('parallel', mode, MODES)
  errors.require(
    'parallel', mode, mode == 'jit' or jax.process_count() == 1,
    "'jit' with several processes: pmap is the adapter for one",
  )  # fmt: skip
  devices: Any = np.array(jax.devices())
  return Mesh(mode, jax.sharding.Mesh(devices, ('data',)))
