"""Cache of decoded arrays between runs, never half written, with SHA-256 sums.

A set of arrays is a folder of `.npy` files and a manifest. It is written under
a temporary name and renamed when complete: a writer that is killed leaves no
set at all, and of two writers at once the second finds the first one's set.
What is read back is checked against the manifest; a damaged set is not used.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator

import numpy as np

_STALE_SECONDS = 24 * 3600
_MANIFEST = 'manifest.json'


def root() -> pathlib.Path:
  """`$XDG_CACHE_HOME/implicit_attr`, else `~/.cache/implicit_attr`."""
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'implicit_attr'


def writable(folder: pathlib.Path) -> bool:
  """True if `folder`, or the nearest parent that exists, may be written to.

  A folder whose mode forbids it is left alone even where root could.
  """
  while not folder.exists():
    folder = folder.parent
  allowed = folder.stat().st_mode & 0o222 != 0
  return folder.is_dir() and allowed and os.access(folder, os.W_OK)


@contextlib.contextmanager
def whole(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder that becomes `target` when the block ends well.

  Guarantees: `target` is never seen in part. Where another process made it
  meanwhile, that one stays and ours is dropped. What killed processes left is
  removed by the next writer, a day later.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  for old in target.parent.glob('.part-*'):
    with contextlib.suppress(OSError):
      if time.time() - old.stat().st_mtime > _STALE_SECONDS:
        shutil.rmtree(old)
  part = pathlib.Path(tempfile.mkdtemp(prefix='.part-', dir=target.parent))
  part.chmod(0o755)
  try:
    yield part
    try:
      part.rename(target)
    except OSError:
      if not target.is_dir():
        raise
  finally:
    shutil.rmtree(part, ignore_errors=True)


def read(
  folder: pathlib.Path, needed: Collection[str]
) -> dict[str, np.ndarray] | None:
  """The arrays in `folder`, memory-mapped; None unless it holds a sound set.

  Guarantees: they have the bits that were written, and none is lacking that
  was written or is `needed`.
  """
  try:
    sums = json.loads((folder / _MANIFEST).read_text())
    paths = {path.stem: path for path in folder.glob('*.npy')}
    if sums != {name: _checksum(path) for name, path in paths.items()}:
      return None
    maps = {k: np.load(path, mmap_mode='r') for k, path in paths.items()}
    whole = set(needed) <= set(maps)
    return {k: np.asarray(v) for k, v in maps.items()} if whole else None
  except (OSError, ValueError, RecursionError):
    return None


def write(
  folder: pathlib.Path, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Keeps `arrays` in `folder`, in place of what is there, and reads them.

  Where they cannot be kept (a full disk, no permission) a warning is logged
  and `arrays` are returned as they are: a cache must not stop a run.
  """
  try:
    if not writable(folder.parent):
      raise PermissionError(f'{folder.parent} may not be written to')
    if folder.exists():  # a rename cannot replace it, so it goes first
      with contextlib.suppress(FileNotFoundError):
        old = tempfile.mkdtemp(prefix='.part-', dir=folder.parent)
        shutil.rmtree(folder.rename(old))
    with whole(folder) as part:
      for name, values in arrays.items():
        np.save(part / f'{name}.npy', values)
      sums = {name: _checksum(part / f'{name}.npy') for name in arrays}
      (part / _MANIFEST).write_text(json.dumps(sums))
  except OSError as error:
    logging.warning('decoded images are not cached: %s', error)
    return arrays
  return read(folder, arrays) or arrays


def _checksum(path: pathlib.Path) -> str:
  """SHA-256 of the file: a second for 2 GB, and no change gets past it."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
