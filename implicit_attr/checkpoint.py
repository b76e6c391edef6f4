"""How does a run survive? orbax behind three verbs: save, latest, restore.

Every checkpoint carries a hash of its own leaves, because storage that flips a
bit is restored by orbax without a word.
"""

import hashlib
import logging
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from implicit_attr import errors
from implicit_attr.types import Tree

LOG = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one folder; `keep` newest ones are kept."""

  def __init__(self, folder: pathlib.Path, *, keep: int = 1):
    self.folder = pathlib.Path(folder).absolute()
    policy = ocp.checkpoint_managers.LatestN(keep)
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(preservation_policy=policy),
    )

  def save(self, step: int, state: Tree, meta: dict[str, Any]) -> None:
    """Writes `state` and the JSON object `meta`; whole when this returns.

    Not asynchronous: a donated buffer must not change under the writer, and a
    write costs a fraction of a second. A step that is there already is left.
    """
    if step in self._manager.all_steps():
      return
    state = jax.device_get(state)
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      meta=ocp.args.JsonSave({**meta, 'fingerprint': fingerprint(state)}),
    )
    self._manager.save(step, args=args)
    self._manager.wait_until_finished()

  def steps(self) -> list[int]:
    """Steps that were written to the end, oldest first."""
    return sorted(self._manager.all_steps())

  def restore(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
    """(state, meta) as saved at `step`; `like` gives structure and shapes.

    Raises:
      InputError: the checkpoint is damaged, or belongs to another network.
    """
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(jax.device_get(like)),
      meta=ocp.args.JsonRestore(),
    )
    where = self.folder / str(step)
    try:
      found = self._manager.restore(step, args=args)
    except Exception as e:  # orbax raises a bare Exception on truncated data
      reason = (str(e).splitlines() or [type(e).__name__])[0][:160]
      raise errors.InputError(
        f'checkpoint {str(where)!r} cannot be restored: it is damaged or does '
        f'not fit this config ({reason})'
      ) from e
    state, meta = found['state'], found['meta']
    for a, b in zip(jax.tree.leaves(like), jax.tree.leaves(state), strict=True):
      if (a.shape, a.dtype) != (b.shape, b.dtype):
        raise errors.InputError(
          f'checkpoint {str(where)!r} does not fit this config: it holds '
          f'{b.dtype}{b.shape} where the network has {a.dtype}{a.shape}'
        )
    if fingerprint(state) != meta.pop('fingerprint'):
      raise errors.InputError(
        f'checkpoint {str(where)!r} is damaged: its numbers are not those '
        'that were saved'
      )
    return state, meta

  def newest(self, like: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
    """The newest restorable (step, state, meta); None if there is none at all.

    A damaged checkpoint is named in a warning, removed, and the one before it
    tried: the run continues from what is good.

    Raises:
      InputError: there are checkpoints, but none can be restored.
    """
    steps = self.steps()
    for step in reversed(steps):
      try:
        return step, *self.restore(step, like)
      except errors.InputError as e:
        if step == steps[0]:
          raise
        LOG.warning('%s; trying the one before it', e)
        self._manager.delete(step)
    return None

  def close(self) -> None:
    self._manager.close()


def fingerprint(tree: Tree) -> str:
  """A hash of every leaf's bytes, dtype and shape, in tree order."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    leaf = np.ascontiguousarray(leaf)
    digest.update(f'{leaf.dtype}{leaf.shape}'.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()
