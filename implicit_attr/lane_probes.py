"""What is measured on all lanes of a grid at once, and written lane by lane?

The scores, probes and attacks of a single run, spread over lanes. A lane that
is not asked about costs nothing where lanes take turns, and changes nothing
anywhere.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import keys
from implicit_attr.evaluation import evaluate as single
from implicit_attr.runs import records
from implicit_attr.runtime import cadence
from implicit_attr.runtime.programs import Program
from implicit_attr.train import State, scoring, stability_edge, tracking
from implicit_attr.train.lanes import Lanes, pick
from implicit_attr.types import Tree


class LaneScorer:
  """`scoring.Scorer` of every lane, one program for all."""

  def __init__(self, lanes: Lanes):
    everything = lambda source: source.examples(np.arange(len(source)))
    n = min(scoring.TRAIN_EXAMPLES, len(lanes.template.train_set))
    self._lanes = lanes
    self._train = [e.probe_batch(n) for e in lanes.of_sources()]
    self._test = [everything(lanes.template.test_set)] * len(self._train)
    larger = max(n, len(lanes.template.test_set))
    self._size = min(scoring.CHUNK, larger)

    def sums(values, state, image, label, weight):
      image, label = pick((image, label), values)
      args = state.params, state.model_state, image, label, weight
      return scoring.sums(lanes.bind(values), *args)

    self._sums = Program(lanes.spread(sums, shared=(2, 3, 4)))

  def prepare(self, state: State) -> None:
    """Begins to compile."""
    self._sums.prepare(*next(self._arguments(state, self._train)))

  def __call__(self, state: State) -> list[dict[str, float]]:
    """For each lane what `Scorer` says of it."""
    sets = {'eval/': self._test, 'eval/train_': self._train}
    found: list[dict[str, float]] = [{} for _ in self._lanes.experiments]
    for prefix, batches in sets.items():
      for i, (loss, accuracy) in enumerate(self._score(state, batches).T):
        found[i][f'{prefix}loss'] = float(loss)
        found[i][f'{prefix}accuracy'] = float(accuracy)
    return found

  def _score(self, state: State, batches: list[dict]) -> np.ndarray:
    """(mean loss, accuracy) of each lane, [2, lanes]."""
    found = [self._sums(*args) for args in self._arguments(state, batches)]
    sums = np.sum(jax.device_get(found), axis=0, dtype=np.float64)
    return sums / len(batches[0]['label'])

  def _arguments(self, state: State, batches: list[dict]) -> Iterator[tuple]:
    cut = [scoring.chunks(batch, self._size) for batch in batches]
    for parts in zip(*cut, strict=True):
      data = (
        np.stack([chunk[name] for chunk, _ in parts])
        for name in ('image', 'label')
      )
      yield self._lanes.values, state, *data, parts[0][1]


class LaneTracker:
  """`tracking.Tracker` of every lane, without a budget."""

  def __init__(self, lanes: Lanes, workdirs: Sequence[pathlib.Path]):
    self._lanes, self._workdirs = lanes, workdirs
    config = lanes.template.config['track']
    turns = range(config['sharpness_batches'])

    def sharp(e):
      batches = [e.train_set.batch_at(i) for i in turns]
      return {n: np.stack([b[n] for b in batches]) for n in ('image', 'label')}

    probe = lanes.of_seeds(lambda e: e.probe_batch(config['examples']))
    self._index = probe['index']
    data = {'probe': probe, 'sharp': lanes.of_seeds(sharp)}
    self._data = jax.device_put(data)
    self._edges = [
      stability_edge(**{**e.config['optim'], 'lr': 1.0})
      for e in lanes.experiments
    ]

    def network(values, state, step):
      key = keys.stream(values['seed'], 'track', step)
      return lanes.bind(values), state.params, state.model_state, key

    def parameters(values, due, state, memory, data, step):
      e, *variables, key = network(values, state, step)
      probe, sharp = pick((data['probe'], data['sharp']), values)
      measure = lambda: tracking.of_parameters(
        e, *variables, probe, sharp, memory, key
      )
      return _where(due, measure, memory)

    def both(values, due, state, memory, data, step):
      e, *variables, _ = network(values, state, step)
      probe = pick(data['probe'], values)
      measure = lambda: tracking.of_both(e, *variables, probe, memory)
      return _where(due, measure, memory)

    def inputs(values, due, state, lambda_max, data, step):
      e, *variables, key = network(values, state, step)
      probe = pick(data['probe'], values)

      def measure():
        found = tracking.of_inputs(e, *variables, probe, lambda_max, key)
        if e.config['model']['name'] == 'vit':
          found |= tracking.of_attention(e, *variables, probe)
        return found, None

      return _where(due, measure, None)[0]

    program = lambda fun: Program(lanes.spread(fun, shared=(4, 5)))
    self._parameters, self._inputs = program(parameters), program(inputs)
    self._both = program(both)

  def prepare(self, state: State, memory: Tree) -> None:
    """Begins to compile whatever this run will measure."""
    every, n = self._lanes.template.every, len(self._lanes)
    head, tail = (self._lanes.values, np.ones(n, bool), state), self._tail(0)
    if every['track']:
      self._parameters.prepare(*head, memory, *tail)
      self._inputs.prepare(*head, np.zeros(n, np.float32), *tail)
    if every['cheap']:
      self._both.prepare(*head, memory, *tail)

  def __call__(
    self,
    step: int,
    state: State,
    memory: Tree,
    active: np.ndarray,
    met: np.ndarray,
  ) -> tuple[list[dict[str, float]], Tree]:
    """(a record for each lane, new memory): what is due at `step`, or {}.

    Args:
      active: [lanes] bool, those to be measured at all.
      met: [lanes] bool, those that reached a milestone at this step.
    """
    every, total = self._lanes.template.every, self._lanes.template.total
    due = lambda name: cadence.due(step, every[name], total)
    dense = active & (due('track') | (met & (every['track'] > 0)))
    cheap = active & due('cheap') & ~dense
    found: list[dict[str, float]] = [{} for _ in self._workdirs]
    tail = self._tail(step)
    if dense.any():
      head = self._lanes.values, dense, state
      first, memory = self._parameters(*head, memory, *tail)
      second = self._inputs(*head, first['param/lambda_max'], *tail)
      self._keep(step, dense, {**first, **second}, found)
    if cheap.any():
      head = self._lanes.values, cheap, state
      first, memory = self._both(*head, memory, *tail)
      self._keep(step, cheap, first, found)
    return found, memory

  def _tail(self, step: int) -> tuple:
    return self._data, np.int32(step)

  def _keep(
    self, step: int, due: np.ndarray, measured: Tree, found: list[dict]
  ) -> None:
    """The record of each lane that was due, and its probes/<step>.npz."""
    measured = jax.device_get(measured)
    rate = self._lanes.rates[:, min(step, self._lanes.template.total - 1)]
    for i in np.flatnonzero(due):
      mine = {name: a[i] for name, a in measured.items()}
      found[i] |= {name: float(np.mean(a)) for name, a in mine.items()}
      if self._edges[i]:
        found[i]['param/edge'] = self._edges[i] / float(rate[i])
      arrays = {name: a for name, a in mine.items() if np.ndim(a)}
      dense = 'param/w1_norm' in mine
      if dense:
        index = self._index[self._lanes.values['source'][i]]
        path = self._workdirs[i] / 'probes' / f'{step:08d}.npz'
        records.write_arrays(path, {'index': index, **arrays})


def _where(due: Any, measure: Any, memory: Tree) -> tuple[Tree, Tree]:
  """measure() if `due`, else (zeros, the memory as it was)."""
  shapes = jax.eval_shape(measure)[0]
  nothing = lambda: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return jax.lax.cond(due, measure, lambda: (nothing(), memory))


def evaluate(lanes: Lanes, workdirs: Sequence[pathlib.Path]) -> None:
  """Does for every lane what `evaluate.evaluate` does for a run.

  A lane may have up to three states, of different steps. They are measured in
  rounds; in a round that is beyond a lane's last state it has its first.
  """
  found = [
    single.find_all(e, workdir)
    for e, workdir in zip(lanes.experiments, workdirs, strict=True)
  ]
  distinct = [
    list({int(s.step): s for s in states.values()}.values()) for states in found
  ]
  scorer, attack = (
    LaneScorer(lanes),
    single.make_robustness(
      lanes.template, lanes.bind, spread=lanes.spread, lead=(len(lanes),)
    ),
  )
  results: list[dict[int, tuple]] = [{} for _ in workdirs]
  for turn in range(max(map(len, distinct))):
    here = [s[turn] if turn < len(s) else s[0] for s in distinct]
    state = jax.device_put(jax.tree.map(lambda *a: np.stack(a), *here))
    variables = state.params, state.model_state, lanes.values
    attack.prepare(variables)
    scores = scorer(state)
    for i, one in enumerate(here):
      results[i][int(one.step)] = scores[i], [], {}
    for name, objective, measured in attack.measured(variables):
      for i, one in enumerate(here):
        mine = {key: a[i] for key, a in measured.items()}
        rows, arrays = attack.table(name, objective, mine)
        results[i][int(one.step)][1].extend(rows)
        results[i][int(one.step)][2].update(arrays)
  for e, workdir, states, mine in zip(
    lanes.experiments, workdirs, found, results, strict=True
  ):
    for name, state in states.items():
      single.write(e, workdir, name, state, *mine[int(state.step)])
