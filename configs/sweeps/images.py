"""Does the effect of rate and batch on maps hold for convolutions on images?

  TFDS_DATA_DIR=… python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/images.py:cifar --workdir runs/images
  python -m implicit_attr.main --mode report --workdir runs/images

The argument names one of `SETS`, all if none; 24 arms each: two learning rates
× two batch sizes × two losses × three seeds, on few images and with a small
network, so that two cores finish it. `:small` is 2 arms of seconds. Feeds
docs/study_images.md.
"""

import itertools
import os

import ml_collections

from configs import cifar_cnn, cifar_resnet8, mnist10k_cnn, planted_cnn

SETS = {
  'cifar': (
    cifar_cnn,
    {
      'data.name': 'cifar10_jpeg',
      'data.subset': 2000,
      'data.augment': (),
      'model.width': 8,
      'train.duration': '40 epochs',
      'evaluation.eps': 4 / 255,
    },
    {'train_loss': 1.2, 'test_accuracy': 0.4},
  ),
}
RATES = {'cross_entropy': (0.03, 0.3), 'squared_error': (0.015, 0.15)}
BATCHES = (16, 128)
SEEDS = (0, 1, 2)
MAPS = ('gradient', 'gradient_x_input')


def base(name: str) -> ml_collections.ConfigDict:
  """What the arms of a set share: plain SGD, a short attack, two maps."""
  module, changes, milestones = SETS[name]
  config = module.get_config()
  config.optim.update({'momentum': 0.0, 'schedule': 'constant'})
  config.optim.warmup = 'never'
  config.data.data_dir = os.environ.get('TFDS_DATA_DIR')
  config.update_from_flattened_dict(changes)
  config.train.milestones.update(milestones)
  config.train.eval_every = '2.5%'
  config.track.update({'every': '50%', 'examples': 32})
  # docs/attack_strength.png: the attack is flat from 10 steps.
  config.evaluation.update({'examples': 64, 'steps': 20, 'restarts': 1})
  config.evaluation.attributions = MAPS
  return config


def get_config(arg=None):
  small = arg == 'small'
  if arg not in (None, 'small', *SETS):
    allowed = ', '.join(['small', *SETS])
    raise ValueError(f'config argument {arg!r}; allowed: {allowed}')
  arms = []
  if small:
    chosen = {'mnist10k': mnist10k_cnn.get_config('smoke')}
  else:
    chosen = {name: base(name) for name in ((arg,) if arg else SETS)}
  for (name, config), seed, loss, batch, end in itertools.product(
    chosen.items(), (0,) if small else SEEDS, RATES, BATCHES, (0, 1)
  ):
    lr = RATES[loss][end]
    arms.append(
      {
        'name': f'{name}-{loss}/lr={lr},batch={batch}/seed_{seed}',
        'base': config,
        'overrides': {
          'optim.lr': lr,
          'data.batch_size': batch,
          'loss.name': loss,
          'seed': seed,
        },
      }
    )
  return ml_collections.ConfigDict({'arms': arms})
