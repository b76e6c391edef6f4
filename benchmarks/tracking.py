"""What does tracking add to a training step? One run, with and without.

  python -m benchmarks.tracking configs/digits_cnn.py configs/mnist10k_cnn.py

Blocks of steps with and without the measurements that the config's cadence
puts into them alternate in one process, so that a loaded machine slows both.
Compilation is left out of both. Prints the ratio; docs and README quote it.
"""

import importlib.util
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from implicit_attr import experiment, loop
from implicit_attr.tracking import Tracker

BLOCKS = 3


def measure(path: str, data_dir: str | None) -> None:
  spec = importlib.util.spec_from_file_location('config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  if data_dir and config.data.name not in ('digits', 'planted'):
    config.data.data_dir = data_dir
    if config.data.name == 'cifar10':
      config.data.name = 'cifar10_jpeg'
  built = experiment.build(config.to_dict())
  state = built.mesh.replicate(built.init())
  step_fn = loop.make_train_step(built)
  tracker = Tracker(built, pathlib.Path(tempfile.mkdtemp()))
  memory = built.mesh.replicate(tracker.memory(state.params))
  every = built.every['track']
  block = min(every, 300)  # steps timed; one measurement per `every` steps

  def steps(state, first, count):
    for i in range(first, first + count):
      batch = built.mesh.split(built.train_set.batch_at(i))
      rate = built.learning_rates[i]
      state, _ = step_fn(state, batch, rate, np.uint32(0))
    return jax.block_until_ready(state)

  state = steps(state, 0, 20)
  _, memory = tracker(0, state, memory)  # compiled here
  plain, probe = [], []
  for i in range(BLOCKS):
    began = time.perf_counter()
    state = steps(state, 20 + i * block, block)
    plain.append((time.perf_counter() - began) / block)
    before = tracker.seconds
    _, memory = tracker(0, state, memory)  # step 0 is always due
    probe.append(tracker.seconds - before)
  share = statistics.median(probe) / (every * statistics.median(plain))
  print(
    f'{pathlib.Path(path).stem}: step {1e3 * statistics.median(plain):.1f} ms, '
    f'measurement {1e3 * statistics.median(probe):.0f} ms every {every} steps: '
    f'tracking costs {100 * share:.1f} % of training',
    flush=True,
  )


if __name__ == '__main__':
  paths = [a for a in sys.argv[1:] if not a.startswith('--data_dir=')]
  folder = [a.partition('=')[2] for a in sys.argv[1:] if a not in paths]
  for name in paths:
    measure(name, folder[0] if folder else None)
