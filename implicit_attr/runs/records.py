"""What does a run write down? One config.json, and one JSON line a step.

The lines are the record; TensorBoard, where asked for, is a mirror of them.
"""

import contextlib
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
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
  found = read_config(workdir)['config']
  if config is None:
    return found
  config = json.loads(json.dumps(config))
  same = {**config, 'evaluation': found['evaluation']}
  _same(workdir, found, same)
  return config


def _same(workdir: pathlib.Path, found: dict, config: dict) -> None:
  changes = differences(found, config)
  errors.require(
    '--workdir', str(workdir), not changes,
    'a new folder, or one of the same config; it differs in '
    + '; '.join(changes[:5])
    + (f' and {len(changes) - 5} more' if len(changes) > 5 else ''),
  )  # fmt: skip


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """config.json of a run.

  Raises:
    InputError: there is none, or it does not parse.
  """
  path = workdir / 'config.json'
  try:
    return json.loads(path.read_text())
  except (OSError, json.JSONDecodeError) as e:
    raise errors.InputError(
      f'--workdir={str(workdir)!r} must be the folder of a run, with a '
      f'readable config.json'
    ) from e


def write_status(
  workdir: pathlib.Path, status: str, step: int, message: str = ''
) -> None:
  """status.json: 'finished', 'interrupted' or 'diverged', and at which step."""
  value = {'status': status, 'step': step, 'message': message}
  write_json(workdir / 'status.json', value)


def read_status(workdir: pathlib.Path) -> dict[str, Any]:
  """status.json of a run; {} if there is none, or it does not parse."""
  try:
    found = json.loads((workdir / 'status.json').read_text())
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


class Metrics:
  """metrics.jsonl, opened to continue at `step`.

  Lines of steps >= `step`, and a last line that a kill cut in half, are
  dropped first: the run is about to write them again, so that no step is lost
  or doubled.

  Raises:
    InputError: the folder cannot be written; so does `write`, on a full disk,
      and then the lines before it are whole.
  """

  def __init__(
    self, workdir: pathlib.Path, step: int, tensorboard: bool = False
  ):
    self._path = workdir / 'metrics.jsonl'
    self._file = self._mirror = None
    if _SILENT.is_set():
      return
    kept = [line for line in read_metrics(workdir) if line['step'] < step]
    text = ''.join(json.dumps(line) + '\n' for line in kept)
    write_file(self._path, lambda file: file.write(text.encode()))
    self._file = self._path.open('a')
    if tensorboard:
      from tensorboardX import SummaryWriter

      self._mirror = SummaryWriter(str(workdir / 'tensorboard'))

  def write(self, step: int, values: dict[str, Any]) -> None:
    """Appends {'step': step, **values}; a non-finite number becomes null."""
    if self._file is None:
      return
    clean = {
      key: None if isinstance(v, float) and not math.isfinite(v) else v
      for key, v in values.items()
    }
    try:
      self._file.write(json.dumps({'step': step, **clean}) + '\n')
      self._file.flush()
      os.fsync(self._file.fileno())  # a checkpoint may follow
    except OSError as e:
      raise errors.InputError(
        f'{str(self._path)!r} cannot be written ({e.strerror or e})'
      ) from e
    if self._mirror is not None:
      for key, value in clean.items():
        if isinstance(value, int | float):
          self._mirror.add_scalar(key, value, step)

  def close(self) -> None:
    if self._file is not None:
      with contextlib.suppress(OSError):  # told by `write` already
        self._file.close()
    if self._mirror is not None:
      self._mirror.close()


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Every whole line of metrics.jsonl; empty if there is none."""
  path = workdir / 'metrics.jsonl'
  lines = []
  if path.exists():
    for line in path.read_text().splitlines():
      try:
        lines.append(json.loads(line))
      except json.JSONDecodeError:
        break  # cut by a kill; nothing follows it
  return lines
