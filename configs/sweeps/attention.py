"""Attention kernel × normaliser × learning rate × seed: what costs softmax?

  python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/attention.py:digits --lanes 10 \
    --workdir runs/attention
  python -m implicit_attr.main --mode report --workdir runs/attention

The argument names one of `DATA`, all if none; 30 arms each, of which the first
and the last learning rate are compared. `:small` is 4 arms of seconds. Feeds
docs/study.md. Seen: `:digits` in an hour on two busy cores of an AMD EPYC, C1
supported for the kernels, C4 to C6 undecided; `:planted` was not run.
"""

import itertools

import ml_collections

from configs import digits_vit, planted_vit

MAPS = ('gradient', 'raw', 'rollout', 'chefer')
DATA = {
  'digits': (digits_vit, {'train.duration': '40 epochs'}),
  'planted': (
    planted_vit,
    {'data.examples': 2000, 'train.duration': '20 epochs'},
  ),
}
KERNELS = ('softmax', 'elu1_sum', 'elu1_none')
RATES = (0.01, 0.1)
SEEDS = (0, 1, 2, 3, 4)


def get_config(arg=None):
  small = arg == 'small'
  if arg not in (None, 'small', *DATA):
    allowed = ', '.join(['small', *DATA])
    raise ValueError(f'config argument {arg!r}; allowed: {allowed}')
  chosen = {None: DATA, 'small': ('digits',)}.get(arg, (arg,))
  arms = []
  for name in chosen:
    module, overrides = DATA[name]
    base = module.get_config('smoke' if small else None)
    base.evaluation.attributions = ('gradient', 'rollout') if small else MAPS
    if not small:  # docs/attack_strength.png: the attack is flat from 10 steps
      base.evaluation.update({'examples': 64, 'steps': 20, 'restarts': 1})
    for seed, kernel, lr in itertools.product(  # whole seeds come first
      (0,) if small else SEEDS,
      ('softmax', 'elu1_none') if small else KERNELS,
      RATES,
    ):
      arms.append(
        {
          'name': f'{name}-{kernel}/lr={lr}/seed_{seed}',
          'base': base,
          'overrides': {
            **({} if small else overrides),
            'model.attention': kernel,
            'optim.lr': lr,
            'seed': seed,
          },
        }
      )
  return ml_collections.ConfigDict({'arms': arms})
