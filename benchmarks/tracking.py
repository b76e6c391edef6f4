"""What does tracking add to a training step? One run, with and without.

  python -m benchmarks.tracking configs/digits_cnn.py configs/mnist10k_cnn.py
  python -m benchmarks.tracking --each configs/digits_cnn.py
  python -m benchmarks.tracking --each --order 2 configs/digits_cnn.py

Blocks of steps with and without the measurements that the config's cadence
puts into them alternate in one process, so that a loaded machine slows both.
Compilation is left out of both. Prints the ratio; docs and README quote it.

With --each, λ_max and the gradient norms at every step, on a quarter as many
examples as are in a batch: how many times as long does a step take? --order is
the most products of a search; `warm_start.py` says how far off it then is.
"""

import argparse
import importlib.util
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from implicit_attr.train import State, advance, experiment
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.tracking import Tracker

BLOCKS = 3
EACH = 50


def build(path: str, data_dir: str | None, **track: Any) -> Experiment:
  spec = importlib.util.spec_from_file_location('config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  if data_dir and config.data.name not in ('digits', 'planted'):
    config.data.data_dir = data_dir
    if config.data.name == 'cifar10':
      config.data.name = 'cifar10_jpeg'
  config.track.update(track)
  if track:
    config.track.examples = config.data.batch_size // 4
  return experiment.build(config.to_dict())


def run(built: Experiment, step_fn: Callable, state: State, first: int, n: int):
  """Yields `n` states after steps `first` and on."""
  for i in range(first, first + n):
    batch = built.mesh.split(built.train_set.batch_at(i))
    state, _ = step_fn(state, batch, built.learning_rates[i], np.uint32(0))
    yield state


def tracking(built: Experiment) -> tuple[Tracker, Callable]:
  """A tracker, and what asks it: (step, state, memory) -> (record, memory)."""
  folder = pathlib.Path(tempfile.mkdtemp())
  tracker, yes = Tracker(Lanes.of([built]), [folder]), np.array([True])
  return tracker, lambda *args: tracker(*args, yes, ~yes)


def each(path: str, data_dir: str | None, order: int | None) -> None:
  track = {'order': order} if order else {}
  built = build(path, data_dir, cheap_every='1 steps', **track)
  state = built.mesh.replicate(built.init())
  step_fn = jax.jit(advance.make_train_step(built), donate_argnums=0)
  tracker, measure_at = tracking(built)
  memory = built.mesh.replicate(tracker.memory(state.params))
  *_, state = run(built, step_fn, state, 0, 20)
  _, memory = measure_at(1, state, memory)  # compiled here
  times = {'without': [], 'with': []}
  for i in range(2 * BLOCKS):
    began = time.perf_counter()
    for step, after in enumerate(run(built, step_fn, state, 20, EACH), 1):
      state = after
      if i % 2:
        _, memory = measure_at(step, state, memory)
    jax.block_until_ready(state)
    times['with' if i % 2 else 'without'].append(time.perf_counter() - began)
  short, long = (statistics.median(t) / EACH for t in times.values())
  print(
    f'{pathlib.Path(path).stem}: step {1e3 * short:.1f} ms, with λ_max on '
    f'{built.settings.track.examples} examples {1e3 * long:.1f} ms: '
    f'{long / short:.2f} times',
    flush=True,
  )


def measure(path: str, data_dir: str | None) -> None:
  built = build(path, data_dir)
  state = built.mesh.replicate(built.init())
  step_fn = jax.jit(advance.make_train_step(built), donate_argnums=0)
  tracker, measure_at = tracking(built)
  memory = built.mesh.replicate(tracker.memory(state.params))
  every = built.every['track']
  block = min(every, 300)  # steps timed; one measurement per `every` steps

  def steps(state, first, count):
    *_, state = run(built, step_fn, state, first, count)
    return jax.block_until_ready(state)

  state = steps(state, 0, 20)
  _, memory = measure_at(0, state, memory)  # compiled here
  plain, probe = [], []
  for i in range(BLOCKS):
    began = time.perf_counter()
    state = steps(state, 20 + i * block, block)
    plain.append((time.perf_counter() - began) / block)
    before = tracker.seconds
    _, memory = measure_at(0, state, memory)  # step 0 is always due
    probe.append(tracker.seconds - before)
  share = statistics.median(probe) / (every * statistics.median(plain))
  print(
    f'{pathlib.Path(path).stem}: step {1e3 * statistics.median(plain):.1f} ms, '
    f'measurement {1e3 * statistics.median(probe):.0f} ms every {every} steps: '
    f'tracking costs {100 * share:.1f} % of training',
    flush=True,
  )


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('paths', nargs='+')
  parser.add_argument('--data_dir')
  parser.add_argument('--each', action='store_true')
  parser.add_argument('--order', type=int)
  args = parser.parse_args()
  for name in args.paths:
    if args.each:
      each(name, args.data_dir, args.order)
    else:
      measure(name, args.data_dir)
