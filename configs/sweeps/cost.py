"""What does a larger step or a smaller batch cost, beside explicit routes?

  python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/cost.py:small --workdir runs/cost
  python -m implicit_attr.main --mode report --workdir runs/cost

The table of costs, and the verdict on C3. Not with --lanes: arms that train
together have no speed of their own. Within a seed all arms follow each other,
so that a machine that gets slower slows both ends of a comparison. Plain SGD
over rates × batches; explicit routes at the middle rate, each in the strength
of configs/sweeps/explicit.py with the steadier maps.
"""

import itertools

import ml_collections

from configs.sweeps import explicit

RATES = (0.05, 0.1, 0.3)
BATCHES = (16, 64, 256)
SEEDS = (0, 1, 2, 3, 4)
SMALL = {'rates': (0.05, 0.3), 'batches': (16, 64), 'seeds': (0, 1, 2)}
ROUTES = ('gradient_penalty', 'hessian_penalty', 'pgd', 'cure', 'sam')
"""`:small` takes the first three."""


def get_config(arg=None):
  if arg not in (None, 'small'):
    raise ValueError(f"config argument {arg!r}; allowed: 'small'")
  whole = {'rates': RATES, 'batches': BATCHES, 'seeds': SEEDS}
  size = SMALL if arg == 'small' else whole
  base = explicit.base('small')
  base.evaluation.attributions = ('gradient',)
  base.evaluation.checkpoints = ('last', 'train_loss', 'test_accuracy')
  # What every arm reaches.
  base.train.milestones.update({'train_loss': 0.2, 'test_accuracy': 0.9})
  plain = {
    f'none/lr={lr},batch={batch}': {
      'optim.lr': lr, 'data.batch_size': batch
    }
    for lr, batch in itertools.product(size['rates'], size['batches'])
  }  # fmt: skip
  routes = ROUTES[:3] if arg == 'small' else ROUTES
  methods = explicit.methods('small')
  explicitly = {
    f'{name}/lr={base.optim.lr},batch={base.data.batch_size}': methods[name][-1]
    for name in routes
  }
  arms = [
    {
      'name': f'{name}/seed_{seed}',
      'base': base,
      'overrides': {**overrides, 'seed': seed},
    }
    for seed, (name, overrides) in itertools.product(
      size['seeds'], (plain | explicitly).items()
    )
  ]
  return ml_collections.ConfigDict({'arms': arms})
