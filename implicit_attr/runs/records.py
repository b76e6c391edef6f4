"""Files of a run folder, written whole or not at all; config and status."""

import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, BinaryIO

import jax
import numpy as np

from implicit_attr import errors

_PACKAGES = (
  'implicit_attr', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint',
  'tensorflow-datasets', 'ml_collections', 'numpy',
)  # fmt: skip

_SILENT = threading.Event()


def silence() -> None:
  """From now on this process writes no record: process 0 of the run does."""
  _SILENT.set()


def silenced() -> bool:
  """Whether this process writes no record."""
  return _SILENT.is_set()


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON so that a reader never sees half of it.

  Raises:
    InputError: the folder cannot be written; what was there is unharmed.
  """
  write_file(path, lambda file: file.write(_encoded(value)))


def write_arrays(path: pathlib.Path, arrays: dict[str, Any]) -> None:
  """Writes a compressed .npz so that a reader never sees half of it.

  Raises:
    InputError: as `write_json`.
  """
  write_file(path, lambda file: np.savez_compressed(file, **arrays))


def write_file(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
  """`write(file)` to a draft beside `path`, which then takes its place.

  Raises:
    InputError: as `write_json`.
  """
  if _SILENT.is_set():
    return
  draft = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open('wb') as file:
      write(file)
    os.replace(draft, path)
  except OSError as e:
    with contextlib.suppress(OSError):
      draft.unlink()
    raise errors.InputError(
      f'--workdir={str(path.parent)!r} must be a folder that can be written '
      f'({e.strerror or e})'
    ) from e


def remove(path: pathlib.Path) -> None:
  """Removes a record, if it is there."""
  if not _SILENT.is_set():
    path.unlink(missing_ok=True)


def _encoded(value: Any) -> bytes:
  return (json.dumps(value, indent=1) + '\n').encode()


def environment() -> dict[str, Any]:
  """Versions, commit and device: what a number depends on beside its config."""
  versions = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  device = jax.devices()[0]
  return {
    'argv': sys.argv,
    'versions': versions,
    'git': _git(),
    'device': {
      'platform': device.platform,
      'kind': device.device_kind,
      'count': jax.device_count(),
      'cpu_cores': os.cpu_count(),
    },
  }


def _git() -> dict[str, Any]:
  root = pathlib.Path(__file__).resolve().parent.parent
  try:
    run = lambda *args: subprocess.run(
      ('git', '-C', str(root), *args),
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
    return {
      'commit': run('rev-parse', 'HEAD'),
      'dirty': bool(run('status', '--porcelain', '--untracked-files=no')),
    }
  except (OSError, subprocess.CalledProcessError):
    return {'commit': None, 'dirty': None}


def differences(old: Any, new: Any, path: str = '') -> list[str]:
  """The leaves in which two nested configs differ, as 'a.b: 1 -> 2'."""
  if isinstance(old, dict) and isinstance(new, dict):
    return [
      line
      for key in sorted({*old, *new})
      for line in differences(old.get(key), new.get(key), f'{path}.{key}')
    ]
  if old == new:
    return []
  return [f'{path.lstrip(".")}: {old!r} -> {new!r}']


def claim(workdir: pathlib.Path, config: dict[str, Any]) -> None:
  """Makes `workdir` the folder of `config`, or continues it.

  Raises:
    InputError: the folder holds a run of another config (the line names every
      field that differs), or cannot be written or read.
  """
  path = workdir / 'config.json'
  config = json.loads(json.dumps(config))  # tuples become lists, as on disk
  if path.exists():
    _same(workdir, read_config(workdir)['config'], config)
    return
  write_json(path, {'config': config, **environment()})


def continued(
  workdir: pathlib.Path, config: dict[str, Any] | None
) -> dict[str, Any]:
  """The config of the run in `workdir`, with the evaluation of `config`.

  Raises:
    InputError: there is no run, or `config` differs in more than that.
  """
  old = read_config(workdir)['config']
  if config is None:
    return old
  new = json.loads(json.dumps(config))
  _same(workdir, old, {**new, 'evaluation': old.get('evaluation')})
  return new


def _same(workdir: pathlib.Path, old: dict, config: dict) -> None:
  changes = differences(old, config)
  errors.require(
    '--workdir', str(workdir), not changes,
    'a new folder, or one of the same config; it differs in '
    + '; '.join(changes[:5])
    + (f' and {len(changes) - 5} more' if len(changes) > 5 else ''),
  )  # fmt: skip


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """config.json of a run, whose 'config' is a mapping.

  Raises:
    InputError: there is none, or it holds anything else; says in which line.
  """
  path = workdir / 'config.json'
  try:
    about = parsed(path.read_bytes())
    if not isinstance(about, dict) or not isinstance(about.get('config'), dict):
      raise ValueError("it holds no mapping 'config'")
    train = about['config'].get('train')
    if isinstance(train, dict) and 'tensorboard' in train:  # its old name
      train['log_to'] = ['tensorboard'] if train.pop('tensorboard') else []
  except (OSError, ValueError) as e:
    raise errors.InputError(
      f'--workdir={str(workdir)!r} must be the folder of a run, with a '
      f'readable config.json ({getattr(e, "strerror", None) or e})'
    ) from e
  return about


def parsed(data: bytes) -> Any:
  """The value of JSON in UTF-8.

  Raises:
    ValueError: it is something else; names the line.
  """
  try:
    return json.loads(data.decode())
  except UnicodeDecodeError as e:
    line = data.count(b'\n', 0, e.start) + 1
    raise ValueError(f'line {line} is not UTF-8') from e
  except RecursionError as e:
    raise ValueError('brackets within brackets, too many') from e


def leaves(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
  """('a.b', value) of every value in a nested config."""
  if isinstance(value, dict) and (value or not path):
    for name, inner in value.items():
      yield from leaves(inner, f'{path}.{name}' if path else name)
  else:
    yield path, value


def write_status(
  workdir: pathlib.Path, status: str, step: int, message: str = ''
) -> None:
  """status.json: 'finished', 'interrupted' or 'diverged', and at which step."""
  value = {'status': status, 'step': step, 'message': message}
  write_json(workdir / 'status.json', value)


def read_status(workdir: pathlib.Path) -> dict[str, Any]:
  """status.json of a run; {} if there is none, or it does not parse."""
  try:
    status = parsed((workdir / 'status.json').read_bytes())
  except (OSError, ValueError):
    return {}
  return status if isinstance(status, dict) else {}
