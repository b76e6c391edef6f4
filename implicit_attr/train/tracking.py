"""When is curvature measured, at what cost, and what does it leave behind?"""

import functools
import logging
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from implicit_attr import keys, numerics, probes
from implicit_attr.runs import records
from implicit_attr.runtime import cadence
from implicit_attr.runtime.programs import Program
from implicit_attr.train import State, frozen, stability_edge
from implicit_attr.train.experiment import Experiment
from implicit_attr.types import Array, Tree

LOG = logging.getLogger(__name__)


class Tracker:
  """The probes as compiled programs, all or the cheap ones, and their cadence.

  'dense' measures everything; 'cheap' only λ_max, started from the last
  eigenvector, and gradient norms. Both use the same examples at every step.
  `memory` is what the next measurement starts from; it is part of the
  checkpoint, so that a resumed run measures the same numbers.

  With a budget (a share of the training time so far) a measurement that would
  exceed it is left out and counted in 'track/skipped'; the two ends of a run
  are always measured. A budget reads the clock, so two runs with one do not
  measure at the same steps; their parameters are the same all the same.
  """

  def __init__(self, experiment: Experiment, workdir: pathlib.Path):
    self._experiment, self._workdir = experiment, workdir
    self._config = config = experiment.config['track']
    batch = experiment.probe_batch(config['examples'])
    self._index = batch['index']
    self._batch = experiment.mesh.split(batch)
    count = config['sharpness_batches']
    mesh = experiment.mesh
    batches = [  # joined and fetched: a process reads only its own slice
      mesh.fetch(mesh.join(experiment.train_set.batch_at(i)))
      for i in range(count)
    ]
    self._sharp = experiment.mesh.replicate(
      {n: np.stack([b[n] for b in batches]) for n in ('image', 'label')}
    )
    optim = {**experiment.config['optim'], 'lr': 1.0}
    self._edge = stability_edge(**optim)  # times 1 / lr
    # Whole: what is written down must be on every host.
    whole = {'out_shardings': experiment.mesh.whole}
    bound = lambda fun: Program(functools.partial(fun, experiment), **whole)
    self._parameters = bound(_keyed(of_parameters))
    self._inputs, self._cheap = bound(_keyed(of_inputs)), bound(of_both)
    has_attention = experiment.config['model']['name'] == 'vit'
    self._attention = bound(of_attention) if has_attention else None
    self._cost = {'dense': 0.0, 'cheap': 0.0}  # of the last one, in seconds
    self._started = None
    self.seconds, self.measurements, self.skipped = 0.0, 0, 0

  @staticmethod
  def memory(params: Tree) -> Tree:
    """Where the first measurement starts: noise shaped like `params`."""
    draw = np.random.default_rng(0)
    noise = lambda p: draw.standard_normal(p.shape).astype(p.dtype)
    return jax.tree.map(noise, params)

  def __call__(
    self, step: int, state: State, memory: Tree, *, milestone: bool = False
  ) -> tuple[dict[str, float], Tree]:
    """(record, new memory): what is due at `step`, or ({}, memory).

    Per-example arrays of a dense measurement go to probes/<step>.npz.
    """
    kind = self._due(step, milestone)
    if kind is None:
      return {}, memory
    self.prepare(state, memory)
    self._wait(kind)
    jax.block_until_ready(state.params)
    began = time.perf_counter()
    self._started = self._started or began
    network, drawn = self._arguments(state, step)
    batch, sharp = self._batch, self._sharp
    if kind == 'dense':
      found, memory = self._parameters(*network, batch, sharp, memory, *drawn)
      found |= self._inputs(*network, batch, found['param/lambda_max'], *drawn)
      if self._attention:
        found |= self._attention(*network, batch)
    else:
      found, memory = self._cheap(*network, batch, memory)
    found = jax.device_get(found)
    self._cost[kind] = time.perf_counter() - began
    self.seconds += self._cost[kind]
    self.measurements += 1
    if kind == 'dense':
      self._keep(step, found)
    record = {name: float(np.mean(a)) for name, a in found.items()}
    if self._edge:
      rates = self._experiment.learning_rates
      record['param/edge'] = self._edge / float(
        rates[min(step, len(rates) - 1)]
      )
    if self._config['budget']:
      record['track/seconds'] = round(self.seconds, 3)
      record['track/skipped'] = self.skipped
    return record, memory

  def prepare(self, state: State, memory: Tree) -> None:
    """Begins to compile whatever this run will measure."""
    every = self._experiment.every
    network, drawn = self._arguments(state, 0)
    batch, sharp = self._batch, self._sharp
    if every['track']:
      self._parameters.prepare(*network, batch, sharp, memory, *drawn)
      self._inputs.prepare(*network, batch, np.float32(0), *drawn)
      if self._attention:
        self._attention.prepare(*network, batch)
    if every['cheap']:
      self._cheap.prepare(*network, batch, memory)

  def summary(self, training: float) -> None:
    """Logs what tracking cost beside `training` seconds without it."""
    LOG.info(
      'tracking: %d measurements in %s, %.1f%% of %s of training',
      self.measurements, cadence.clock(self.seconds),
      100 * self.seconds / max(training, 1e-9), cadence.clock(training),
    )  # fmt: skip

  def _due(self, step: int, milestone: bool) -> str | None:
    """'dense', 'cheap' or None at `step`, the budget considered."""
    every, total = self._experiment.every, self._experiment.total
    kind = None
    if cadence.due(step, every['cheap'], total):
      kind = 'cheap'
    if cadence.due(step, every['track'], total):
      kind = 'dense'
    if milestone and every['track']:
      kind = 'dense'
    budget = self._config['budget']
    if kind is None or not budget or step in (0, total) or not self._started:
      return kind
    training = time.perf_counter() - self._started - self.seconds
    fits = self.seconds + self._cost[kind] <= budget * training
    if self._experiment.mesh.decide(fits):
      return kind
    self.skipped += 1
    return None

  def _keep(self, step: int, found: dict[str, np.ndarray]) -> None:
    arrays = {name: a for name, a in found.items() if np.ndim(a)}
    path = self._workdir / 'probes' / f'{step:08d}.npz'
    records.write_arrays(path, {'index': self._index, **arrays})

  def _arguments(self, state: State, step: int) -> tuple:
    """(network, seed and step that a key is made of) of a step."""
    drawn = np.uint32(self._experiment.config['seed']), np.uint32(step)
    return (state.params, state.model_state), drawn

  def _wait(self, kind: str) -> None:
    """Waits for the programs of `kind`, off the clock of the budget."""
    began = time.perf_counter()
    programs = {
      'dense': (self._parameters, self._inputs), 'cheap': (self._cheap,)
    }  # fmt: skip
    for program in programs[kind]:
      program.wait()
    if kind == 'dense' and self._attention:
      self._attention.wait()
    spent = time.perf_counter() - began
    self._started = self._started and self._started + spent


def _keyed(fun: Callable) -> Callable:
  """`fun` with (seed, step) in place of its last argument, the key.

  Made inside the program: outside it costs as much as a small network's step.
  """

  def made(*args):
    *args, seed, step = args
    return fun(*args, keys.stream(seed, 'track', step))

  return made


def _parameter(experiment, params, model_state, batch, memory, key, draws):
  apply_fn = frozen(experiment.module, model_state)
  config = experiment.config['track']
  return apply_fn, *probes.parameter_curvature(
    apply_fn, experiment.loss, params, batch, memory, key,
    order=config['order'], tol=config['tol'], draws=draws,
  )  # fmt: skip


def of_both(
  experiment: Experiment, params, model_state, batch, memory
) -> tuple[dict[str, Array], Tree]:
  """The cheap measurement: what is found, and where the next one starts."""
  with numerics.exact():
    apply_fn, found, vector = _parameter(
      experiment, params, model_state, batch, memory, None, 0
    )
    found |= probes.gradient_norms(apply_fn, experiment.loss, params, batch)
  return found, vector


def of_parameters(
  experiment: Experiment, params, model_state, batch, sharp, memory, key
) -> tuple[dict[str, Array], Tree]:
  """The dense one in the parameters; `sharp` [S, B, ...] are batches."""
  draws = experiment.config['track']['draws']
  with numerics.exact():
    apply_fn, found, vector = _parameter(
      experiment, params, model_state, batch, memory, key, draws
    )
    found |= probes.batch_sharpness(apply_fn, experiment.loss, params, sharp)
  return found, vector


def of_inputs(
  experiment: Experiment, params, model_state, batch, lambda_max, key
) -> dict[str, Array]:
  """The dense one in the inputs, beside λ_max in the parameters."""
  apply_fn = frozen(experiment.module, model_state)
  config, loss = experiment.config['track'], experiment.loss
  lanczos = {'order': config['input_order'], 'tol': config['input_tol']}
  with numerics.exact():
    found, product = probes.input_curvature(
      apply_fn, loss, params, batch, key, **lanczos
    )
    found |= probes.confounders(apply_fn, params, batch)
    found |= probes.alignment(
      product, params, batch, key, lambda_max=lambda_max,
      scale=1 / np.min(experiment.module.std), **lanczos,
    )  # fmt: skip
  return found


def of_attention(
  experiment: Experiment, params, model_state, batch
) -> dict[str, Array]:
  """What the dense one says of attention, for a network that has it."""
  module = experiment.module
  apply_fn = frozen(module, model_state)
  with numerics.exact():
    return probes.attention_diagnostics(
      apply_fn, params, batch['image'], readout=module.readout
    )
