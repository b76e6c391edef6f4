"""Does the effect of rate and batch on maps hold for convolutions on images?

  TFDS_DATA_DIR=… python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/images.py:cifar --workdir runs/cifar
  python -m implicit_attr.main --mode report --workdir runs/cifar

The argument names one of `SETS`, all if none; 24 arms each: two learning rates
× two batch sizes × two losses × three seeds, a network of 8 to 32 channels on
4,000 images. Without lanes: side by side, convolutions whose weights differ are
slower than one after another. `:small` is 2 arms of seconds. Feeds
docs/study.md.

Seen on two cores of an AMD EPYC, a launcher on each: `:mnist10k` and `:cifar`
together in 44 minutes beside other work; C1 contradicted on the first and
undecided on the second, where one arm (squared error, 0.1, 16) diverged.
"""

import itertools
import os

import ml_collections

from configs import cifar_cnn, mnist10k_cnn

CNN = {'width': 8, 'downsample': 'stride', 'activation': 'gelu'}
RATES = {'cross_entropy': (0.02, 0.1), 'squared_error': (0.03, 0.1)}
SEEDS = (0, 1, 2)
BATCHES = (16, 128)
SETS = {  # name: (config, milestones)
  'cifar': (
    cifar_cnn,
    {
      'cross_entropy': {'train_loss': 1.6, 'test_accuracy': 0.35},
      'squared_error': {'train_loss': 0.38, 'test_accuracy': 0.32},
    },
  ),
  'mnist10k': (
    mnist10k_cnn,
    {
      'cross_entropy': {'train_loss': 0.3, 'test_accuracy': 0.9},
      'squared_error': {'train_loss': 0.15, 'test_accuracy': 0.9},
    },
  ),
}


def get_config(arg=None):
  small = arg == 'small'
  if arg not in (None, 'small', *SETS):
    allowed = ', '.join(['small', *SETS])
    raise ValueError(f'config argument {arg!r}; allowed: {allowed}')
  arms = []
  for name in {None: SETS, 'small': ('mnist10k',)}.get(arg, (arg,)):
    module, milestones = SETS[name]
    for loss in RATES:
      base = module.get_config('smoke' if small else None)
      base.model.update(CNN)
      base.optim.update({'momentum': 0.0, 'schedule': 'constant'})
      if not small:
        base.data.data_dir = os.environ.get('TFDS_DATA_DIR')
        base.data.update({'subset': 4000, 'augment': ()})
        if name != 'mnist10k':
          base.data.name = 'cifar10_jpeg'
          base.evaluation.eps = 4 / 255
        base.train.update({'duration': '20 epochs', 'eval_every': '5%'})
        base.train.milestones.update(milestones[loss])
        base.track.update({'every': '50%', 'examples': 32})
        base.evaluation.attributions = ('gradient', 'gradient_x_input')
        # docs/attack_strength.png: the attack is flat from 10 steps.
        base.evaluation.update({'examples': 64, 'steps': 20, 'restarts': 1})
      for seed, batch, lr in itertools.product(
        (0,) if small else SEEDS,
        (16,) if small else BATCHES,
        RATES[loss][1:] if small else RATES[loss],
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
