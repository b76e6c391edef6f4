"""Attention kernel × normaliser × learning rate × seed: what costs softmax?

  python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/attention.py:digits --workdir runs/attention
  python -m implicit_attr.main --mode report --workdir runs/attention

The argument names one of `DATA`, all if none; 30 arms each. `:small` is 4 arms
of seconds. Feeds docs/study_first.md. Seen on two cores of an AMD EPYC,
without lanes (ten ViTs in one program are slower than one after another) and
with two launchers on one workdir, a core each: `:digits` in 26 minutes, C1
supported for the kernels under all three rules, C4 to C6 undecided; `:planted`
in 65 minutes beside other work, all of it undecided.
"""

import itertools

import ml_collections

from implicit_attr.configs import digits_vit, planted_vit

MAPS = ('gradient', 'raw', 'rollout', 'chefer')
DATA = {
  'digits': (digits_vit, {'train.duration': '40 epochs'}),
  'planted': (planted_vit, {'train.duration': '25 epochs'}),
}
KERNELS = {
  'digits': ('softmax', 'elu1_sum', 'elu1_none'),
  # elu + 1 does not learn it: rows of 64 tokens stay too flat.
  'planted': ('softmax', 'relu2_sum', 'relu2_none'),
}
RATES = {'digits': (0.01, 0.1), 'planted': (0.03, 0.1)}
# What every arm that learns passes.
MILESTONES = {
  'digits': {'train_loss': 0.1, 'test_accuracy': 0.92},
  'planted': {'train_loss': 0.7, 'test_accuracy': 0.7},
}
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
    if not small:  # as in docs/study_first.md
      base.evaluation.update({'examples': 64, 'steps': 20, 'restarts': 1})
      base.train.milestones.update(MILESTONES[name])
      if name == 'planted':  # 64 tokens; so all else is less, for time
        base.model.update({'width': 32, 'heads': 2})
        base.track.update({'every': '100%', 'examples': 16})
        base.evaluation.steps = 10
    for seed, kernel, lr in itertools.product(  # whole seeds come first
      (0,) if small else SEEDS,
      ('softmax', 'elu1_none') if small else KERNELS[name],
      RATES[name],
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
