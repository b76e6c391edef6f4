"""Every explicit regulariser, in strengths and seeds, beside plain SGD.

  python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/explicit.py:small --workdir runs/explicit
  python studies/frontier.py runs/explicit

What does an explicit route buy that a larger learning rate does not, and what
does a step of it cost? `:small` is 46 arms on digits with short walks; `:mnist`
(MNIST's 10,000 test images) and `:cifar` are 138 each, with three seeds and
longer walks: they want a GPU, and the data's folder in $TFDS_DATA_DIR. `:madry`
is the MNIST table of Chen et al. (arXiv 1905.09957) with TRADES and SCORPIO, 18
arms, for a GPU as well; `:madry_small` is what one core does of it, for
studies/madry.py. Run so far, on a busy core of an AMD EPYC: `:small`, its last
13 arms in 8 minutes (docs/frontier.md), and `:madry_small`, its last five in 18
(docs/madry.md); of the others nothing.
"""

import itertools
import os

import ml_collections

from implicit_attr.configs import (
  cifar_cnn,
  digits_cnn,
  mnist10k_cnn,
  mnist10k_madry,
)

DATA_DIR = os.environ.get('TFDS_DATA_DIR')
ARGUMENTS = ('small', 'mnist', 'cifar', 'madry', 'madry_small')
RATES = {
  'small': (0.02, 0.1, 0.3, 1.0),
  'mnist': (0.02, 0.1, 0.3, 1.0),
  'cifar': (0.01, 0.05, 0.1, 0.3),
}
"""Plain SGD; the second one is that of every explicit route."""

RADII = {'small': (0.05, 0.1), 'mnist': (0.1, 0.3), 'cifar': (4 / 255, 8 / 255)}
WALK = {'small': 3, 'mnist': 40, 'cifar': 7}


def methods(size: str) -> dict[str, list[dict]]:
  """Name -> overrides of each strength, weak first."""
  radii, steps = RADII[size], WALK[size]
  walk = {'steps': steps, 'step': 2.5 / steps}
  small = size == 'small'
  path = {'points': 4, 'inner_points': 2} if small else {}
  path = {'points': 10, 'inner_points': 2} if size == 'cifar' else path
  short = walk if small else {}
  entries = {'k': {'small': 64, 'mnist': 784, 'cifar': 1000}[size]}

  def by_weight(name, *weights, **options):
    return [
      {
        'objective.name': name,
        'objective.weight': w,
        'objective.options': options,
      }
      for w in weights
    ]

  def by_radius(name, **options):
    return [
      {
        'objective.name': name,
        'objective.options': {'eps': eps, **options},
      }
      for eps in radii
    ]

  return {
    'weight_decay': [{'optim.weight_decay': w} for w in (1e-3, 1e-2)],
    'gradient_penalty': by_weight('gradient_penalty', 0.03, 0.3),
    'gradient_penalty_l1': by_weight('gradient_penalty', *radii, norm='l1'),
    'hessian_penalty': by_weight('hessian_penalty', 1e-4, 1e-3),
    'cure': by_weight('cure', 0.5, 4.0, h=8 * radii[0]),
    'ssr': by_weight('ssr', 0.01, 0.1),
    'scorpio_1': by_radius('scorpio', iterations=1),
    'scorpio_3': by_radius('scorpio', iterations=3),
    'llr': by_radius('llr', **short),
    'gradient_alignment': by_weight('gradient_alignment', 0.1, 1.0, eps=0.05),
    'ig_norm': by_radius('ig_norm', **path, **walk),
    'ig_sum_norm': by_radius('ig_sum_norm', **path, **walk),
    'art': by_radius('art', **entries, **short),
    'aat': by_radius('aat', **short),
    'adv_aat': by_radius('adv_aat', **short),
    'igr': by_radius('igr', **short),
    'fgsm': by_radius('fgsm'),
    'pgd': by_radius('pgd', **walk),
    'pgd_cw': by_radius('pgd', attack='cw', **walk),
    'trades': by_radius('trades', **short),
    'sam': by_weight('sam', 0.05, 0.2),
  }


def base(size: str) -> ml_collections.ConfigDict:
  """A smooth network, so that every attack follows its own map."""
  source = {'small': digits_cnn, 'mnist': mnist10k_cnn, 'cifar': cifar_cnn}
  config = source[size].get_config()
  config.model.update({'activation': 'softplus', 'beta': 10.0})
  config.optim.update({'lr': RATES[size][1], 'momentum': 0.0})
  config.evaluation.update({'eps': RADII[size][0], 'checkpoints': ('last',)})
  config.track.update({'every': '50%'})
  if size == 'small':
    config.model.update({'width': 8, 'depth': 2, 'hidden': 32})
    config.train.update({'duration': '40 epochs', 'eval_every': '25%'})
    config.track.update({'examples': 16, 'order': 10, 'draws': 2})
    config.evaluation.update({'steps': 20, 'restarts': 1, 'examples': 64})
  else:
    config.data.data_dir = DATA_DIR
  return config


def madry(small: bool) -> tuple[ml_collections.ConfigDict, list]:
  """The published network with every method of one table at one radius.

  Adam at 1e-4 for 100,000 batches of 50, walks of 40 steps of 0.01 in a ball of
  0.3 and paths of 50 points, 5 in a walk, are those of Chen et al. for MNIST;
  TRADES walks as they do. Small: a quarter of the channels and an eighth of the
  hidden units, a ball of 0.1, and everything short.
  """
  config = mnist10k_madry.get_config('network=published')
  config.data.update({'batch_size': 50, 'data_dir': DATA_DIR})
  config.optim.update({'name': 'adamw', 'lr': 1e-3 if small else 1e-4})
  config.train.duration = '300 steps' if small else '100000 steps'
  eps = 0.1 if small else 0.3
  config.evaluation.update({'eps': eps, 'checkpoints': ('last',)})
  config.evaluation.attributions = ('integrated_gradients',)
  if small:
    config.model.update({'width': 8, 'hidden': 128})
    config.train.update({'eval_every': '50%'})
    config.track.every = 'never'  # studies/madry.py measures what it needs
    config.evaluation.attributions = ('gradient',)
    config.evaluation.update({'steps': 5, 'restarts': 1, 'examples': 16})
  walk = {'eps': eps, 'steps': 40, 'step': 1 / 30}
  path = {'points': 50, 'inner_points': 5}
  if small:
    walk = {'eps': eps, 'steps': 4, 'step': 0.5}
    path = {'points': 4, 'inner_points': 1}
  options = {
    'pgd': walk,
    'ig_norm': {**path, **walk},
    'ig_sum_norm': {**path, **walk},
    'trades': walk,
    'scorpio': {'eps': eps, 'iterations': 3},
  }
  explicit = [
    (
      f'{name}/eps={eps}',
      {'objective.name': name, 'objective.options': found},
    )
    for name, found in options.items()
  ]
  return config, [(f'none/eps={eps}', {}), *explicit]


def get_config(arg=None):
  if arg not in ARGUMENTS:
    raise ValueError(f'config argument {arg!r}; allowed: {ARGUMENTS}')
  seeds = (0,) if arg == 'small' else (0, 1, 2)
  if arg in ('madry', 'madry_small'):
    config, named = madry(arg == 'madry_small')
  else:
    config = base(arg)
    named = [(f'none/lr={lr}', {'optim.lr': lr}) for lr in RATES[arg]]
    named += [
      (f'{name}/strength={i}', overrides)
      for name, strengths in methods(arg).items()
      for i, overrides in enumerate(strengths)
    ]
  arms = [
    {
      'name': f'{name}/seed_{seed}',
      'base': config,
      'overrides': {**overrides, 'seed': seed},
    }
    for seed, (name, overrides) in itertools.product(seeds, named)
  ]
  return ml_collections.ConfigDict({'arms': arms})
