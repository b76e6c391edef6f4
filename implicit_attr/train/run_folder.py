"""The folder of one run while it trains: records, checkpoints, milestones.

Whether the run is alone or one of many lanes cannot be seen from it: either
can go on where the other was cut off.
"""

import contextlib
import logging
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from implicit_attr import numerics
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints
from implicit_attr.runs.metrics import Metrics
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.spans import events
from implicit_attr.train.state import State
from implicit_attr.types import Tree

LOG = logging.getLogger(__name__)


class Diverged(RuntimeError):
  """Loss, weights or curvature stopped being finite at `step`."""

  def __init__(self, step: int, what: str):
    super().__init__(
      f'diverged at step {step}: {what} is not finite; the last good '
      'checkpoint is kept'
    )
    self.step = step


class RunFolder:
  """One run's files, opened to continue at step `first`.

  Attributes:
    first: the step it goes on from.
    content: 'state' and 'memory' there, on the host; the state is zeros where
      the run is `fresh`.
    states: what was saved for the evaluation by this process, on the host:
      'train_loss', 'test_accuracy' (the first state that reached either) and
      'last'.
    diverged: why the run has ended, if it has.
    last: the step of its last state, once it is finished.

  Raises:
    InputError: `workdir` cannot be used, or its checkpoints are damaged.
  """

  def __init__(
    self,
    experiment: Experiment,
    workdir: pathlib.Path,
    memory: Callable[[Tree], Tree],
  ):
    settings = experiment.settings
    records.claim(workdir, experiment.config)
    folder = workdir / 'checkpoints'
    self._closing = contextlib.ExitStack()
    kept = lambda name, keep=1: self._closing.enter_context(
      contextlib.closing(Checkpoints(folder / name, keep=keep))
    )
    self._rolling = kept('rolling', settings.checkpoint.keep)
    self._kept = {n: kept(n) for n in (*settings.train.milestones, 'last')}
    self._thresholds = settings.train.milestones
    self._rates = experiment.learning_rates
    self.workdir = workdir
    self.diverged: Diverged | None = None
    self.last = experiment.total
    self.states: dict[str, State] = {}
    like = experiment.like()
    content = {'state': like, 'memory': memory(like.params)}
    newest = self._rolling.newest(content)
    self.fresh = newest is None
    self.first, self.content, meta = newest or (0, content, {'pending': []})
    if not self.fresh:
      LOG.info('continuing from step %d', self.first)
    self._carried = meta['pending']
    every = {name: experiment.every[name] for name in ('log', 'eval')}
    due = events(experiment.total, every, ())
    self._metrics = self._closing.enter_context(
      contextlib.closing(
        Metrics(
          workdir, self.first, settings.train.log_to, due, experiment.config
        )
      )
    )

  def close(self) -> None:
    self._closing.close()

  def live(self, step: int) -> bool:
    """Whether it takes part in `step`: it has not diverged, nor is it ahead."""
    return self.diverged is None and self.first <= step

  def save(self, step: int, state: State, memory: Tree, sums: list) -> None:
    """Saves all there is; `sums` of each update since the last record."""
    with self._guarded():
      pending = self._carried + sums
      _check(step, pending, state)
      content = {'state': state, 'memory': memory}
      self._rolling.save(step, content, {'pending': pending})

  def milestones(
    self, step: int, scores: dict[str, float], state: Callable[[], State]
  ) -> dict[str, int]:
    """Saves the state under each milestone first met now, and names them.

    'train_loss': loss on the training examples of the scorer <= its threshold;
    'test_accuracy': accuracy on the test set >= its threshold. With the last
    state they allow runs to be compared in three ways.
    """
    reached = {
      'train_loss': lambda t: scores['eval/train_loss'] <= t,
      'test_accuracy': lambda t: scores['eval/accuracy'] >= t,
    }
    met = {}
    for name, threshold in self._thresholds.items():
      kept = self._kept[name]
      if not kept.steps() and reached[name](threshold):
        self._keep(name, step, state())
        LOG.info('milestone %s at step %d', name, step)
      if kept.steps() == [step]:
        met[f'milestone/{name}'] = step
    return met

  def reached(self, name: str, step: int) -> bool:
    """Whether the milestone `name` was met at `step` or before."""
    return any(met <= step for met in self._kept[name].steps())

  def write(
    self, step: int, record: dict[str, Any], sums: list, times: dict[str, Any]
  ) -> dict[str, Any]:
    """Writes the record of `step`, with the means of `sums`, and returns it."""
    with self._guarded():
      pending, self._carried = self._carried + sums, []
      record = {**record, **means(step, pending, self._rates)}
      for name, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
          raise Diverged(step, name)
      self._metrics.write(step, record | times)
    return record

  def finish(self, step: int, state: State) -> None:
    with self._guarded():
      _check(step, [], state)
      self._keep('last', step, state)
      self.last = step

  def _keep(self, name: str, step: int, state: State) -> None:
    self._kept[name].save(step, {'state': state}, {})
    self.states[name] = state

  @contextlib.contextmanager
  def _guarded(self) -> Iterator[None]:
    """Leaves a record of a divergence that a sweep and a report can read."""
    try:
      yield
    except Diverged as e:
      self.diverged = e
      self._metrics.write(e.step, {'event': 'diverged', 'message': str(e)})
      records.write_status(self.workdir, 'diverged', e.step, str(e))
      LOG.info('%s %s', self.workdir.name, e)


def means(step: int, sums: list, rates: np.ndarray) -> dict[str, float]:
  """Training loss and accuracy over the updates since the last record.

  Raises:
    Diverged: at the first of those updates whose loss is not finite.
  """
  _finite(step, sums)
  record = {'train/learning_rate': float(rates[min(step, len(rates) - 1)])}
  if sums:
    n = sum(one['n'] for one in sums)
    record['train/loss'] = sum(one['loss'] for one in sums) / n
    record['train/accuracy'] = sum(one['correct'] for one in sums) / n
  return record


def _finite(step: int, sums: list) -> None:
  for offset, one in enumerate(sums):
    if not math.isfinite(one['loss']):
      raise Diverged(step - len(sums) + offset, 'the training loss')


def _check(step: int, sums: list, state: State) -> None:
  """Raises Diverged rather than let a state that is not finite be saved."""
  _finite(step, sums)
  if not bool(numerics.all_finite((state.params, state.model_state))):
    raise Diverged(step, 'a weight')
