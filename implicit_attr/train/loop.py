"""What happens between the first step and the last, in which order?

At step k: checkpoint if due, then the record of step k (evaluation, tracking
and the training means since the last record), then update k. A run that
continues from the checkpoint of step k repeats exactly what followed it, so a
killed run ends with the same bits and the same lines as one that was not.
"""

import contextlib
import logging
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from implicit_attr import keys, numerics
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints
from implicit_attr.runtime import cadence
from implicit_attr.runtime.programs import Program
from implicit_attr.runtime.progress import Progress
from implicit_attr.train import State, make_sums, make_update
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.scoring import Scorer
from implicit_attr.train.tracking import Tracker

LOG = logging.getLogger(__name__)

SHOWN = ('train/loss', 'eval/accuracy', 'param/lambda_max')
"""What a progress line says beside position, speed and ETA."""


class Diverged(RuntimeError):
  """Loss, weights or curvature stopped being finite at `step`."""

  def __init__(self, step: int, what: str):
    super().__init__(
      f'diverged at step {step}: {what} is not finite; the last good '
      'checkpoint is kept'
    )
    self.step = step


class Interrupted(RuntimeError):
  """SIGTERM or SIGINT arrived at `step`, and the state is saved."""

  def __init__(self, step: int):
    super().__init__(f'stopped at step {step}; the same command goes on there')
    self.step = step


def make_train_step(experiment: Experiment) -> Callable:
  """(state, batch, lr, seed) -> (state, sums of loss, correct, n).

  Learning rate and seed are traced: one compilation serves a whole run and,
  through the persistent cache, a sweep over both. The state is donated. A
  `Program`, or for pmap a function that compiles when it is called.
  """
  mesh = experiment.mesh
  sums = mesh.sums(make_sums(experiment.module, experiment.make_loss_fn))
  update = make_update(experiment.tx)
  if mesh.mode == 'pmap':  # `sums` is spread already; only `update` is left
    update = jax.jit(update, donate_argnums=0)

  def train_step(state, batch, lr, seed):
    key = keys.stream(seed, 'train', state.step)
    found = sums(state.params, state.model_state, batch, key)
    reported = {name: found[name] for name in ('loss', 'correct', 'n')}
    return update(state, found, lr), reported

  if mesh.mode == 'pmap':
    return train_step
  return Program(train_step, donate_argnums=0, out_shardings=mesh.whole)


def train(experiment: Experiment, workdir: pathlib.Path) -> State:
  """Trains from the last checkpoint, or from nothing, to the last step.

  Returns:
    The final state, on the devices.

  Raises:
    Diverged: a loss, a curvature or a weight is not finite; nothing that is
      not finite was saved.
    Interrupted: on SIGTERM or SIGINT, after saving.
    InputError: `workdir` cannot be used, or its checkpoints are damaged.
  """
  config, total, every = experiment.config, experiment.total, experiment.every
  rates, seed = experiment.learning_rates, np.uint32(config['seed'])
  started = time.perf_counter()
  records.claim(workdir, config)
  folder = workdir / 'checkpoints'
  with contextlib.ExitStack() as stack:
    opened = lambda thing: stack.enter_context(contextlib.closing(thing))
    rolling = opened(
      Checkpoints(folder / 'rolling', keep=config['checkpoint']['keep'])
    )
    milestones = opened(Milestones(folder, config['train']['milestones']))
    last = opened(Checkpoints(folder / 'last'))
    tracker = Tracker(experiment, workdir)
    scorer = Scorer(experiment)
    first, state, memory, pending = _begin(experiment, rolling, tracker)
    metrics = opened(
      records.Metrics(workdir, first, config['train']['tensorboard'])
    )
    train_step = make_train_step(experiment)
    if isinstance(train_step, Program):
      batch = experiment.mesh.join(experiment.train_set.batch_at(first))
      train_step.prepare(state, batch, rates[0], seed)
    tracker.prepare(state, memory)
    scorer.prepare(state)
    progress = Progress('step', first, total)
    stop = stack.enter_context(signals(experiment.mesh.stops_itself))
    stack.enter_context(diverging(workdir, metrics))

    for step in range(first, total + 1):
      stopping = experiment.mesh.stopping(step, stop.is_set())
      if stopping or cadence.due(step, every['checkpoint'], total):
        check(step, pending, state)
        content = {'state': state, 'memory': memory}
        with progress.aside():
          rolling.save(step, content, {'pending': listed(pending)})
      if stopping:
        raise Interrupted(step)

      record, met = {}, {}
      if cadence.due(step, every['eval'], total):
        jax.block_until_ready(state.params)  # updates are not put aside
        with progress.aside():
          record |= scorer(state)
          met = milestones(step, record, state)
        record |= met
      spent = tracker.seconds
      measured, memory = tracker(step, state, memory, milestone=bool(met))
      progress.leave_out(tracker.seconds - spent)
      record |= measured

      covered = pending
      log = record or cadence.due(step, every['log'], total)
      if log:
        pending = []
      if step < total:
        batch = experiment.mesh.join(experiment.train_set.batch_at(step))
        state, found = train_step(state, batch, rates[step], seed)
        pending.append(found)
        if step == first:
          jax.block_until_ready(found)
          progress.begin(step + 1)
          before = tracker.seconds
          spent = cadence.clock(time.perf_counter() - started)
          LOG.info('first step after %s', spent)
      # The numbers of step k are fetched once update k is under way, so
      # that writing them does not keep the devices waiting.
      if log:
        record |= means(step, covered, rates)
        finite(step, record)
        metrics.write(step, record | progress.times(step))
        shown = {n: record[n] for n in SHOWN if n in record}
        progress.say(step, shown)

    check(total, [], state)
    last.save(total, {'state': state}, {})
    if first < total:
      wall = progress.times(total)['time/wall_s']
      tracker.summary(wall - (tracker.seconds - before))
  return state


def _begin(
  experiment: Experiment, rolling: Checkpoints, tracker: Tracker
) -> tuple[int, State, Any, list]:
  """(first step, state, tracker memory, pending sums): resumed, or new.

  1. The newest checkpoint that can be restored, named if it is not the last.
  2. Otherwise fresh weights.
  """
  like = experiment.like()
  content = {'state': like, 'memory': tracker.memory(like.params)}
  found = rolling.newest(content)
  if found is None:
    state = experiment.init()
    step, memory, pending = 0, content['memory'], []
  else:
    step, content, meta = found
    state, memory = content['state'], content['memory']
    pending = meta['pending']
    LOG.info('continuing from step %d', step)
  whole = experiment.mesh.replicate
  return step, whole(state), whole(memory), pending


class Milestones:
  """Keeps the first state at which a threshold was reached, one folder each.

  'train_loss': loss on the training examples of the scorer <= its threshold;
  'test_accuracy': accuracy on the test set >= its threshold. With the last
  state they allow arms to be compared in three ways.
  """

  def __init__(self, folder: pathlib.Path, thresholds: dict[str, float]):
    self._reached = {
      'train_loss': lambda r: r['eval/train_loss'] <= thresholds['train_loss'],
      'test_accuracy': lambda r: (
        r['eval/accuracy'] >= thresholds['test_accuracy']
      ),
    }
    self._kept = {name: Checkpoints(folder / name) for name in self._reached}

  def __call__(
    self, step: int, record: dict[str, Any], state: State
  ) -> dict[str, int]:
    """Saves `state` under every milestone first met now, and names them."""
    met = {}
    for name, reached in self._reached.items():
      kept = self._kept[name]
      if not kept.steps() and reached(record):
        kept.save(step, {'state': state}, {})
        LOG.info('milestone %s at step %d', name, step)
      if kept.steps() == [step]:
        met[f'milestone/{name}'] = step
    return met

  def close(self) -> None:
    for kept in self._kept.values():
      kept.close()


def listed(pending: list) -> list[dict[str, float]]:
  return [
    {name: float(v) for name, v in found.items()}
    for found in jax.device_get(pending)
  ]


def means(step: int, covered: list, rates: np.ndarray) -> dict[str, float]:
  """Training loss and accuracy over the updates since the last record.

  Raises:
    Diverged: at the first of those updates whose loss is not finite.
  """
  record = {'train/learning_rate': float(rates[min(step, len(rates) - 1)])}
  found = listed(covered)
  for offset, one in enumerate(found):
    if not math.isfinite(one['loss']):
      raise Diverged(step - len(found) + offset, 'the training loss')
  if found:
    n = sum(one['n'] for one in found)
    record['train/loss'] = sum(one['loss'] for one in found) / n
    record['train/accuracy'] = sum(one['correct'] for one in found) / n
  return record


def finite(step: int, record: dict[str, Any]) -> None:
  for name, value in record.items():
    if isinstance(value, float) and not math.isfinite(value):
      raise Diverged(step, name)


def check(step: int, pending: list, state: State) -> None:
  """Raises Diverged rather than let a state that is not finite be saved."""
  for offset, found in enumerate(listed(pending)):
    if not math.isfinite(found['loss']):
      raise Diverged(step - len(pending) + offset, 'the training loss')
  if not bool(numerics.all_finite((state.params, state.model_state))):
    raise Diverged(step, 'a weight')


@contextlib.contextmanager
def diverging(workdir: pathlib.Path, metrics: records.Metrics) -> Iterator:
  """Leaves a record of a divergence that a sweep and a report can read."""
  try:
    yield
  except Diverged as e:
    metrics.write(e.step, {'event': 'diverged', 'message': str(e)})
    records.write_status(workdir, 'diverged', e.step, str(e))
    raise


@contextlib.contextmanager
def signals(ours: bool) -> Iterator[threading.Event]:
  """An event that SIGTERM and SIGINT set, instead of ending the process.

  Not `ours`, where several processes stop together: JAX catches SIGTERM then.
  """
  stop = threading.Event()
  if not ours or threading.current_thread() is not threading.main_thread():
    yield stop  # Python delivers signals to the main thread only
    return
  names = (signal.SIGTERM, signal.SIGINT)
  before = {s: signal.signal(s, lambda *_: stop.set()) for s in names}
  try:
    yield stop
  finally:
    for name, handler in before.items():
      signal.signal(name, handler)
