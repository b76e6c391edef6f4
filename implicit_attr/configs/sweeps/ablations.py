"""Does the effect of the learning rate on maps hinge on a detail of training?

  python -m implicit_attr.main --mode sweep --lanes 30 \
    --config configs/sweeps/ablations.py:small --workdir runs/ablations
  python studies/study_ablations.py runs/ablations

Each of `ABLATIONS` changes one thing of the base, the MLP of
docs/study_first.md, and is run at a small and a large learning rate. The
report of the whole folder averages over ablations what a claim does not tell
apart: ask for that of one, `--mode report --workdir runs/ablations/momentum`.
`:small` has 40 epochs for 100, one map for four, no rate in between, and
leaves out `target_loss`, which `:small_target_loss` runs. Feeds
docs/study_ablations.md.

Seen: both, 210 arms, in 70 minutes on one core of an AMD EPYC, the other in
use, of which the ResNets took 19; C1 contradicted, by the rules before ε50, in
17 settings of 21 at fixed duration, supported in none. The ResNets went
without lanes.
"""

import itertools

import ml_collections

from implicit_attr.configs import common, digits_mlp

RATES = (0.03, 0.1, 0.3)
SEEDS = (0, 1, 2, 3, 4)
MAPS = ('gradient', 'gradient_x_input', 'integrated_gradients', 'smoothgrad')

ABLATIONS = {
  'base': {},
  'beta_1': {'model.beta': 1.0},
  'beta_30': {'model.beta': 30.0},
  'momentum': {'optim.momentum': 0.9, 'scale': 0.1},
  'weight_decay': {'optim.weight_decay': 1e-3},
  'cosine': {'optim.schedule': 'cosine'},
  'label_noise': {'data.label_noise': 0.2},
  'small_init': {'model.gain': 0.3},
  'deep': {'model.widths': (128, 128, 128, 128)},
  'attack_cosine': {'evaluation.attacks': ('cosine',)},
  'crop': {'data.augment': ('crop',)},
  'resnet': {},
  'batch_norm': {'model.norm': 'batch'},
  'squared_error': {'loss.name': 'squared_error', 'scale': 0.5},
  'adamw': {'optim.name': 'adamw', 'scale': 0.03},
  'narrow': {'model.widths': (32, 32)},
  'wide': {'model.widths': (512, 512)},
  'attack_mass_centre': {'evaluation.attacks': ('mass_centre',)},
  # Half as far as the corner of the other ball: 0.06 in each of 64 pixels.
  'attack_l2': {'evaluation.norm': 'l2', 'evaluation.eps': 0.24},
  'group_norm': {'model.norm': 'group'},
  'target_loss': {'evaluation.target': 'loss'},
}
"""Folder -> what it changes; 'scale' times `RATES` are its learning rates,
where the base's own would be too large."""

SMALL = tuple(name for name in ABLATIONS if name != 'target_loss')
"""Of `:small`: another target is another program to compile."""

RESNETS = ('resnet', 'group_norm', 'batch_norm')
"""These have a ResNet-8 of width 8 for a base: the MLP has no norm."""


def base(name: str) -> ml_collections.ConfigDict:
  """What `name` changes one thing of."""
  if name in RESNETS:
    config = common.base()
    config.model.update({'name': 'resnet8', 'width': 8, 'norm': 'none'})
    config.model.update({'activation': 'softplus', 'beta': 5.0})
  else:
    config = digits_mlp.get_config()
    config.model.gain = 1.0
  config.train.update({'duration': '100 epochs', 'eval_every': '2%'})
  config.train.milestones.update({'train_loss': 0.1, 'test_accuracy': 0.93})
  config.track.update({'every': '50%'})
  # as in docs/study_first.md.
  config.evaluation.update({'examples': 64, 'steps': 20, 'restarts': 1})
  config.evaluation.update({'eps': 0.06, 'attributions': MAPS})
  return config


def get_config(arg=None):
  sets = {'small': SMALL, 'small_target_loss': ('target_loss',)}
  sets |= {None: tuple(ABLATIONS)} | {name: (name,) for name in ABLATIONS}
  if arg not in sets:
    allowed = ', '.join(filter(None, sets))
    raise ValueError(f'config argument {arg!r}; allowed: {allowed}')
  small = str(arg).startswith('small')
  arms = []
  for name in sets[arg]:
    config, overrides = base(name), dict(ABLATIONS[name])
    scale = overrides.pop('scale', 1.0)
    if small:
      config.train.duration = '40 epochs'
      # What nearly every arm reaches by then.
      config.train.milestones.update({'train_loss': 0.3, 'test_accuracy': 0.89})
      config.evaluation.attributions = MAPS[:1]
    for seed, rate in itertools.product(SEEDS, RATES[::2] if small else RATES):
      lr = round(scale * rate, 6)
      arms.append(
        {
          'name': f'{name}/lr={lr}/seed_{seed}',
          'base': config,
          'overrides': {**overrides, 'optim.lr': lr, 'seed': seed},
        }
      )
  return ml_collections.ConfigDict({'arms': arms})
