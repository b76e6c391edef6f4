"""Curvature and its kin while training: when measured, and what is kept."""

import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from implicit_attr import keys, numerics, probes
from implicit_attr.runs import records
from implicit_attr.runtime import cadence
from implicit_attr.runtime.programs import Program
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.optim import stability_edge
from implicit_attr.train.state import State, frozen
from implicit_attr.train.whole import Whole
from implicit_attr.types import Array, Tree

LOG = logging.getLogger(__name__)


class Tracker:
  """The probes of all lanes as compiled programs, and their cadence.

  'dense' measures everything; 'cheap' only λ_max, started from the last
  eigenvector, and gradient norms. Both use the same examples at every step.
  Beside a dense one at a milestone or the end stands λ_max of `track.whole`
  examples, 'param/train_lambda_max', and 'param/train_lambda_ratio', that over
  λ_max of the tracked ones where the latter is positive.
  `memory` is what the next measurement starts from; it is part of the
  checkpoint, so that a resumed run measures the same numbers.

  Attributes:
    seconds: spent on measurements, compiling not counted.
  """

  def __init__(self, lanes: Lanes, workdirs: Sequence[pathlib.Path]):
    self._lanes, self._workdirs = lanes, workdirs
    template, mesh = lanes.template, lanes.template.mesh
    self._every, self._total = template.every, template.total
    config = template.settings.track
    turns = range(config.sharpness_batches)

    def sharp(e):  # joined and fetched: a process reads only its own slice
      batches = [mesh.fetch(mesh.join(e.train_set.batch_at(i))) for i in turns]
      return {n: np.stack([b[n] for b in batches]) for n in ('image', 'label')}

    probe = lanes.of_seeds(lambda e: e.probe_batch(config.examples))
    self._index = probe['index']
    place = mesh.split if lanes.alone else mesh.replicate
    self._data = place(probe), mesh.replicate(lanes.of_seeds(sharp))
    self._edges = [
      stability_edge(
        1.0, name=optim.name, momentum=optim.momentum, nesterov=optim.nesterov
      )  # times 1 / lr
      for optim in (e.settings.optim for e in lanes.experiments)
    ]
    self._parameters = self._program(of_parameters)
    self._inputs = self._program(of_inputs)
    self._cheap = self._program(of_both)
    self._attention = self._program(of_attention) if template.attends else None
    self._whole = (
      Whole(lanes) if config.whole and self._every['track'] else None
    )
    self.seconds, self._measurements = 0.0, 0

  @staticmethod
  def memory(params: Tree) -> Tree:
    """Where the first measurement starts: noise shaped like `params`."""
    draw = np.random.default_rng(0)
    noise = lambda p: draw.standard_normal(p.shape).astype(p.dtype)
    return jax.tree.map(noise, params)

  def prepare(self, state: State, memory: Tree) -> None:
    """Begins to compile whatever this run will measure."""
    due = np.ones(self._lanes.lead, bool)
    if self._every['track']:
      self._parameters.prepare(*self._arguments(due, state, memory, 0))
      top = np.zeros(self._lanes.lead, np.float32)
      self._inputs.prepare(*self._arguments(due, state, top, 0))
      if self._attention:
        self._attention.prepare(*self._arguments(due, state, top, 0))
      if self._whole:
        self._whole.prepare(due, state, memory)
    if self._every['cheap']:
      self._cheap.prepare(*self._arguments(due, state, memory, 0))

  def __call__(
    self,
    step: int,
    state: State,
    memory: Tree,
    active: np.ndarray,
    met: np.ndarray,
  ) -> tuple[list[dict[str, float]], Tree]:
    """(a record for each lane, new memory): what is due at `step`, or {}.

    Per-example arrays of a dense measurement go to probes/<step>.npz.

    Args:
      active: [lanes] bool, those to be measured at all.
      met: [lanes] bool, those that reached a milestone at this step.
    """
    due = lambda name: cadence.due(step, self._every[name], self._total)
    dense = active & (due('track') | (met & (self._every['track'] > 0)))
    cheap = active & due('cheap') & ~dense
    rows: list[dict[str, float]] = [{} for _ in self._workdirs]
    if not (dense | cheap).any():
      return rows, memory
    self.prepare(state, memory)
    for program in (self._parameters, self._inputs, self._attention):
      if dense.any() and program:
        program.wait()
    whole = dense & (met | (step == self._total))
    if self._whole and whole.any():
      self._whole.wait()
    jax.block_until_ready(state.params)
    began = time.perf_counter()
    if dense.any():
      ask = lambda what: self._arguments(self._own(dense), state, what, step)
      memory, measured = self._parameters(*ask(memory))
      top = measured['param/lambda_max']
      measured |= self._inputs(*ask(top))[1]
      if self._attention:
        measured |= self._attention(*ask(top))[1]
      self._record(step, dense, jax.device_get(measured), rows, keep=True)
    if self._whole and whole.any():
      found = jax.device_get(self._whole(self._own(whole), state, memory))
      for i in np.flatnonzero(whole).tolist():
        rows[i] |= _means(self._lanes.take(found, i))
        if rows[i]['param/lambda_max'] > 0:
          rows[i]['param/train_lambda_ratio'] = (
            rows[i]['param/train_lambda_max'] / rows[i]['param/lambda_max']
          )
    if cheap.any():
      memory, measured = self._cheap(
        *self._arguments(self._own(cheap), state, memory, step)
      )
      self._record(step, cheap, jax.device_get(measured), rows, keep=False)
    self.seconds += time.perf_counter() - began
    self._measurements += 1
    return rows, memory

  def summary(self, training: float) -> None:
    """Logs what tracking cost beside `training` seconds without it."""
    LOG.info(
      'tracking: %d measurements in %s, %.1f%% of %s of training',
      self._measurements, cadence.clock(self.seconds),
      100 * self.seconds / max(training, 1e-9), cadence.clock(training),
    )  # fmt: skip

  def _program(self, measure: Callable) -> Program:
    """`measure(experiment, network, data, carried, key)` -> (carried, dict).

    The key is made inside: outside it costs as much as a small network's step.
    What is found is whole on every host, for there it is written down.
    """
    lanes = self._lanes

    def run(values, due, state, carried, data, step):
      e = lanes.bind(values)
      key = keys.stream(values['seed'], 'track', step)
      network = frozen(e.module, state.model_state), state.params
      own = lambda: measure(e, network, lanes.pick(data, values), carried, key)
      return lanes.only(due, own, carried)

    whole = lanes.template.mesh.whole
    return Program(lanes.spread(run, shared=(4, 5)), out_shardings=whole)

  def _arguments(self, due: Any, state: State, carried: Tree, step: int):
    values = self._lanes.values
    return values, due, state, carried, self._data, np.uint32(step)

  def _own(self, due: np.ndarray) -> np.ndarray:
    return due.reshape(self._lanes.lead)

  def _record(
    self, step: int, due: np.ndarray, measured: Tree, rows: list, keep: bool
  ) -> None:
    """The record of each lane that was due and, to `keep`, its arrays."""
    lanes = self._lanes
    rates = lanes.rates[..., min(step, self._total - 1)]
    for i in np.flatnonzero(due).tolist():
      mine = lanes.take(measured, i)
      rows[i] |= _means(mine)
      if edge := self._edges[i]:
        rows[i]['param/edge'] = edge / float(lanes.take(rates, i))
      if keep:
        arrays = {name: a for name, a in mine.items() if np.ndim(a)}
        index = lanes.pick(self._index, lanes.take(lanes.values, i))
        path = self._workdirs[i] / 'probes' / f'{step:08d}.npz'
        records.write_arrays(path, {'index': index, **arrays})


def _means(measured: dict[str, np.ndarray]) -> dict[str, float]:
  """Means over the examples for which a number is defined, where it is any.

  NaN in an array says that it is not for an example: the relative curvature of
  a gradient that is 0. Single numbers are taken as they are.
  """
  means = {}
  for name, values in measured.items():
    defined = values[~np.isnan(values)] if np.ndim(values) else values
    if np.size(defined):
      means[name] = float(np.mean(defined))
  return means


def _curvature(
  e: Experiment,
  network: tuple,
  batch: Tree,
  start: Tree,
  key: Array,
  draws: int,
) -> tuple[Tree, dict[str, Array]]:
  apply_fn, params = network
  track = e.settings.track
  measured, vector = probes.parameter_curvature(
    apply_fn, e.loss, params, batch, start, key,
    order=track.order, tol=track.tol, draws=draws,
  )  # fmt: skip
  return vector, measured


def of_both(e, network, data, start, key) -> tuple[Tree, dict[str, Array]]:
  """The cheap measurement; (where the next one starts, what it gave)."""
  (apply_fn, params), (batch, _) = network, data
  with numerics.exact():
    vector, measured = _curvature(e, network, batch, start, key, 0)
    norms = probes.gradient_norms(apply_fn, e.loss, params, batch)
  return vector, measured | norms


def of_parameters(
  e, network, data, start, key
) -> tuple[Tree, dict[str, Array]]:
  """The dense one in the parameters; (where the next one starts, numbers)."""
  (apply_fn, params), (batch, sharp) = network, data
  with numerics.exact():
    vector, measured = _curvature(
      e, network, batch, start, key, e.settings.track.draws
    )
    measured |= probes.batch_sharpness(apply_fn, e.loss, params, sharp)
  return vector, measured


def of_inputs(
  e, network, data, lambda_max, key
) -> tuple[Array, dict[str, Array]]:
  """The dense one in the inputs, beside λ_max in the parameters."""
  (apply_fn, params), (batch, _) = network, data
  track = e.settings.track
  lanczos = {'order': track.input_order, 'tol': track.input_tol}
  with numerics.exact():
    measured, product = probes.input_curvature(
      apply_fn, e.loss, params, batch, key, **lanczos
    )
    measured |= probes.confounders(apply_fn, params, batch)
    if probes.has_first_layer(params):
      measured |= probes.alignment(
        product, params, batch, key, lambda_max=lambda_max,
        scale=1 / np.min(e.module.std), **lanczos,
      )  # fmt: skip
  return lambda_max, measured


def of_attention(e, network, data, unused, key) -> tuple[Any, dict[str, Array]]:
  """What the dense one says of attention, for a network that has it."""
  (apply_fn, params), (batch, _) = network, data
  with numerics.exact():
    return unused, probes.attention_diagnostics(
      apply_fn, params, batch['image'], readout=e.readout
    )
