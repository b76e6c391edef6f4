"""Metrics of a run: metrics.jsonl, one JSON object a logged step.

The lines are the record; trackers, where asked for, are mirrors of them.
What is damaged is never deleted: good lines are kept and used, and the file as
it was is set aside.
"""

import contextlib
import itertools
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from implicit_attr import errors
from implicit_attr.runs import records
from implicit_attr.runs.mirrors import Mirrors

LOG = logging.getLogger(__name__)


class Metrics:
  """metrics.jsonl, opened to continue at `step`.

  Lines of steps >= `step`, and a last line that a kill cut in half, are
  dropped first: the run is about to write them again, so that no step is lost
  or doubled. Of a damaged file every good line is kept, the file as it was is
  set aside as 'metrics.jsonl.damaged', and a warning of one line says which
  lines cannot be read and which steps are missing. Whether a digit has changed
  cannot be seen.

  Args:
    log_to: names of `mirrors.MIRRORS`, which are shown the lines.
    due: steps that have a line in a file which nobody has harmed.
    config: of the run, for the mirrors.

  Raises:
    InputError: the folder cannot be read or written, or a mirror cannot begin;
      so does `write`, on a full disk, and then the lines before it are whole.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int,
    log_to: Sequence[str] = (),
    due: Iterable[int] = (),
    config: Mapping[str, Any] | None = None,
  ):
    self._path = workdir / 'metrics.jsonl'
    self._file = self._mirrors = None
    if records.silenced():
      return
    lines, damaged = _lines(self._path)
    kept = {key: raw for key, (raw, _) in lines.items() if key[0] < step}
    missing = [s for s in due if s < step and (s, False) not in kept]
    said = [f'line {_listed(damaged)} cannot be read'] if damaged else []
    if damaged:
      aside = _aside(self._path)
      said.append(f'the file as it was is kept as {aside.name}')
    if missing:
      said.append(f'no line is there for step {_listed(missing)}')
    if said:
      LOG.warning('%s: %s', self._path, '; '.join(said))
    text = b''.join(raw + b'\n' for raw in kept.values())
    records.write_file(self._path, lambda file: file.write(text))
    seen = max((key[0] for key in lines), default=-1)
    self._mirrors = Mirrors(workdir, log_to, step, seen, config or {})
    self._file = self._path.open('a')

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
    if self._mirrors is not None:
      self._mirrors.log(step, clean)

  def close(self) -> None:
    if self._file is not None:
      with contextlib.suppress(OSError):  # told by `write` already
        self._file.close()
    if self._mirrors is not None:
      self._mirrors.close()


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Every good line of metrics.jsonl, by step; [] if there is none.

  Raises:
    InputError: there is one, and it cannot be read at all.
  """
  lines, _ = _lines(workdir / 'metrics.jsonl')
  return [line for _, line in lines.values()]


def _lines(path: pathlib.Path) -> tuple[dict, list[int]]:
  try:
    return good_lines(path.read_bytes() if path.exists() else b'')
  except OSError as e:
    raise errors.InputError(
      f'{str(path)!r} cannot be read ({e.strerror})'
    ) from e


def good_lines(data: bytes) -> tuple[dict, list[int]]:
  """({(step, is it an event): (raw, line)} by step, numbers of damaged lines).

  What follows the last line break was cut by a kill, and is no damage. Of a
  step that stands twice the later line counts.
  """
  lines, damaged, raws = {}, [], data.split(b'\n')
  for number, raw in enumerate(raws, start=1):
    try:
      line = records.parsed(raw)
    except ValueError:
      line = None
    line = line if isinstance(line, dict) else {}
    step = line.get('step')
    if type(step) is int and 0 <= step < 1 << 53:
      lines[step, 'event' in line] = raw, line
    elif number < len(raws):
      damaged.append(number)
  return dict(sorted(lines.items(), key=lambda item: item[0])), damaged


def _aside(path: pathlib.Path) -> pathlib.Path:
  """Copies a damaged file beside itself, under a name that is free."""
  names = (f'{path.name}.damaged{n or ""}' for n in itertools.count())
  aside = next(p for p in map(path.with_name, names) if not p.exists())
  records.write_file(aside, lambda file: file.write(path.read_bytes()))
  return aside


def _listed(numbers: list[int]) -> str:
  more = f' and {len(numbers) - 10} more' if len(numbers) > 10 else ''
  return ', '.join(map(str, numbers[:10])) + more
