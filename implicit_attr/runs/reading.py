"""Reading of run folders, finished, cut short or damaged: the one reader.

Reports, claims and summaries see a run as `load` gives it. What cannot be read
is left out, and `Run.problems` says in which file, which line and why; nothing
raises on a damaged file, and none is written or removed. What is left has the
types that the dataclasses name, so that nobody checks them again.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from implicit_attr import errors
from implicit_attr.runs.parsing import (
  ENDS,
  MISSING,
  Files,
  curve,
  finite,
  number,
  places,
)

CHECKPOINTS = ('last', 'train_loss', 'test_accuracy')
"""The three by which runs are compared, as far as a run reached them."""

_FILES = ('config.json', 'metrics.jsonl', 'status.json')
_FOLDERS = ('evaluation', 'spectrum')
_ABOUT = {'argv': list, 'versions': dict, 'git': dict, 'device': dict}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """evaluation/<checkpoint>.json and the arrays of its .npz.

  `clean` holds numbers. A row has the texts 'attribution' and 'attack', and
  'metrics' and 'faithfulness', name -> {'mean', 'low', 'high', …} with floats,
  NaN where unknown, and maybe such a 'certificate', or in it the text 'absent',
  such a mean 'area', shares 'censored' 'below' and 'above', and a 'curve': the
  radii 'eps' [R], and by similarity a 'mean', 'low' and 'high' of R floats; a
  row of `sanity` has the text 'attribution' and such a mean, 'spearman'. What
  else they have is as it stands in the file.
  """

  checkpoint: str
  step: int | None
  clean: dict[str, Any]
  settings: dict[str, Any]
  rows: list[dict[str, Any]]
  examples: dict[str, np.ndarray]
  sanity: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Spectrum:
  """spectrum/<checkpoint>.json and its .npz: the Hessian in the parameters."""

  numbers: dict[str, Any]
  arrays: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Run:
  """The contents of a run folder; a missing file is an empty value.

  `config` is the resolved nested config; `about` 'argv', 'versions', 'git' and
  'device' of config.json; `lines` every logged line, by step;
  `evaluations` and `spectra` by name of checkpoint; `status` how the run ended
  (status, step, message), as far as it has; `problems` maps a file to what is
  wrong with it, as the end of a sentence that begins with its name.
  """

  path: pathlib.Path
  config: dict[str, Any]
  about: dict[str, Any]
  lines: list[dict[str, Any]]
  evaluations: dict[str, Evaluation]
  spectra: dict[str, Spectrum]
  status: dict[str, Any]
  problems: dict[str, str]

  @property
  def events(self) -> list[dict[str, Any]]:
    """The lines that carry an event."""
    return [line for line in self.lines if 'event' in line]

  @property
  def damages(self) -> dict[str, str]:
    """The problems with files that do exist."""
    return {file: why for file, why in self.problems.items() if why != MISSING}

  def setting(self, path: str, default: Any = None) -> Any:
    """The config value at 'a.b', or `default` where there is none."""
    value: Any = self.config
    for name in path.split('.'):
      if not isinstance(value, dict) or value.get(name) is None:
        return default
      value = value[name]
    return value

  @functools.cached_property
  def ends(self) -> dict[str, float]:
    """The last finite value of everything logged but the step, by key."""
    ends = {
      key: float(value)
      for line in self.lines
      for key, value in line.items()
      if finite(value)
    }
    ends.pop('step', None)
    return ends

  def series(self, key: str, *more: str) -> list[np.ndarray]:
    """[steps, values of key, values of more...], over the lines with `key`.

    All float64 of one length; what is absent or not a number is NaN.
    """
    lines = [line for line in self.lines if key in line]
    return [
      np.array([number(line.get(name)) for line in lines], np.float64)
      for name in ('step', key, *more)
    ]

  def last(self, key: str) -> tuple[float, float] | None:
    """(step, value) of the last finite value of `key`; None without one."""
    steps, values = self.series(key)
    at = np.flatnonzero(np.isfinite(values))
    return (float(steps[at[-1]]), float(values[at[-1]])) if at.size else None


def is_run(folder: pathlib.Path) -> bool:
  """Has a run left a file in `folder`?"""
  return any((folder / name).is_file() for name in _FILES) or any(
    any((folder / name).glob('*.json')) for name in _FOLDERS
  )


def folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """The runs at `root` and below, however deep; not what is inside of them."""
  for folder, inside, _ in os.walk(root):
    inside.sort()
    if is_run(pathlib.Path(folder)):
      inside.clear()
      yield pathlib.Path(folder)


def load(
  workdir: str | pathlib.Path,
  *,
  arrays: Callable[[str], bool] = lambda name: True,
) -> Run:
  """Reads a run folder, finished or not.

  Args:
    arrays: which arrays of .npz files to keep, by name: those of single
      examples are nearly all of the bytes. Those of probes are not read here.

  Raises:
    InputError: `workdir` is not a folder.
  """
  path = pathlib.Path(workdir)
  errors.require(
    '--workdir', str(workdir), path.is_dir(), 'the folder of a run'
  )
  files = Files(path)
  whole = files.json('config.json')
  config = _dict(whole.get('config'))
  if not config:
    files.problems.setdefault('config.json', 'holds no config')
  there = dict.fromkeys([*CHECKPOINTS, *_names(path, 'evaluation')])
  evaluations = {name: _evaluation(files, name, arrays) for name in there}
  spectra = {
    name: Spectrum(
      files.json(f'spectrum/{name}.json'),
      files.arrays(f'spectrum/{name}.npz', arrays),
    )
    for name in _names(path, 'spectrum')
  }  # fmt: skip
  return Run(
    path=path,
    config=config,
    about={
      name: kind(whole[name] if isinstance(whole.get(name), kind) else ())
      for name, kind in _ABOUT.items()
    },
    lines=files.lines('metrics.jsonl'),
    evaluations={name: e for name, e in evaluations.items() if e},
    spectra=spectra,
    status=files.json('status.json'),
    problems=files.problems,
  )


def probes(
  workdir: pathlib.Path,
) -> tuple[dict[int, dict[str, np.ndarray]], dict[str, str]]:
  """(step -> arrays of probes/<step>.npz, problems like those of a `Run`)."""
  files, measured = Files(workdir), {}
  for file in sorted((workdir / 'probes').glob('*.npz')):
    name = f'probes/{file.name}'
    if file.stem.isascii() and file.stem.isdecimal():
      measured[int(file.stem)] = files.arrays(name, lambda name: True)
    else:
      files.problems[name] = 'is not named after a step'
  return measured, files.problems


def _names(path: pathlib.Path, part: str) -> list[str]:
  """Checkpoints with a JSON file in a folder, those of comparisons first."""
  there = sorted(file.stem for file in (path / part).glob('*.json'))
  return sorted(there, key=lambda name: [*CHECKPOINTS, name].index(name))


def _evaluation(
  files: Files, name: str, wanted: Callable[[str], bool]
) -> Evaluation | None:
  file = f'evaluation/{name}.json'
  value = files.json(file)
  if file in files.problems:
    return None
  step, clean = number(value.get('step')), _dict(value.get('clean'))
  rows = value.get('rows')
  if not isinstance(rows, list):
    rows, files.problems[file] = [], 'holds no list of rows'
  good = [_row(row) for row in rows]
  if bad := [i for i, row in enumerate(good, start=1) if not row]:
    files.problems[file] = f'cannot be read in {places("row", bad)}'
  sanity = value.get('sanity', [])
  sanity = [_sane(row) for row in (sanity if isinstance(sanity, list) else [0])]
  if not all(sanity):
    files.problems[file] = 'cannot be read in its sanity checks'
  return Evaluation(
    checkpoint=name,
    step=int(step) if np.isfinite(step) else None,
    clean={key: v for key, v in clean.items() if finite(v)},
    settings=_dict(value.get('settings')),
    rows=[row for row in good if row],
    examples=files.arrays(f'evaluation/{name}.npz', wanted),
    sanity=[row for row in sanity if row],
  )


def _row(value: Any) -> dict[str, Any] | None:
  """A row of an evaluation as `Evaluation` has it; None if it is none."""
  row = {'metrics': {}, 'faithfulness': {}, **_dict(value)}
  if not all(isinstance(row.get(n), str) for n in ('attribution', 'attack')):
    return None
  for part in ('metrics', 'faithfulness', 'certificate'):
    if not isinstance(row.get(part, {}), dict):
      return None
    if part in row:
      row[part] = {
        name: str(v) if name == 'absent' else _mean(v)
        for name, v in row[part].items()
      }
  if 'curve' in row:
    censored = _dict(row.get('censored'))
    row['censored'] = {e: number(censored.get(e)) for e in ('below', 'above')}
    row['area'], row['curve'] = _mean(row.get('area')), curve(row['curve'])
  return row


def _sane(value: Any) -> dict[str, Any] | None:
  """A row of the sanity checks; None if it is none."""
  row = _dict(value)
  fits = isinstance(row.get('attribution'), str)
  return row | {'spearman': _mean(row.get('spearman'))} if fits else None


def _mean(value: Any) -> dict[str, Any]:
  """A mean and the ends of its interval, beside what else there is."""
  value = _dict(value)
  return value | {end: number(value.get(end)) for end in ENDS}


def _dict(value: Any) -> dict[str, Any]:
  return value if isinstance(value, dict) else {}
