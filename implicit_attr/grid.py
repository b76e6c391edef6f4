"""How do the arms of a factorial train as one program, each into its folder?

One vmapped, jitted step moves every lane; probes, scores and attacks are
spread over lanes alike. The folder of a lane is at every moment that of a
single run, checkpoints included, so that either can go on where the other was
cut off, and claims, summaries and reports do not know the difference.

Restart: each lane goes on from its own newest checkpoint. The loop begins at
the oldest of these, and a lane that is ahead waits: its updates are no-ops
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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors, keys
from implicit_attr.evaluation import evaluate
from implicit_attr.lane_probes import LaneScorer, LaneTracker
from implicit_attr.lane_probes import evaluate as evaluate_lanes
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints
from implicit_attr.runtime import cadence, programs
from implicit_attr.runtime.progress import Progress
from implicit_attr.train import State, experiment, loop, make_sums, make_update
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.lanes import Lanes, lane, pick, stack
from implicit_attr.train.tracking import Tracker
from implicit_attr.types import Tree

LOG = logging.getLogger(__name__)


def run(
  configs: Sequence[dict[str, Any]], workdirs: Sequence[pathlib.Path]
) -> None:
  """Trains, tracks and evaluates a group of `lanes.groups`.

  Every folder ends with a status.json of 'finished' or 'diverged'.

  Raises:
    Interrupted: on SIGTERM or SIGINT, after saving every lane.
    InputError: more than one device, or what a single run would raise in one
      of the lanes; what was written is whole, and single runs can go on.
  """
  devices = jax.device_count()
  errors.require(
    '--lanes', len(configs), devices == 1,
    f'1 on {devices} devices: a grid is a program of one',
  )  # fmt: skip
  programs.set_effort(configs[0]['compile'])
  built = [experiment.build(config) for config in configs]
  evaluate.check(configs[0])
  done = train(built, workdirs)
  if done:
    rest = [workdirs[i] for i in done]
    evaluate_lanes(Lanes([built[i] for i in done]), rest)
    for workdir in rest:
      records.write_status(workdir, 'finished', built[0].total)


def make_train_step(lanes: Lanes) -> Callable:
  """(values, active, state, lr, batches) -> (state, sums), [lanes, …].

  `batches` is one for each seed, [seeds, B, …]. The updates of a lane that is
  not active are no-ops. The state is donated. A `Program`.
  """

  def train_step(values, active, state, lr, batches):
    built = lanes.bind(values)
    sums = make_sums(built.module, built.make_loss_fn)

    def move():
      key = keys.stream(values['seed'], 'train', state.step)
      batch = pick(batches, values)
      found = sums(state.params, state.model_state, batch, key)
      reported = {name: found[name] for name in ('loss', 'correct', 'n')}
      return make_update(built.tx)(state, found, lr), reported

    shapes = jax.eval_shape(move)[1]
    nothing = lambda: jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype), shapes
    )
    return jax.lax.cond(active, move, lambda: (state, nothing()))

  spread = lanes.spread(train_step, shared=(4,))
  return programs.Program(spread, donate_argnums=2)


def train(
  experiments: Sequence[Experiment], workdirs: Sequence[pathlib.Path]
) -> list[int]:
  """Trains every lane from its last checkpoint, or from nothing, to the end.

  Does at each step what `loop.train` does, in the same order.

  Returns:
    The lanes that did not diverge.

  Raises:
    Interrupted, InputError: as `run`.
  """
  lanes = Lanes(experiments)
  total, every = lanes.template.total, lanes.template.every
  started = time.perf_counter()
  with contextlib.ExitStack() as opened:
    runs = [
      Run(e, workdir, opened)
      for e, workdir in zip(experiments, workdirs, strict=True)
    ]
    tracker, scorer = LaneTracker(lanes, workdirs), LaneScorer(lanes)
    state, memory = _begin(lanes, runs)
    batches = lambda step: lanes.of_seeds(lambda e: e.train_set.batch_at(step))
    first = min(run.first for run in runs)
    values = jax.device_put(lanes.values)
    train_step = make_train_step(lanes)
    everyone = np.ones(len(lanes), bool)
    train_step.prepare(
      values, everyone, state, lanes.rates[:, 0], batches(first)
    )
    tracker.prepare(state, memory)
    scorer.prepare(state)
    progress = Progress(f'{len(lanes)} lanes, step', first, total)
    stop = opened.enter_context(loop.signals(True))
    pending: list[tuple[int, dict]] = []
    # No lane has a speed of its own: claims about time find nothing here.
    spent_by = lambda step: {
      'time/wall_s': progress.times(step)['time/wall_s'],
      'time/lanes': len(lanes),
    }

    for step in range(first, total + 1):
      stopping = stop.is_set()
      if stopping or cadence.due(step, every['checkpoint'], total):
        saved, sums = jax.device_get(((state, memory), pending))
        for i, run in _live(runs, step):
          run.save(step, *lane(saved, i), run.since(sums, i))
      if stopping:
        raise loop.Interrupted(step)

      found: list[dict[str, Any]] = [{} for _ in runs]
      met = np.zeros(len(runs), bool)
      scored = cadence.due(step, every['eval'], total)
      if scored:
        found, host = scorer(state), jax.device_get(state)
        for i, run in _live(runs, step):
          new = run.milestones(step, found[i], lane(host, i))
          found[i] |= new
          met[i] = bool(new)
      active = np.array([run.live(step) for run in runs])
      measured, memory = tracker(step, state, memory, active, met)

      covered = pending
      log = scored or any(measured) or cadence.due(step, every['log'], total)
      if log:
        pending = []
      if step < total:
        rates = lanes.rates[:, step]
        state, sums = train_step(values, active, state, rates, batches(step))
        pending.append((step, sums))
        if step == first:
          jax.block_until_ready(sums)
          progress.begin(step + 1)
          spent = cadence.clock(time.perf_counter() - started)
          LOG.info('first step of %d lanes after %s', len(lanes), spent)
      # As in `loop.train`: fetched once update k is under way.
      if log:
        sums = jax.device_get(covered)
        for i, run in _live(runs, step):
          run.write(
            step, found[i] | measured[i], run.since(sums, i),
            lanes.rates[i], spent_by(step),
          )  # fmt: skip
        alive = _live(runs, step)
        progress.say(step, {'lanes': len(alive)})
      if not any(run.live(total) for run in runs):
        break

    state = jax.device_get(state)
    for i, run in _live(runs, total):
      run.finish(total, lane(state, i))
  return [i for i, run in enumerate(runs) if run.live(total)]


class Run:
  """The folder of one lane, as a single run keeps it.

  `first` is the step it goes on from.
  """

  def __init__(
    self,
    experiment: Experiment,
    workdir: pathlib.Path,
    opened: contextlib.ExitStack,
  ):
    config = experiment.config
    records.claim(workdir, config)
    folder, keep = workdir / 'checkpoints', config['checkpoint']['keep']
    closing = lambda a: opened.enter_context(contextlib.closing(a))
    self._workdir = workdir
    self._rolling = closing(Checkpoints(folder / 'rolling', keep=keep))
    self._last = closing(Checkpoints(folder / 'last'))
    self.milestones = closing(
      loop.Milestones(folder, config['train']['milestones'])
    )
    like = experiment.like()
    content = {'state': like, 'memory': Tracker.memory(like.params)}
    found = self._rolling.newest(content)
    self.fresh = found is None
    self.first, self.content, meta = found or (0, content, {'pending': []})
    self._carried = meta['pending']
    self._diverged = False
    self._metrics = closing(
      records.Metrics(workdir, self.first, config['train']['tensorboard'])
    )

  def live(self, step: int) -> bool:
    """Whether it takes part in `step`: it has not diverged, nor is it ahead."""
    return not self._diverged and self.first <= step

  def since(self, sums: list, i: int) -> list[dict[str, float]]:
    """The training sums of lane `i` since its last record."""
    return self._carried + [
      {name: float(a[i]) for name, a in found.items()}
      for step, found in sums
      if step >= self.first
    ]

  def save(self, step: int, state: State, memory: Tree, pending: list) -> None:
    with self._guarded():
      loop.check(step, pending, state)
      content = {'state': state, 'memory': memory}
      self._rolling.save(step, content, {'pending': pending})

  def write(
    self, step: int, record: dict, sums: list, rates: np.ndarray, times: dict
  ) -> None:
    """Writes the record of `step`, with the training means of `sums`."""
    with self._guarded():
      self._carried = []
      record = record | loop.means(step, sums, rates)
      loop.finite(step, record)
      self._metrics.write(step, record | times)

  def finish(self, step: int, state: State) -> None:
    with self._guarded():
      loop.check(step, [], state)
      self._last.save(step, {'state': state}, {})

  @contextlib.contextmanager
  def _guarded(self) -> Iterator[None]:
    """Records a divergence, and lets the other lanes go on."""
    try:
      with loop.diverging(self._workdir, self._metrics):
        yield
    except loop.Diverged as e:
      self._diverged = True
      LOG.info('%s %s', self._workdir.name, e)


def _live(runs: Sequence[Run], step: int) -> list[tuple[int, Run]]:
  return [(i, run) for i, run in enumerate(runs) if run.live(step)]


def _begin(lanes: Lanes, runs: Sequence[Run]) -> tuple[State, Tree]:
  """(state, memory) of all lanes on the device: resumed, or new."""
  states = [run.content['state'] for run in runs]
  if any(run.fresh for run in runs):
    new = jax.device_get(lanes.init())
    for i, run in enumerate(runs):
      if run.fresh:
        states[i] = lane(new, i)
  LOG.info('%d lanes, from steps %s', len(runs), {run.first for run in runs})
  memory = stack([run.content['memory'] for run in runs])
  return jax.device_put((stack(states), memory))
