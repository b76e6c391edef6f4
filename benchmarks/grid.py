"""What does a grid in one program cost beside its single runs?

  python -m benchmarks.grid mlp vit cnn
  python -m benchmarks.grid mlp --singles 2   times two of 25, and multiplies

5 learning rates x 5 seeds on digits, at the sizes of `:smoke` (or --steps),
from the data to the last file: compilation, training, tracking, checkpoints
and evaluation. Single runs are timed twice over: each compiled anew, and with
the cache of compiled programs that `--mode sweep` keeps, where the first run
fills it. Grid and single runs take turns in one process, so that a loaded
machine slows both; the CPU time of all threads is the steadier number.

Seen (two cores of an AMD EPYC under heavy load of other work, jax 0.12.0;
--singles 2 for the MLP, 1 for the others, times 25), the grid's share of
  25 runs compiled anew: MLP 0.10 of the wall and 0.10 of the CPU time, ViT
    0.11 and 0.09, CNN 0.07 and 0.08;
  25 runs with a cache: MLP 0.42 and 0.40, ViT 0.36 and 0.28, CNN 0.25 and 0.34.
So a grid is worth it on CPUs even where nothing is compiled twice. Of the steps
alone (batch 64, the full configs), a step of 25 lanes took 8 to 10 ms of CPU
for the MLP, in turns or side by side, and 25 single steps 32 to 63; for the
CNN 65 to 77 ms in turns, 99 to 123 side by side, and 99 to 111 alone. Not run
on a GPU: none was at hand.
"""

import argparse
import importlib
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax

from implicit_attr import run
from implicit_attr.runtime import programs
from implicit_attr.train import experiment
from implicit_attr.train.lanes import Lanes

RATES = (0.01, 0.02, 0.04, 0.08, 0.16)
SEEDS = (0, 1, 2, 3, 4)


def arms(network: str, steps: int | None) -> list[dict]:
  """The 25 configs."""
  module = importlib.import_module(f'implicit_attr.configs.digits_{network}')
  found = []
  for lr, seed in itertools.product(RATES, SEEDS):
    config = module.get_config('smoke')
    config.optim.lr, config.seed = lr, seed
    if steps:
      config.train.duration = f'{steps} steps'
    found.append(config.to_dict())
  return found


def timed(fun: Callable[[], None]) -> tuple[float, float]:
  """(wall, CPU) seconds."""
  wall, cpu = time.perf_counter(), time.process_time()
  fun()
  return time.perf_counter() - wall, time.process_time() - cpu


def cache(folder: pathlib.Path | None) -> None:
  """Keeps compiled programs in `folder` from now on; None: nowhere."""
  from jax.experimental.compilation_cache import compilation_cache

  jax.config.update('jax_compilation_cache_dir', folder and str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
  compilation_cache.reset_cache()


def measure(network: str, singles: int, steps: int | None) -> None:
  configs = arms(network, steps)
  count = len(configs)
  chosen = range(0, count, max(count // singles, 1))[:singles]
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    one = lambda i, to: timed(
      lambda: run.train(run.build([configs[i]]), [root / to / str(i)])
    )
    cache(None)
    folders = [root / 'grid' / str(i) for i in range(count)]
    ours = timed(lambda: run.train(run.build(configs), folders))
    anew = [one(i, 'anew') for i in chosen]
    cache(root / 'cache')
    first = one(chosen[0], 'first')
    again = [one(i, 'again') for i in chosen]
    cache(None)
  mean = lambda times: [sum(t) / len(times) for t in zip(*times, strict=True)]
  anew = [count * t for t in mean(anew)]
  kept = [a + (count - 1) * b for a, b in zip(first, mean(again), strict=True)]
  wall, cpu = ours
  mapped = Lanes.of([experiment.build(configs[0])]).mapped
  how = 'in turns' if mapped else 'side by side'
  print(
    f'{network}, lanes {how}: grid of {count} {wall:.0f} s wall {cpu:.0f} s CPU'
  )
  for name, (a, b) in (('compiled anew', anew), ('with a cache', kept)):
    print(
      f'  {count} runs {name}: {a:.0f} s wall {b:.0f} s CPU; the grid takes '
      f'{wall / a:.2f} of the wall, {cpu / b:.2f} of the CPU',
      flush=True,
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('networks', nargs='+', choices=('mlp', 'vit', 'cnn'))
  parser.add_argument('--singles', type=int, default=25, help='runs timed')
  parser.add_argument('--steps', type=int, help='instead of those of :smoke')
  args = parser.parse_args()
  programs.keep_memory()
  print(
    f'jax {jax.__version__}, {jax.devices()[0].device_kind}, '
    f'{os.cpu_count()} cores, load',
    *(f'{load:.1f}' for load in os.getloadavg()), vars(args),
  )  # fmt: skip
  for network in args.networks:
    measure(network, args.singles, args.steps)


if __name__ == '__main__':
  main()
