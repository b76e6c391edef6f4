"""Arms of a sweep in the order and number that fit a budget of seconds."""

import contextlib
import dataclasses
import itertools
import logging
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from implicit_attr.runs import records
from implicit_attr.train.lanes import groups

LOG = logging.getLogger(__name__)

DONE = ('finished', 'diverged')
"""Statuses that are an answer. A divergence is one; 'failed' is not."""


@dataclasses.dataclass(frozen=True)
class Arm:
  """A name, which is its folder under the root, and a resolved config."""

  name: str
  config: dict[str, Any]


class Budget:
  """What may still begin, judged by what the arms under `root` have taken.

  An arm is taken to need what those with its config save the seed have needed,
  else what the slowest did, and nothing while no arm is done. How long an arm
  took stands in its status.json, 'seconds': its share where many were one
  program. No `seconds` are no limit.
  """

  def __init__(
    self, seconds: float | None, root: pathlib.Path, arms: Sequence[Arm]
  ):
    self._seconds, self._root, self._arms = seconds, root, arms
    self._began = time.monotonic()

  def groups(self, due: list[Arm], lanes: int) -> Iterator[list[Arm]]:
    """The arms that train together; with a limit each group is of one seed."""
    limited = self._seconds is not None
    seed = lambda arm: arm.config['seed'] if limited else None
    for _, alike in itertools.groupby(due, seed):
      alike = list(alike)
      places = [[i] for i in range(len(alike))]
      if lanes > 1:
        places = groups([arm.config for arm in alike], lanes)
      yield from ([alike[i] for i in group] for group in places)

  def allows(self, group: list[Arm]) -> bool:
    """Whether `group` would end in time; says so where it would not."""
    if self._seconds is None:
      return True
    known = [
      (_unseeded(arm), seconds)
      for arm in self._arms
      if (seconds := records.read_status(self._root / arm.name).get('seconds'))
    ]
    slowest = max((seconds for _, seconds in known), default=0.0)
    of = lambda arm: [s for config, s in known if config == _unseeded(arm)]
    needs = sum(max(of(arm), default=slowest) for arm in group)
    left = self._seconds - (time.monotonic() - self._began)
    if needs > left or left <= 0:
      LOG.info(
        'the budget ends here: %s needs some %.0f s, and %.0f s are left; the '
        'same command goes on', group[0].name, needs, max(left, 0),
      )  # fmt: skip
      return False
    return True

  @contextlib.contextmanager
  def timed(self, arms: list[Arm]) -> Iterator[None]:
    """Adds to the status of each arm that gets done inside what it took."""
    start = time.monotonic()
    yield
    for arm in arms:
      status = records.read_status(self._root / arm.name)
      if status.get('status') in DONE:
        took = round((time.monotonic() - start) / len(arms), 2)
        path = self._root / arm.name / 'status.json'
        records.write_json(path, {**status, 'seconds': took})


def _unseeded(arm: Arm) -> dict[str, Any]:
  return {**arm.config, 'seed': None}
