"""What is there to report? Whatever a run directory holds, whole or not.

A run that was killed leaves files out or cuts them short. Nothing here fails
on that: what cannot be read is empty, and `Run.problems` says which and why.
"""

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from implicit_attr import errors

CHECKPOINTS = ('last', 'train_loss', 'test_accuracy')
"""The three rules by which runs are compared; see `tables.RULES`."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """evaluation/<checkpoint>.json and, where kept, its .npz of examples."""

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
  """The contents of a run directory; a missing file is an empty value.

  `config` is the resolved nested config; `about` the rest of config.json
  (argv, overrides, versions, git, device); `lines` every logged line and
  `events` the lines that carry an event, both in order of step;
  `evaluations` and `spectra` by name of checkpoint; `status` how the run
  ended (status, step, message), as far as it has; `problems` maps a file to
  the reason why it is not in here, as the end of a sentence that starts with
  its name.
  """

  path: pathlib.Path
  config: dict[str, Any]
  about: dict[str, Any]
  lines: list[dict[str, Any]]
  events: list[dict[str, Any]]
  evaluations: dict[str, Evaluation]
  spectra: dict[str, Spectrum]
  status: dict[str, Any]
  problems: dict[str, str]

  def setting(self, path: str, default: Any = None) -> Any:
    """The config value at 'a.b', or `default` where there is none."""
    value: Any = self.config
    for name in path.split('.'):
      if not isinstance(value, dict) or value.get(name) is None:
        return default
      value = value[name]
    return value

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
    finite = np.flatnonzero(np.isfinite(values))
    if not finite.size:
      return None
    return float(steps[finite[-1]]), float(values[finite[-1]])


def load(workdir: str | pathlib.Path, *, arrays: bool = True) -> Run:
  """Reads a run directory, finished or not.

  Args:
    arrays: False leaves the numbers of single examples on disk, which are
      nearly all of the bytes.

  Raises:
    InputError: `workdir` is not a folder.
  """
  path = pathlib.Path(workdir)
  errors.require(
    '--workdir', str(workdir), path.is_dir(), 'the folder of a run'
  )
  problems: dict[str, str] = {}
  whole = _json(path, 'config.json', problems)
  config = _dict(whole.pop('config', None))
  lines = _metrics(path, problems)
  of_file = lambda name: _arrays(path, name, problems) if arrays else {}
  evaluations = {}
  for name in dict.fromkeys([*CHECKPOINTS, *_stems(path / 'evaluation')]):
    found = _json(path, f'evaluation/{name}.json', problems)
    if found:
      evaluations[name] = Evaluation(
        checkpoint=name,
        step=found.get('step'),
        clean=_dict(found.get('clean')),
        settings=_dict(found.get('settings')),
        rows=_dicts(found.get('rows')),
        sanity=_dicts(found.get('sanity')),
        examples=of_file(f'evaluation/{name}.npz'),
      )
  spectra = {
    name: Spectrum(
      _json(path, f'spectrum/{name}.json', problems),
      of_file(f'spectrum/{name}.npz'),
    )
    for name in _stems(path / 'spectrum')
  }
  return Run(
    path=path,
    config=config,
    about=whole,
    lines=lines,
    events=[line for line in lines if 'event' in line],
    evaluations=evaluations,
    spectra=spectra,
    status=_json(path, 'status.json', problems),
    problems=problems,
  )


def _stems(folder: pathlib.Path) -> list[str]:
  """Names of the JSON files in `folder`, known checkpoints first."""
  found = sorted(file.stem for file in folder.glob('*.json'))
  return sorted(found, key=lambda name: name not in CHECKPOINTS)


def number(value: Any) -> float:
  """As a float; NaN for what is no number."""
  fits = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if fits else float('nan')


def _dicts(value: Any) -> list[dict[str, Any]]:
  return [row for row in value or [] if isinstance(row, dict)]


def _dict(value: Any) -> dict[str, Any]:
  return dict(value) if isinstance(value, dict) else {}


def _json(
  path: pathlib.Path, name: str, problems: dict[str, str]
) -> dict[str, Any]:
  try:
    value = json.loads((path / name).read_text())
  except FileNotFoundError:
    problems[name] = 'is not there'
    return {}
  except (OSError, ValueError):
    problems[name] = 'is there, but cannot be read'
    return {}
  if not isinstance(value, dict):
    problems[name] = 'does not hold a JSON object'
  return _dict(value)


def _metrics(
  path: pathlib.Path, problems: dict[str, str]
) -> list[dict[str, Any]]:
  """Whole lines, by step; a line that a kill cut short ends the reading."""
  name = 'metrics.jsonl'
  try:
    text = (path / name).read_text(errors='replace')
  except OSError:
    problems[name] = 'is not there'
    return []
  lines = []
  for raw in text.splitlines():
    try:
      line = json.loads(raw)
    except ValueError:
      break
    if isinstance(line, dict) and np.isfinite(number(line.get('step'))):
      lines.append(line)
  if not lines:
    problems[name] = 'holds no whole line'
  return sorted(lines, key=lambda line: line['step'])


def _arrays(
  path: pathlib.Path, name: str, problems: dict[str, str]
) -> dict[str, np.ndarray]:
  try:
    # Opened here: numpy leaves a file that is no archive open.
    with (path / name).open('rb') as file:
      archive = np.load(file, allow_pickle=False)
      return {key: archive[key] for key in archive.files}
  except FileNotFoundError:
    problems[name] = 'is not there'
  except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile):
    problems[name] = 'is there, but cannot be read'
  return {}
