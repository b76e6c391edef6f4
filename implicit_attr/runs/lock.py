"""Is another process at work in this folder?"""

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
    InputError: the folder cannot be made.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / '.lock').open('a+')
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
    file.truncate(0)
    file.write(f'{os.uname().nodename} {os.getpid()}\n')
    file.flush()
    yield True
