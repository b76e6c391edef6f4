"""What did the runs of a folder do, each in a few numbers and a few curves?

Nothing of a run is executed, and what is cut short gives what it has. Of every
run only that is kept which some figure of the sweep needs, so that hundreds
of them fit into memory.
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from implicit_attr import claims, errors
from implicit_attr.report import read, summary, tables

CURVES = ('param/lambda_max', 'param/edge', 'input/normalized_curvature')
"""Whose course over training is kept."""

ENDS = (
  'eval/accuracy', 'eval/loss', 'param/lambda_max', 'param/trace',
  'input/lambda_max', 'input_loss/lambda_max', 'input/normalized_curvature',
  'align/w1_sq_lambda', 'align/mean_input_lambda', 'attention/entropy_ratio',
  'attention/entropy', 'attention/spread_floor', 'attention/gap',
  'attention/gap_cap', 'time/wall_s',
)  # fmt: skip
"""Of which the last value is kept."""

_SETS_APART = ('model', 'data', 'optim', 'loss', 'objective', 'evaluation')
_OF_AN_ARM = ('optim.lr', 'data.batch_size')


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run of a sweep.

  `family` names network, attention, data and loss; `group` adds whatever else
  tells runs apart but learning rate, batch size and seed. `curves` are
  key -> (steps, values), `ends` key -> last finite value, `status` is that of
  status.json or 'unfinished'. `lr` and `batch` are NaN where unknown.
  """

  name: str
  path: pathlib.Path
  status: str
  step: float
  message: str
  lr: float
  batch: float
  seed: int | None
  family: str
  group: str
  objective: str
  curves: dict[str, tuple[np.ndarray, np.ndarray]]
  ends: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Tree:
  """All runs under a folder, by name, and what claims are judged by.

  `records` are those of `claims.read`, each with its 'trial'; `problems` maps
  a run to the reason why it has none, as the end of a sentence.
  """

  path: pathlib.Path
  trials: list[Trial]
  records: list[dict[str, Any]]
  problems: dict[str, str]

  @property
  def groups(self) -> dict[str, list[Trial]]:
    """Trials of known learning rate and batch size by `group`."""
    return by(self._known, lambda trial: trial.group)

  @property
  def families(self) -> dict[str, list[Trial]]:
    """Trials of known learning rate and batch size by `family`."""
    return by(self._known, lambda trial: trial.family)

  @property
  def _known(self) -> list[Trial]:
    return [t for t in self.trials if np.isfinite(t.lr + t.batch)]

  @property
  def swept(self) -> bool:
    """Do learning rate or batch size vary within a group?"""
    return any(
      len({(t.lr, t.batch) for t in trials}) > 1
      for trials in self.groups.values()
    )

  @property
  def rules(self) -> list[str]:
    """The rules of comparison of which there is a record."""
    found = {record['rule'] for record in self.records}
    known = [name for name in tables.RULES if name in found]
    return known + sorted(found - set(known))

  def leading(self, family: str = 'gradient') -> str | None:
    """The map that stands for the others: most runs have it."""
    count = collections.Counter(
      record['map'] for record in self.records if record['family'] == family
    )
    return max(count, key=lambda m: (count[m], m == 'gradient'), default=None)


def holds_runs(path: pathlib.Path) -> bool:
  """Is this a folder of runs and no run itself?"""
  alone = any((path / name).exists() for name in ('config.json', 'evaluation'))
  return path.is_dir() and not alone and any(_folders(path))


def load(root: str | pathlib.Path) -> Tree:
  """Reads every run under `root`, however deep, finished or not.

  Raises:
    InputError: `root` is not a folder, or holds no run.
  """
  root = pathlib.Path(root)
  folders = sorted(_folders(root))
  errors.require('--workdir', str(root), folders, 'a folder with runs in it')
  found = [_trial(root, folder) for folder in folders]
  names = _groups([(trial.family, settings) for trial, settings in found])
  trials = [
    dataclasses.replace(trial, group=name)
    for (trial, _), name in zip(found, names, strict=True)
  ]
  known = {str(trial.path): trial for trial in trials}
  records, problems = claims.read(root)
  return Tree(
    root,
    trials,
    [
      record | {'trial': known[record['run']]}
      for record in records
      if record['run'] in known  # a copy inside a run is no run of the tree
    ],
    {str(pathlib.Path(p).relative_to(root)): s for p, s in problems.items()},
  )


def _folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Folders with a config.json or a status.json; not what is inside those."""
  for folder, inside, files in os.walk(root):
    if folder != str(root) and {'config.json', 'status.json'} & set(files):
      inside.clear()
      yield pathlib.Path(folder)


def _trial(
  root: pathlib.Path, folder: pathlib.Path
) -> tuple[Trial, dict[str, str]]:
  """(the run, what sets it apart from others: 'a.b' -> value as JSON)."""
  run = read.load(folder, arrays=False)
  curves, ends = {}, {}
  for key in CURVES:
    steps, values = run.series(key)
    if np.isfinite(values).any():
      curves[key] = steps, values
  for key in ENDS:
    last = run.last(key)
    if last:
      ends[key] = last[1]
  number = lambda path: read.number(run.setting(path))
  seed = run.setting('seed')
  steps = [line['step'] for line in run.lines]
  trial = Trial(
    name=folder.relative_to(root).as_posix(),
    path=folder,
    status=str(run.status.get('status', 'unfinished')),
    step=read.number(run.status.get('step', max(steps, default=None))),
    message=str(run.status.get('message') or ''),
    lr=number('optim.lr'),
    batch=number('data.batch_size'),
    seed=seed if isinstance(seed, int) else None,
    family=_family(run),
    group='',
    objective=str(run.setting('objective.name', 'none')),
    curves=curves,
    ends=ends,
  )
  settings = {
    name: json.dumps(value)
    for section in _SETS_APART
    for name, value in _leaves(run.setting(section, {}), section)
    if name not in _OF_AN_ARM
  }
  return trial, settings


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from _leaves(inner, f'{path}.{name}')
  else:
    yield path, value


def _family(run: read.Run) -> str:
  if not run.config:
    return 'unknown'
  parts = [summary.proper(run.setting('model.name', 'network'))]
  if run.setting('model.attention'):
    parts.append(f'{tables.plain(str(run.setting("model.attention")))}')
  parts.append(str(run.setting('data.name', 'unknown data')))
  parts.append(tables.plain(str(run.setting('loss.name', 'unknown loss'))))
  return ', '.join(parts)


def _groups(runs: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
  """The name of each run's group: its family and what else tells it apart.

  Settings that only repeat what earlier ones say are not named.
  """
  names = [family for family, _ in runs]
  for family in dict.fromkeys(names):
    mine = [i for i, (name, _) in enumerate(runs) if name == family]
    keys = list(dict.fromkeys(key for i in mine for key in runs[i][1]))
    told: list[tuple[str, ...]] = [() for _ in mine]
    for key in keys:
      values = [runs[i][1].get(key, 'null') for i in mine]
      finer = [(*t, v) for t, v in zip(told, values, strict=True)]
      if len(set(finer)) > len(set(told)):
        told = finer
        for i, value in zip(mine, values, strict=True):
          leaf = tables.plain(key.partition('.')[2].replace('.', ' '))
          names[i] += f', {leaf} {tables.plain(value.strip(chr(34)))}'
  return names


def by(items: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
  """Items by what `key` says of them, in order of appearance."""
  found: dict[Any, list[Any]] = {}
  for item in items:
    found.setdefault(key(item), []).append(item)
  return found
