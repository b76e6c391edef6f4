"""Archive of a run or a sweep, small enough to send: all but checkpoints.

What a report reads is in it; figures, pages and compiled programs are made
again.
"""

import os
import pathlib
import tarfile
from collections.abc import Iterator

from implicit_attr import errors

LIMIT = 16 << 20
"""Bytes of an archive."""

_LEFT_OUT = {
  'checkpoints', 'figures', 'report.html', '.lock', 'tensorboard', 'wandb'
}  # fmt: skip
_END = '.tar.xz'


def pack(workdir: pathlib.Path) -> pathlib.Path:
  """Writes <workdir>.tar.xz of all records, measurements and evaluations.

  Returns:
    The path of the archive; names in it begin with that of `workdir`.

  Raises:
    InputError: no run is there, it cannot be written, or it would be larger
      than 16 MiB; nothing is left then.
  """
  found = sorted(_files(workdir))
  errors.require(
    '--workdir', str(workdir), any(f.name == 'config.json' for f in found),
    'a folder with a run in it',
  )  # fmt: skip
  path = workdir.with_name(workdir.name + _END)
  part = path.with_name(f'.{path.name}.part')
  try:
    with tarfile.open(part, 'w:xz') as archive:
      for file in found:
        archive.add(file, file.relative_to(workdir.parent), recursive=False)
    size = part.stat().st_size
    errors.require(
      '--workdir', f'{workdir} ({size / (1 << 20):.1f} MiB packed)',
      size <= LIMIT, 'at most 16 MiB packed: fewer runs, or track.examples',
    )  # fmt: skip
    os.replace(part, path)
  except OSError as e:
    raise errors.InputError(f'{path} cannot be written: {e}') from e
  finally:
    part.unlink(missing_ok=True)
  return path


def _files(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
  for folder, below, names in os.walk(workdir):
    below[:] = set(below) - _LEFT_OUT
    yield from (pathlib.Path(folder, n) for n in set(names) - _LEFT_OUT)


def unpacked(path: pathlib.Path) -> pathlib.Path:
  """The folder of an archive, unpacked beside it; a folder is itself.

  Raises:
    InputError: the archive is damaged or reaches out of its folder, or there
      is a folder of that name.
  """
  if not path.name.endswith(_END):
    return path
  folder = path.with_name(path.name.removesuffix(_END))
  errors.require(
    '--workdir', str(path), not folder.exists(),
    f'an archive without a folder {folder.name} beside it',
  )  # fmt: skip
  try:
    with tarfile.open(path, 'r:xz') as archive:
      roots = {pathlib.Path(name).parts[0] for name in archive.getnames()}
      errors.require(
        '--workdir', str(path), roots == {folder.name},
        f'an archive of the folder {folder.name}',
      )  # fmt: skip
      archive.extractall(path.parent, filter='data')
  except (OSError, EOFError, tarfile.TarError, ValueError) as e:
    raise errors.InputError(f'{path} cannot be read: {e}') from e
  return folder
