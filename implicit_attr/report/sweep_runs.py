"""The runs of a sweep, each in a few numbers and curves, and their records.

Nothing of a run is executed, and what is cut short gives what it has. Of every
run only that is kept which some figure of the sweep needs, so that hundreds
of them fit into memory.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from implicit_attr import claims, errors
from implicit_attr.report import summary, tables
from implicit_attr.report.tables import by
from implicit_attr.runs import reading
from implicit_attr.runs.reading import Run
from implicit_attr.runs.records import leaves

CURVES = ('param/lambda_max', 'param/edge', 'input/normalized_curvature')
"""Whose course over training is kept."""

MOST = 12
"""Groups that get a panel; the rest is in the table of all runs."""

_SETS_APART = ('model', 'data', 'optim', 'loss', 'objective', 'evaluation')
_OF_AN_ARM = ('optim.lr', 'data.batch_size')


@dataclasses.dataclass(eq=False)
class Trial:
  """One run of a sweep.

  `family` names network, attention, data and loss; `group` adds whatever else
  tells runs apart but learning rate, batch size and seed. `curves` are
  key -> (steps, values), `ends` the last finite value of every key logged,
  `status` is that of status.json or 'unfinished'. `lr` and `batch` are NaN
  where unknown.
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
  objective: str
  curves: dict[str, Sequence[np.ndarray]]
  ends: dict[str, float]
  group: str = ''


@dataclasses.dataclass(frozen=True)
class Tree:
  """All runs under a folder, by name, and what claims are judged by.

  `records` are those of `claims.read`, each with its 'trial'; `lost` those of
  runs that did not come to a rule of comparison; `problems` maps
  a run to the reason why it has none, and `damages` a file to what is wrong
  with it, as the ends of sentences.
  """

  path: pathlib.Path
  trials: list[Trial]
  records: list[dict[str, Any]]
  problems: dict[str, str]
  damages: dict[str, str]
  lost: list[dict[str, Any]] = dataclasses.field(default_factory=list)

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
    there = {record['rule'] for record in self.records}
    known = [name for name in tables.RULES if name in there]
    return known + sorted(there - set(known))

  def leading(self, family: str = 'gradient') -> str | None:
    """The map that stands for the others: most runs have it."""
    count = collections.Counter(
      record['map'] for record in self.records if record['family'] == family
    )
    return max(count, key=lambda m: (count[m], m == 'gradient'), default=None)


def holds_runs(path: pathlib.Path) -> bool:
  """Is this a folder of runs and no run itself?"""
  return next(reading.folders(path), path) != path


def load(root: str | pathlib.Path) -> Tree:
  """Reads every run under `root`, however deep, finished or not.

  Raises:
    InputError: `root` is not a folder, or holds no run.
  """
  root = pathlib.Path(root)
  ok = root.is_dir() and holds_runs(root)
  errors.require('--workdir', str(root), ok, 'a folder with runs in it')
  tree = Tree(root, [], [], {}, {})
  apart = []
  for folder in reading.folders(root):
    name = folder.relative_to(root).as_posix()
    run = reading.load(folder, arrays=claims.wanted)
    trial = _trial(name, run)
    records, problem = claims.of_run(run)
    tree.trials.append(trial)
    for record in records:
      place = tree.lost if record.get('absent') else tree.records
      place.append(record | {'trial': trial})
    if problem:
      tree.problems[name] = problem
    for file, why in run.damages.items():
      tree.damages[f'{name}/{file}'] = why
    apart.append(_apart(run))
  _name_groups(tree.trials, apart)
  return tree


def _trial(name: str, run: Run) -> Trial:
  seed = run.setting('seed')
  last = max((line['step'] for line in run.lines), default=None)
  return Trial(
    name=name,
    path=run.path,
    status=str(run.status.get('status', 'unfinished')),
    step=reading.number(run.status.get('step', last)),
    message=str(run.status.get('message') or ''),
    lr=reading.number(run.setting('optim.lr')),
    batch=reading.number(run.setting('data.batch_size')),
    seed=seed if isinstance(seed, int) else None,
    family=_family(run),
    objective=str(run.setting('objective.name', 'none')),
    curves={key: run.series(key) for key in CURVES if key in run.ends},
    ends=run.ends,
  )


def _apart(run: Run) -> dict[str, str]:
  """What may set a run apart from others: 'a.b' -> value as JSON."""
  return {
    name: json.dumps(value)
    for section in _SETS_APART
    for name, value in leaves(run.setting(section, {}), section)
    if name not in _OF_AN_ARM
  }


def _family(run: Run) -> str:
  if not run.config:
    return 'unknown'
  parts = [summary.proper(run.setting('model.name', 'network'))]
  if run.setting('model.attention'):
    parts.append(f'{tables.plain(str(run.setting("model.attention")))}')
  parts.append(str(run.setting('data.name', 'unknown data')))
  parts.append(tables.plain(str(run.setting('loss.name', 'unknown loss'))))
  return ', '.join(parts)


def _name_groups(
  trials: Sequence[Trial], apart: Sequence[dict[str, str]]
) -> None:
  """Gives each trial its group: its family and what else tells it apart.

  Settings that only repeat what earlier ones say are not named.
  """
  for trial in trials:
    trial.group = trial.family
  pairs = list(zip(trials, apart, strict=True))
  for mine in by(pairs, lambda pair: pair[0].family).values():
    told: list[tuple[str, ...]] = [() for _ in mine]
    for key in dict.fromkeys(key for _, settings in mine for key in settings):
      values = [settings.get(key, 'null') for _, settings in mine]
      finer = [(*t, v) for t, v in zip(told, values, strict=True)]
      if len(set(finer)) > len(set(told)):
        told = finer
        leaf = tables.plain(key.partition('.')[2].replace('.', ' '))
        for (trial, _), value in zip(mine, values, strict=True):
          trial.group += f', {leaf} {tables.plain(value.strip(chr(34)))}'


def first(groups: dict[str, Any]) -> dict[str, Any]:
  """Those that get a panel."""
  return dict(list(groups.items())[:MOST])
