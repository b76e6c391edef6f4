"""Locks of run folders: one process at a time, by flock of the kernel."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from implicit_attr import errors


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[bool]:
  """True while this process alone holds `folder`, False if another does.

  A lock of the kernel on the file `.lock`: it goes with the process that
  holds it, however that ends, so that none is ever stale. The file stays, and
  says who held it last.

  Raises:
    InputError: the folder cannot be made, or its file system has no locks.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / '.lock').open('ab', buffering=0)
  except OSError as e:
    raise errors.InputError(
      f'--workdir={str(folder)!r} must be a folder that can be written '
      f'({e.strerror})'
    ) from e
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      yield False
      return
    except OSError as e:  # ENOLCK of NFS
      raise errors.InputError(
        f'--workdir={str(folder)!r} must be on a file system with locks '
        f'({e.strerror})'
      ) from e
    with contextlib.suppress(OSError):  # a full disk: it is held all the same
      file.truncate(0)
      file.write(f'{os.uname().nodename} {os.getpid()}\n'.encode())
    yield True
