"""The training loop, for one run or many lanes: spans of updates and events.

At step k: checkpoint if due, then the record of step k (evaluation, tracking
and the training means since the last record), then updates until something is
due again, in one call. A run that continues from the checkpoint of step k
repeats exactly what followed it, so a killed run ends with the same bits and
the same lines as one that was not.

Restart of lanes: each goes on from its own newest checkpoint. The loop begins
at the oldest of these, and a lane that is ahead waits: its updates are no-ops
until the loop is there. A kill between two saves costs nothing this way, nor
does a damaged checkpoint in one lane.

Guarantees: a lane's numbers are those of its single run, to rounding; which
other lanes run beside it, and whether they diverge, changes none of its bits
as long as their number stays the same.
"""

import contextlib
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from implicit_attr.runtime import cadence
from implicit_attr.runtime.programs import Program
from implicit_attr.runtime.progress import Progress
from implicit_attr.train.advance import REPORTED, make_program
from implicit_attr.train.feed import Feed
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.run_folder import RunFolder
from implicit_attr.train.scoring import Scorer
from implicit_attr.train.spans import Interrupted, Spans, Stop, events
from implicit_attr.train.state import State
from implicit_attr.train.tracking import Tracker
from implicit_attr.types import Tree

LOG = logging.getLogger(__name__)

SHOWN = ('train/loss', 'eval/accuracy', 'param/lambda_max')
"""What a progress line says beside position, speed and ETA."""


def train(
  lanes: Lanes, workdirs: Sequence[pathlib.Path], scorer: Scorer | None = None
) -> list[RunFolder]:
  """Trains each lane from its last checkpoint, or from nothing, to the end.

  Args:
    scorer: to be shared with an evaluation, so that it compiles once.

  Returns:
    The folders, closed. `diverged` says why one ended early; nothing that is
    not finite was saved in it.

  Raises:
    Interrupted: on SIGTERM or SIGINT, after saving every lane.
    InputError: a folder cannot be used, or its checkpoints are damaged.
  """
  with contextlib.ExitStack() as opened:
    stop = opened.enter_context(Stop(lanes.template.mesh.stops_itself))
    runs = [
      opened.enter_context(
        contextlib.closing(RunFolder(e, workdir, Tracker.memory))
      )
      for e, workdir in zip(lanes.experiments, workdirs, strict=True)
    ]
    stop.first = min(run.first for run in runs)
    Training(lanes, runs, scorer or Scorer(lanes)).run(stop)
  return runs


class Training:
  """The state of all lanes between two events, and what happens at them."""

  def __init__(self, lanes: Lanes, runs: Sequence[RunFolder], scorer: Scorer):
    template, self._lanes, self._runs = lanes.template, lanes, runs
    self._mesh, self._every = template.mesh, template.every
    self._total = template.total
    self._started = time.perf_counter()
    self._first = self._step = min(run.first for run in runs)
    self._scorer = scorer
    self._tracker = Tracker(lanes, [run.workdir for run in runs])
    self._state, self._memory = _begin(lanes, runs)
    ends = events(self._total, self._every, [run.first for run in runs])
    self._feed = Feed(lanes, int(max(np.diff(ends), default=1)))
    self._spans = Spans(ends, self._feed.longest, self._mesh.stops_itself)
    self._advance = make_program(lanes)
    self._values = jax.device_put(lanes.values)
    # What was found since the last record: (first step, n, sums [K] or more).
    self._pending: list[tuple[int, int, Tree]] = []
    self._progress = Progress(
      'step' if lanes.alone else f'{len(lanes)} lanes, step',
      self._first, self._total,
    )  # fmt: skip
    self._tracked = 0.0  # seconds of tracking before the first update

  def run(self, stop: Stop) -> None:
    """From the first step to the last, as the module says."""
    self._prepare()
    for count, (step, n) in enumerate(self._spans.of(self._first)):
      self._step = step
      stopping = self._mesh.stopping(count, stop.is_set())
      if stopping or cadence.due(step, self._every['checkpoint'], self._total):
        self._save()
      if stopping:
        raise Interrupted(step)
      records = self._measure()
      if self._over(step):
        self._total, n = step, 0
      log = any(records) or cadence.due(step, self._every['log'], self._total)
      covered, self._pending = self._pending, [] if log else self._pending
      if n and self._live(step):
        self._move(step, n)
        if step == self._first:
          self._begun(n)
          stop.after_a_save()
      # The numbers of step k are fetched once the span from k is under way, so
      # that writing them does not keep the devices waiting.
      if log:
        self._write(records, covered)
      if not self._live(self._total):
        return
      if not n:
        break
    self._finish()

  def _prepare(self) -> None:
    """Begins to compile whatever this run will need."""
    if self._first < self._total and isinstance(self._advance, Program):
      each = self._feed(self._first, 1)
      self._advance.prepare(*self._arguments(self._first, 1, each))
    self._tracker.prepare(self._state.averaged, self._memory)
    self._scorer.prepare(self._state.averaged)

  def _over(self, step: int) -> bool:
    """Whether every lane has reached what `train.stop_at` names."""
    name = self._lanes.template.settings.train.stop_at
    waits = (not run.reached(name, step) for _, run in self._live(self._total))
    return name != 'never' and not any(waits)

  def _live(self, step: int) -> list[tuple[int, RunFolder]]:
    return [(i, run) for i, run in enumerate(self._runs) if run.live(step)]

  def _save(self) -> None:
    with self._progress.aside():
      state, memory = self._mesh.fetch((self._state, self._memory))
      sums = jax.device_get(self._pending)
      for i, run in self._live(self._step):
        one, start = self._lanes.take((state, memory), i)
        run.save(self._step, one, start, self._sums(sums, i))

  def _measure(self) -> list[dict[str, Any]]:
    """For each lane the scores and measurements that are due, or {}."""
    step, live = self._step, self._live(self._step)
    records: list[dict[str, Any]] = [{} for _ in self._runs]
    met = np.zeros(len(self._runs), bool)
    if cadence.due(step, self._every['eval'], self._total):
      jax.block_until_ready(self._state.params)  # updates are not put aside
      with self._progress.aside():
        records = self._scorer(self._state.averaged)
        for i, run in live:
          state = lambda i=i: self._mesh.fetch(self._lanes.take(self._state, i))
          new = run.milestones(step, records[i], state)
          records[i] |= new
          met[i] = bool(new)
    alive = np.array([run.live(step) for run in self._runs])
    spent = self._tracker.seconds
    measured, self._memory = self._tracker(
      step, self._state.averaged, self._memory, alive, met
    )
    self._progress.leave_out(self._tracker.seconds - spent)
    return [a | b for a, b in zip(records, measured, strict=True)]

  def _move(self, step: int, n: int) -> None:
    """Sends off `n` updates, and waits for the span before them."""
    each = self._feed(step, n)
    before = [sums for _, _, sums in self._pending[-1:]]
    self._state, sums = self._advance(*self._arguments(step, n, each))
    self._pending.append((step, n, sums))
    jax.block_until_ready(before)
    self._spans.ended()

  def _arguments(self, step: int, n: int, each: Tree) -> tuple:
    rates = self._lanes.rates[..., step : step + n]
    width = [(0, 0)] * len(self._lanes.lead) + [(0, self._feed.longest - n)]
    active = np.array([run.live(step) for run in self._runs])
    return (
      self._values, active.reshape(self._lanes.lead), self._state,
      np.pad(rates, width), each, np.int32(n), self._feed.table,
    )  # fmt: skip

  def _begun(self, n: int) -> None:
    """The first span is over: from here on time is counted."""
    jax.block_until_ready(self._state.step)
    self._progress.begin(self._first + n)
    self._tracked = self._tracker.seconds
    spent = cadence.clock(time.perf_counter() - self._started)
    LOG.info('first step after %s', spent)

  def _sums(self, pending: list, i: int) -> list[dict[str, float]]:
    """Of each update of lane `i` in `pending`, which is on the host."""
    rows = []
    for step, n, sums in pending:
      if step >= self._runs[i].first:
        mine = self._lanes.take(sums, i)
        columns = [mine[name][:n].tolist() for name in REPORTED]
        for row in zip(*columns, strict=True):
          rows.append(dict(zip(REPORTED, row, strict=True)))
    return rows

  def _write(self, records: list[dict], covered: list) -> None:
    """The record of this step in each folder, and a line for who watches."""
    covered, shown = jax.device_get(covered), {}
    times = self._progress.times(self._step)
    if not self._lanes.alone:
      # No lane has a speed of its own: claims about time find nothing here.
      del times['time/steps_per_s']
      times['time/lanes'] = len(self._lanes)
    for i, run in self._live(self._step):
      sums = self._sums(covered, i)
      record = run.write(self._step, records[i], sums, times)
      shown = {name: record[name] for name in SHOWN if name in record}
    if not self._lanes.alone:
      shown = {'lanes': len(self._live(self._step))}
    self._progress.say(self._step, shown)

  def _finish(self) -> None:
    state = self._mesh.fetch(self._state)
    for i, run in self._live(self._total):
      run.finish(self._total, self._lanes.take(state, i))
    if self._first < self._total:
      wall = self._progress.times(self._total)['time/wall_s']
      tracked = self._tracker.seconds - self._tracked
      self._tracker.summary(wall - tracked)


def _begin(lanes: Lanes, runs: Sequence[RunFolder]) -> tuple[State, Tree]:
  """(state, memory) of all lanes on the devices: resumed, or new."""
  states = [run.content['state'] for run in runs]
  if any(run.fresh for run in runs):
    new = lanes.init() if lanes.alone else jax.device_get(lanes.init())
    for i, run in enumerate(runs):
      if run.fresh:
        states[i] = lanes.take(new, i)
  memory = lanes.stack([run.content['memory'] for run in runs])
  return lanes.template.mesh.replicate((lanes.stack(states), memory))
