"""Updates a second: a whole run beside its bare step, and the host's part.

  python -m benchmarks.loop                 # two CPU cores
  python -m benchmarks.loop --networks resnet8 resnet18 vit    # a GPU

Each row is one process's numbers, taken in turn: the run (`loop.train` with the
cadences of its config; measuring, saving and compiling not counted), its step
alone in spans over resident images, and an update a call on batches that numpy
made, which is what a loop without spans does. `host` is what drawing a span and
putting it on the device costs an update, beside making a batch on the host.
`resnet8`, `resnet18` and `vit` are those of 32 x 32 images in batches of 128
with crops and flips, on planted images, which need no data set.
"""

import argparse
import importlib
import json
import pathlib
import tempfile
import time

import jax
import numpy as np

from implicit_attr.configs import cifar_resnet8, cifar_vit
from implicit_attr.runtime import programs
from implicit_attr.train import advance, experiment, loop
from implicit_attr.train.feed import Feed
from implicit_attr.train.lanes import Lanes

CPU = {'digits_mlp': 6600, 'digits_cnn': 2200, 'mnist10k_cnn': 400}
GPU = {'resnet8': 4000, 'resnet18': 1000, 'vit': 1500}
"""Updates of the run that is timed."""


def config_of(name: str, data_dir: str | None) -> dict:
  """The config of a row: one of configs/, or a network for 32 x 32 images."""
  if name in CPU:
    config = importlib.import_module(
      f'implicit_attr.configs.{name}'
    ).get_config()
  else:
    module = cifar_vit if name == 'vit' else cifar_resnet8
    config = module.get_config()
    config.data.update({'name': 'planted', 'batch_size': 128})
    config.data.update({'difficulty': 'medium', 'examples': 8000})
    config.data.augment = ('crop', 'flip')
    if name == 'vit':
      config.model.update({'patch': 4, 'width': 192, 'depth': 6, 'heads': 3})
    else:
      width = {'resnet8': 16, 'resnet18': 64}[name]
      config.model.update({'name': name, 'width': width, 'norm': 'batch'})
  if data_dir and config.data.name not in ('digits', 'planted'):
    config.data.data_dir = data_dir
  config.train.duration = f'{(CPU | GPU)[name]} steps'
  config.train.milestones.update({'train_loss': 0.0, 'test_accuracy': 1.0})
  config.track.every = 'never'
  config.checkpoint.every = 'never'
  return config.to_dict()


def rate(work, updates: int, seconds: float) -> float:
  """Updates a second of `work()`, which makes that many, for that long."""
  work()
  began, done = time.perf_counter(), 0
  while time.perf_counter() - began < seconds:
    work()
    done += updates
  return done / (time.perf_counter() - began)


def measure(name: str, data_dir: str | None, seconds: float) -> dict:
  """One row: updates a second each way, and milliseconds of the host."""
  built = experiment.build(config_of(name, data_dir))
  lanes = Lanes.of([built])
  feed = Feed(lanes, 100)
  program, n = advance.make_program(lanes), feed.longest
  each, rates = feed(0, n), lanes.rates[:n]
  box = {'state': built.mesh.replicate(built.init())}

  def span():
    box['state'], sums = program(
      lanes.values, np.True_, box['state'], rates, each, np.int32(n), feed.table
    )
    jax.block_until_ready(sums)

  one = jax.jit(advance.make_train_step(built), donate_argnums=0)
  other = {'state': built.mesh.replicate(built.init()), 'step': 0}

  def update():
    batch = built.mesh.join(built.train_set.batch_at(other['step'] % 1000))
    other['step'] += 1
    other['state'], sums = one(other['state'], batch, rates[0], np.uint32(0))
    if not other['step'] % 20:
      jax.block_until_ready(sums)

  span(), update()
  with tempfile.TemporaryDirectory() as folder:
    loop.train(lanes, [pathlib.Path(folder)])
    text = (pathlib.Path(folder) / 'metrics.jsonl').read_text()
  whole = json.loads(text.splitlines()[-1])['time/steps_per_s']
  turns = [
    (rate(span, n, seconds / 3), rate(update, 1, seconds / 3)) for _ in range(3)
  ]
  bare, single = np.median(turns, axis=0)
  host = 1e3 / rate(lambda: jax.block_until_ready(feed(0, n)), n, seconds / 3)
  batch = 1e3 / rate(lambda: built.train_set.batch_at(7), 1, seconds / 3)
  return {
    'run': whole, 'bare': bare, 'update a call': single,
    'run/bare': whole / bare, 'run/update a call': whole / single,
    'draws ms': host, 'batch_at ms': batch, 'host gain': batch / host,
  }  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--networks', nargs='+', default=list(CPU))
  parser.add_argument('--data_dir', help='a TFDS data_dir for mnist10k')
  parser.add_argument('--seconds', type=float, default=6)
  options = parser.parse_args()
  programs.keep_memory()
  device = jax.devices()[0]
  print(f'{device.device_kind} ({device.platform}), jax {jax.__version__}')
  for name in options.networks:
    row = measure(name, options.data_dir, options.seconds)
    print(f'{name:14}', *(f'{k} {v:.3g}' for k, v in row.items()), sep='  ')


if __name__ == '__main__':
  main()
