"""Checkpoints of a run: orbax behind three verbs, save, restore and newest.

Every checkpoint carries names, types and a hash of its own leaves: orbax
restores a flipped bit without a word, and casts to whatever type it is asked
for. Nothing here is code: arrays and JSON, no pickle.
"""

import contextlib
import hashlib
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from implicit_attr import errors
from implicit_attr.types import Tree

LOG = logging.getLogger(__name__)


class Damaged(errors.InputError):
  """A checkpoint that cannot be what was saved."""


class Checkpoints:
  """The checkpoints of one folder; `keep` newest ones are kept.

  With several processes every one of them makes the same calls.

  Raises:
    InputError: the folder cannot be made or read.
  """

  def __init__(self, folder: pathlib.Path, *, keep: int | None = 1):
    self.folder = pathlib.Path(folder).absolute()
    policy = ocp.checkpoint_managers.LatestN(keep)
    options = ocp.CheckpointManagerOptions(preservation_policy=policy)
    try:
      self._manager = ocp.CheckpointManager(self.folder, options=options)
    except OSError as e:
      raise errors.InputError(
        f'{str(self.folder)!r} must be a folder that can be written '
        f'({e.strerror or e})'
      ) from e

  def save(self, step: int, state: Tree, meta: dict[str, Any]) -> None:
    """Writes `state` and the JSON object `meta`; whole when this returns.

    Not asynchronous: a donated buffer must not change under the writer, and a
    write costs a fraction of a second. A step that is there already is left.

    Raises:
      InputError: it cannot be written: a full disk, a folder that is gone.
        What was saved before is as it was.
    """
    if step in self._manager.all_steps():
      return
    state = jax.device_get(state)
    seal = {'meta': meta, 'leaves': _leaves(state), 'hash': fingerprint(state)}
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      meta=ocp.args.JsonSave({**seal, 'seal': _seal(seal)}),
    )
    try:
      with _silent():
        self._manager.save(step, args=args)
        self._manager.wait_until_finished()
    except Exception as e:  # tensorstore and orbax raise what they like
      for left in self.folder.glob(f'{step}.orbax-checkpoint-tmp*'):
        shutil.rmtree(left, ignore_errors=True)
      raise errors.InputError(
        f'checkpoint {str(self.folder / str(step))!r} cannot be written '
        f'({_reason(e)}); the ones before it are whole'
      ) from e

  def steps(self) -> list[int]:
    """Steps that were written to the end, oldest first."""
    return sorted(self._manager.all_steps())

  def restore(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
    """(state, meta) as saved at `step`, bit for bit; nothing is cast.

    Args:
      step: one of `steps()`.
      like: gives structure, names, shapes and types.

    Raises:
      Damaged: it is not what was saved: cut short, or a bit has changed.
      InputError: it is whole and belongs to another network or precision.
    """
    where = f'checkpoint {str(self.folder / str(step))!r}'
    saved = self._read(step, 'meta', ocp.args.JsonRestore())
    stated = saved.pop('seal', None) if isinstance(saved, dict) else None
    if stated is None or stated != _seal(saved):
      raise Damaged(f'{where} is damaged: its description does not add up')
    wanted = _leaves(like)
    for name in sorted({*wanted, *saved['leaves']}):
      here, there = wanted.get(name), saved['leaves'].get(name)
      if here != there:
        raise errors.InputError(
          f'{where} does not fit this config: it holds {name} as '
          f'{there or "nothing"} where the network has {here or "nothing"}'
        )
    args = ocp.args.StandardRestore(jax.device_get(like))
    state = self._read(step, 'state', args)
    if fingerprint(state) != saved['hash']:
      raise Damaged(
        f'{where} is damaged: its numbers are not those that were saved'
      )
    return state, saved['meta']

  def newest(self, like: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
    """The newest whole (step, state, meta); None if there is none at all.

    Damaged ones after it are named in a warning of one line and, once an
    older one has proved whole, put aside as '<step>.damaged': the run goes on
    from what is good and will write those steps again.

    Raises:
      Damaged: there are checkpoints, but none is whole.
      InputError: the newest whole one belongs to another network.
    """
    damaged = []
    for step in reversed(self.steps()):
      try:
        saved = self.restore(step, like)
      except Damaged as e:
        damaged.append((step, e))
        continue
      for bad, e in damaged:
        LOG.warning('%s; going on from step %d', e, step)
        if jax.process_index() == 0:
          aside = self.folder / f'{bad}.damaged'
          shutil.rmtree(aside, ignore_errors=True)
          (self.folder / str(bad)).rename(aside)
      if damaged:
        ocp.multihost.sync_global_processes('damaged checkpoints put aside')
        self._manager.reload()
      return step, *saved
    if damaged:
      raise damaged[0][1]
    return None

  def close(self) -> None:
    self._manager.close()

  def _read(self, step: int, item: str, args: Any) -> Any:
    args = ocp.args.Composite(**{item: args})
    try:
      with _silent():
        return self._manager.restore(step, args=args)[item]
    except Exception as e:  # a bare Exception on truncated data
      raise Damaged(
        f'checkpoint {str(self.folder / str(step))!r} is damaged and cannot '
        f'be restored ({_reason(e)})'
      ) from e


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Keeps orbax from logging at length what it also raises."""
  log = logging.getLogger('absl')
  level = log.level
  log.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    log.setLevel(level)


def fingerprint(tree: Tree) -> str:
  """A hash of every leaf's bytes, dtype and shape, in tree order."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    leaf = np.ascontiguousarray(leaf)
    digest.update(f'{leaf.dtype}{leaf.shape}'.encode())
    digest.update(leaf.data)
  return digest.hexdigest()


def _leaves(tree: Tree) -> dict[str, str]:
  """Name of each leaf -> its type and shape."""
  return {
    jax.tree_util.keystr(path): f'{leaf.dtype}{list(leaf.shape)}'
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _seal(value: Any) -> str:
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _reason(error: Exception) -> str:
  text = (str(error).splitlines() or [type(error).__name__])[0]
  return text if len(text) <= 160 else f'…{text[-120:]}'  # the cause is last
