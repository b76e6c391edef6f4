"""The largest learning rate of SGD that does not diverge, by bisection.

  python studies/largest_rate.py digits_cnn --config.data.batch_size=32 …
  python studies/largest_rate.py sweeps/interpolation:cifar

Any config by name or file, with changes as on the command line of a run; of a
sweep, each setting but for rate and seed, with the rates that the sweep has. A
rate diverges if within `EPOCHS` a loss or a weight stops being finite, or the
mean loss of the last epoch is not below that of the first update. One compiled
program serves all rates. Prints the rate, right to a factor of 2 ** (1 / 8).
"""

import copy
import json
import math
import sys

import jax
import numpy as np

from implicit_attr import main, numerics
from implicit_attr.sweeps import sweep
from implicit_attr.train import advance, experiment
from implicit_attr.train.feed import Feed
from implicit_attr.train.lanes import Lanes

EPOCHS = 5
FACTOR = 2 ** (1 / 8)


def trial(built: experiment.Experiment):
  """rate -> whether training at this constant rate is stable."""
  lanes, epoch = Lanes.of([built]), built.train_set.steps_per_epoch
  feed, program = Feed(lanes, epoch), advance.make_program(lanes)

  def stable(rate: float) -> bool:
    state, losses = built.mesh.replicate(built.init()), []
    rates = np.full(feed.longest, rate, np.float32)
    for step in range(0, EPOCHS * epoch, feed.longest):
      n = np.int32(min(feed.longest, EPOCHS * epoch - step))
      state, sums = program(
        lanes.values, True, state, rates, feed(step, n), n, feed.table
      )
      sums = jax.device_get(sums)
      losses.extend((sums['loss'] / np.maximum(sums['n'], 1))[:n])
      fine = bool(numerics.all_finite((state.params, state.model_state)))
      if not fine or not np.isfinite(losses).all():
        return False
    return bool(np.mean(losses[-epoch:]) < losses[0])

  return stable


def largest(stable, low: float = 1e-3) -> float:
  """The largest rate at which `stable` holds, from `low` up."""
  high = low
  while stable(high) and high < 1e3:
    low, high = high, 4 * high
    print(f'{low:.4g} is stable', flush=True)
  while high / low > FACTOR:
    middle = math.sqrt(low * high)
    low, high = (middle, high) if stable(middle) else (low, middle)
    print(f'between {low:.4g} and {high:.4g}', flush=True)
  return low


def of_sweep(arms: list[sweep.Arm]) -> None:
  """A line for each setting: an arm of it, its rates, the largest stable."""
  cells: dict[str, list[sweep.Arm]] = {}
  for arm in arms:
    config = copy.deepcopy(arm.config)
    config['seed'] = config['optim']['lr'] = 0
    cells.setdefault(json.dumps(config, sort_keys=True), []).append(arm)
  for of_cell in cells.values():
    rates = sorted({arm.config['optim']['lr'] for arm in of_cell})
    top = largest(trial(experiment.build(of_cell[0].config)))
    print(f'{of_cell[0].name}: rates {rates}, largest {top:.3g}', flush=True)


if __name__ == '__main__':
  main.parse([sys.argv[0], f'--config={sys.argv[1]}', *sys.argv[2:]])
  config = main._CONFIG.value
  if 'arms' in config:
    of_sweep(sweep.arms(config))
  else:
    print(f'{largest(trial(experiment.build(config.to_dict()))):.3g}')
