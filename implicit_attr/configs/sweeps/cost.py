"""What does a larger step or a smaller batch cost, beside explicit routes?

  python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/cost.py:small --workdir runs/cost
  python -m implicit_attr.main --mode report --workdir runs/cost

The table of costs, and the verdict on C3. Not with --lanes: arms that train
together have no speed of their own. The rates of a seed and batch follow each
other, so that a machine that gets slower slows both ends of a comparison. Plain
SGD over rates × batches; explicit routes at the middle rate, each in the larger
strength of configs/sweeps/explicit.py. `:small` has two rates and batches, and
three routes. Feeds docs/study_ablations.md.

Seen: 21 arms of `:small` (three seeds, with curvature tracked) in 7 minutes on
one busy core of an AMD EPYC, 4 of them of its own; C3 undecided. Not run whole.
"""

import itertools

import ml_collections

from implicit_attr.configs.sweeps import explicit

RATES = (0.05, 0.1, 0.3)
BATCHES = (16, 64, 256)
SEEDS = (0, 1, 2, 3, 4)
SMALL = {'rates': (0.05, 0.3), 'batches': (16, 64)}
ROUTES = ('gradient_penalty', 'hessian_penalty', 'pgd', 'cure', 'sam')
"""`:small` takes the first three."""


def get_config(arg=None):
  if arg not in (None, 'small'):
    raise ValueError(f"config argument {arg!r}; allowed: 'small'")
  size = SMALL if arg == 'small' else {'rates': RATES, 'batches': BATCHES}
  base = explicit.base('small')
  base.track.every = 'never'  # curvature is not what is asked here
  base.evaluation.attributions = ('gradient',)
  base.evaluation.checkpoints = ('last', 'train_loss', 'test_accuracy')
  # What every arm of :small reaches.
  base.train.milestones.update({'train_loss': 0.2, 'test_accuracy': 0.9})
  base.train.eval_every = '2%'  # how exactly 'reached' is known
  plain = {
    f'none/lr={lr},batch={batch}': {
      'optim.lr': lr, 'data.batch_size': batch
    }
    for batch, lr in itertools.product(size['batches'], size['rates'])
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
      SEEDS, (plain | explicitly).items()
    )
  ]
  return ml_collections.ConfigDict({'arms': arms})
