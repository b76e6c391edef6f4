"""Runs from their configs to their last file: train, track, evaluate.

One config, or many that differ in traced numbers and train as one program.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from implicit_attr import errors
from implicit_attr.evaluation import evaluate as evaluation
from implicit_attr.runs import records
from implicit_attr.runtime import programs
from implicit_attr.train import experiment, loop
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.scoring import Scorer


def train(
  configs: Sequence[dict[str, Any]], workdirs: Sequence[pathlib.Path]
) -> None:
  """Trains, tracks and evaluates one run, or the lanes of `lanes.groups`.

  Every folder ends with a status.json of 'finished' or 'diverged'.

  Raises:
    Diverged: of one run; where there are many, the others go on.
    Interrupted: on SIGTERM or SIGINT, after saving.
    InputError: a config, a folder or a file of a run cannot be used; what was
      written is whole.
  """
  lanes = _lanes(configs)
  scorer = Scorer(lanes)
  runs = loop.train(lanes, workdirs, scorer)
  if lanes.alone and runs[0].diverged:
    raise runs[0].diverged
  ended = [i for i, run in enumerate(runs) if not run.diverged]
  if not ended:
    return
  if len(ended) < len(lanes):  # another number of lanes is another program
    lanes = Lanes.of([lanes.experiments[i] for i in ended])
    scorer = Scorer(lanes)
  folders = [workdirs[i] for i in ended]
  states = [runs[i].states for i in ended]
  evaluation.evaluate(lanes, folders, scorer, states)
  for folder in folders:
    records.write_status(folder, 'finished', lanes.template.total)


def evaluate(config: dict[str, Any], workdir: pathlib.Path) -> None:
  """Evaluates a run that has a checkpoint, as `config` says.

  Raises:
    InputError: as `train`; or there is no checkpoint.
  """
  evaluation.evaluate(_lanes([config]), [workdir])


def _lanes(configs: Sequence[dict[str, Any]]) -> Lanes:
  for config in configs:
    errors.require(
      '--config', '…', 'arms' not in config, 'a sweep only with --mode=sweep'
    )
  programs.set_effort(configs[0]['compile'])
  lanes = Lanes.of([experiment.build(config) for config in configs])
  evaluation.check(lanes.template)
  return lanes
