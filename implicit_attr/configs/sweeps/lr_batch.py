"""Learning rate × batch size × loss × seed: are larger steps more robust?

  python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/lr_batch.py:mlp --lanes 15 --workdir runs/lr_batch
  python -m implicit_attr.main --mode report --workdir runs/lr_batch

The argument names one of `NETWORKS`, all if none; 90 arms each. `:small` is 8
arms of seconds. Every arm takes the same number of epochs; 'at matched loss'
and 'at matched accuracy' come from the milestones. Feeds docs/study_first.md.

Seen: `:mlp` in 17 minutes on two busy cores of an AMD EPYC, C1 contradicted
by the rules before ε50; the others were not run.
"""

import itertools

import ml_collections

from implicit_attr.configs import (
  cifar_resnet8,
  digits_cnn,
  digits_mlp,
  digits_vit,
)

NETWORKS = {
  'mlp': (digits_mlp, {'train.duration': '100 epochs'}),
  'cnn': (digits_cnn, {'train.duration': '40 epochs'}),
  'vit': (digits_vit, {'train.duration': '60 epochs'}),
  'resnet8': (cifar_resnet8, {}),  # needs a data_dir, and wants a GPU
}
RATES = {
  'cross_entropy': (0.03, 0.1, 0.3),
  'squared_error': (0.015, 0.05, 0.15),
}
BATCHES = (16, 64, 256)
SEEDS = (0, 1, 2, 3, 4)


def get_config(arg=None):
  small = arg == 'small'
  if arg not in (None, 'small', *NETWORKS):
    allowed = ', '.join(['small', *NETWORKS])
    raise ValueError(f'config argument {arg!r}; allowed: {allowed}')
  chosen = {None: NETWORKS, 'small': ('mlp', 'cnn')}.get(arg, (arg,))
  arms = []
  for network, loss in itertools.product(chosen, RATES):
    module, overrides = NETWORKS[network]
    base = module.get_config('smoke' if small else None)
    rates = RATES[loss][1:2] if small else RATES[loss]
    batches = (16, 32) if small else BATCHES
    if not small:  # as in docs/study_first.md
      base.evaluation.update({'examples': 64, 'steps': 20, 'restarts': 1})
      base.evaluation.eps = 2 * base.evaluation.eps  # so that maps do change
      # What nearly every arm reaches.
      base.train.milestones.update({'train_loss': 0.1, 'test_accuracy': 0.93})
    for lr, batch, seed in itertools.product(
      rates, batches, (0,) if small else SEEDS
    ):
      arms.append(
        {
          'name': f'{network}-{loss}/lr={lr},batch={batch}/seed_{seed}',
          'base': base,
          'overrides': {
            **({} if small else overrides),
            'optim.lr': lr,
            'data.batch_size': batch,
            'loss.name': loss,
            'seed': seed,
          },
        }
      )
  return ml_collections.ConfigDict({'arms': arms})
