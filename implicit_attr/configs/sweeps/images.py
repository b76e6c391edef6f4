"""Does the effect of rate and batch on maps hold for convolutions on images?

  TFDS_DATA_DIR=… python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/images.py:cifar --workdir runs/cifar
  python -m implicit_attr.main --mode report --workdir runs/cifar

The argument names one of `SETS`, all if none: two learning rates × two batch
sizes × one or two losses × five seeds, on 4,000 images. `cifar`, `mnist10k` and
`planted` have a network of 8 to 32 channels, `resnet8` batch normalisation and
augmented CIFAR-10. Without lanes: side by side, convolutions whose weights
differ are slower than one after another. `:small` is 2 arms of seconds. Feeds
docs/study_first.md.

Seen, minutes of one core of an AMD EPYC for an arm, the other core in use: 1
to 2 for `:cifar` and `:mnist10k` (40 arms each), 1.5 for `:planted` (40, of
which 32 were run: three seeds of squared error), 3.2 for `:resnet8` (20). C1
contradicted, by the rules before ε50, on the second, undecided on the others;
one arm of `:cifar` diverged (squared error, 0.1, 16).
"""

import itertools
import os
from types import ModuleType
from typing import NamedTuple

import ml_collections

from implicit_attr.configs import (
  cifar_cnn,
  cifar_resnet8,
  mnist10k_cnn,
  planted_cnn,
)

CNN = {'width': 8, 'downsample': 'stride', 'activation': 'gelu'}
RATES = {'cross_entropy': (0.02, 0.1), 'squared_error': (0.03, 0.1)}
SEEDS = (0, 1, 2, 3, 4)
BATCHES = (16, 128)


class Set(NamedTuple):
  """One factorial: a config, what it changes, milestones and rates by loss."""

  module: ModuleType
  changes: dict[str, dict]
  milestones: dict[str, dict[str, float]]
  rates: dict[str, tuple[float, float]] = RATES


SETS = {
  'cifar': Set(
    cifar_cnn,
    {'model': CNN, 'data': {'augment': ()}},
    {
      'cross_entropy': {'train_loss': 1.6, 'test_accuracy': 0.35},
      'squared_error': {'train_loss': 0.38, 'test_accuracy': 0.32},
    },
  ),
  'mnist10k': Set(
    mnist10k_cnn,
    {'model': CNN},
    {
      'cross_entropy': {'train_loss': 0.3, 'test_accuracy': 0.9},
      'squared_error': {'train_loss': 0.15, 'test_accuracy': 0.9},
    },
  ),
  'planted': Set(
    planted_cnn,
    {
      'model': {'width': 8, 'activation': 'gelu'},
      'data': {'difficulty': 'easy'},
      'train': {'duration': '40 epochs'},
    },
    {
      'cross_entropy': {'train_loss': 0.5, 'test_accuracy': 0.7},
      'squared_error': {'train_loss': 0.3, 'test_accuracy': 0.6},
    },
    {'cross_entropy': (0.05, 0.2), 'squared_error': (0.1, 0.3)},
  ),
  'resnet8': Set(
    cifar_resnet8,
    {
      'model': {'width': 8, 'norm': 'batch'},
      'train': {'duration': '12 epochs', 'eval_every': '10%'},
    },
    {'cross_entropy': {'train_loss': 1.75, 'test_accuracy': 0.35}},
    {'cross_entropy': (0.05, 0.4)},
  ),
}


def get_config(arg=None):
  small = arg == 'small'
  if arg not in (None, 'small', *SETS):
    allowed = ', '.join(['small', *SETS])
    raise ValueError(f'config argument {arg!r}; allowed: {allowed}')
  arms = []
  for name in {None: SETS, 'small': ('mnist10k',)}.get(arg, (arg,)):
    chosen = SETS[name]
    for loss, rates in chosen.rates.items():
      base = chosen.module.get_config('smoke' if small else None)
      base.optim.update({'momentum': 0.0, 'schedule': 'constant'})
      base.optim.warmup = 'never'
      if not small:
        base.data.subset = 4000
        base.train.update({'duration': '20 epochs', 'eval_every': '5%'})
        base.train.milestones.update(chosen.milestones[loss])
        base.track.update({'every': '50%', 'examples': 32})
        base.evaluation.attributions = ('gradient', 'gradient_x_input')
        # as in docs/study_first.md.
        base.evaluation.update({'examples': 64, 'steps': 20, 'restarts': 1})
        if name != 'planted':
          base.data.data_dir = os.environ.get('TFDS_DATA_DIR')
        if base.data.name == 'cifar10':
          base.data.name = 'cifar10_jpeg'
          base.evaluation.eps = 4 / 255
      for field, values in chosen.changes.items():
        base[field].update(values)
      for seed, batch, lr in itertools.product(
        (0,) if small else SEEDS,
        (16,) if small else BATCHES,
        rates[1:] if small else rates,
      ):
        arms.append(
          {
            'name': f'{name}-{loss}/lr={lr},batch={batch}/seed_{seed}',
            'base': base,
            'overrides': {
              'optim.lr': lr,
              'data.batch_size': batch,
              'loss.name': loss,
              'seed': seed,
            },
          }
        )
  return ml_collections.ConfigDict({'arms': arms})
