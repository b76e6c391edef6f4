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


def build(configs: Sequence[dict[str, Any]]) -> Lanes:
  """What one config describes, or several that `lanes.groups` put together.

  Nothing is written, and nothing of what can be wrong in a config is left for
  later: maps and attacks have been traced for their shapes.

  Raises:
    InputError: one line with the field, the value and what is allowed.
  """
  for config in configs:
    errors.require(
      '--config', '…', 'arms' not in config, 'a sweep only with --mode=sweep'
    )
  lanes = Lanes.of([experiment.build(config) for config in configs])
  programs.set_effort(lanes.template.settings.compile)
  evaluation.check(lanes.template)
  return lanes


def train(lanes: Lanes, workdirs: Sequence[pathlib.Path]) -> None:
  """Trains, tracks and evaluates each lane in its folder.

  Every folder ends with a status.json of 'finished' or 'diverged'.

  Raises:
    Diverged: of one run; where there are many, the others go on.
    Interrupted: on SIGTERM or SIGINT, after saving.
    InputError: a folder or a file of a run cannot be used; what was written is
      whole.
  """
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
  for i in ended:
    records.write_status(workdirs[i], 'finished', runs[i].last)


def evaluate(lanes: Lanes, workdirs: Sequence[pathlib.Path]) -> None:
  """Evaluates runs that have a checkpoint.

  Raises:
    InputError: there is no checkpoint, or one is damaged.
  """
  evaluation.evaluate(lanes, workdirs)
