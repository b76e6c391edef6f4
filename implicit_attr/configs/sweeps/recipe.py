"""Rate under the usual recipe: batch norm, crops and flips, a falling rate.

  python -m implicit_attr.main --mode sweep --lanes 15 \
    --config sweeps/recipe:small --workdir runs/recipe
  python -m implicit_attr.main --mode sweep --config sweeps/recipe:gpu \
    --budget=480 --workdir runs/recipe
  python -m implicit_attr.main --mode report --workdir runs/recipe

`gpu` is ResNet-8 of width 64 on CIFAR-10 (re-encoded as JPEG), meant to pass
0.85, nine seeds; `small` one of width 8 on digits, with crops alone, five.
`cooled` (after a comma) has a constant rate that falls to 0 over the last
tenth, else it is constant; `momentum` 0.9 of it at the same effective rate.
Runs are compared at the same training loss and the same test accuracy.

Seen: `:small` in 10 minutes on two cores of an AMD EPYC, every network to a
training loss of 0.05 and 0.975 to 0.982 of accuracy there; C1 undecided.
`:small,cooled` in 6, the same. `:gpu` was not run.
"""

import itertools

import ml_collections

from implicit_attr.configs import cifar_resnet8, digits_cnn

RATES = (0.02, 0.1, 0.4, 1.6)
MAPS = (
  'gradient', 'gradient_x_input', 'integrated_gradients', 'smoothgrad',
  'grad_cam', 'guided_backprop',
)  # fmt: skip


def get_config(arg=None):
  words = set(filter(None, (arg or '').split(',')))
  allowed = {'small', 'gpu', 'cooled', 'momentum'}
  if words - allowed or {'small', 'gpu'} <= words:
    raise ValueError(f'config argument {arg!r}; allowed: {sorted(allowed)}')
  base = cifar_resnet8.get_config()
  base.data.name = 'cifar10_jpeg'
  base.model.update({'norm': 'batch', 'width': 64})
  base.optim.warmup = 'never'
  base.optim.schedule = 'cooldown' if 'cooled' in words else 'constant'
  base.train.duration = '14 epochs'
  base.track.update({'every': '50%', 'whole': 1024})
  base.evaluation.attributions = MAPS
  base.evaluation.eps = 2 / 255
  rates = RATES
  seeds = range(9)
  if 'small' in words:
    digits = digits_cnn.get_config()
    base.data.update({'name': 'digits', 'augment': ('crop',), 'batch_size': 32})
    base.model.update({'width': 8, 'mean': 0.5, 'std': 0.5})
    base.train.duration = '100 epochs'
    base.train.eval_every = '0.2 epochs'
    base.train.milestones.update({'train_loss': 0.05, 'test_accuracy': 0.96})
    base.track.whole = 1000
    # 20 steps, where the default has 30 by now, as the study has them.
    base.evaluation.update({'examples': 64, 'steps': 20})
    base.evaluation.attributions = ('gradient',)
    base.evaluation.radii = digits.evaluation.radii
    rates, seeds = RATES[:3], range(5)
  scale = 0.1 if 'momentum' in words else 1
  base.optim.momentum = 0.9 if 'momentum' in words else 0.0
  return ml_collections.ConfigDict({
    'arms': [
      {
        'name': f'lr={lr}/seed_{seed}',
        'base': base,
        'overrides': {'optim.lr': round(lr * scale, 6), 'seed': seed},
      }
      for lr, seed in itertools.product(rates, seeds)
    ]
  })  # fmt: skip
