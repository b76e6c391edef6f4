"""What is free and makes maps robust, at the same test accuracy?

  python -m implicit_attr.main --mode sweep --lanes 3 \
    --config sweeps/free:small --workdir runs/free
  python -m implicit_attr.main --mode report --workdir runs/free
  python studies/free.py runs/free

Each against the base, in three seeds: average weights, weight decay, label
smoothing, mixup, softplus of small β, stochastic depth, twice the width, a
quarter of the rate for four times as long, and pairs of the best; beside them
the two cheapest explicit regularisers, a gradient penalty and SAM.
studies/free.py reads the gain in log2 ε50 at 'test_accuracy', and what it
would bring to stop by input curvature. `small`: a convolutional network on
digits, and a ResNet-8 there (`residual`) for stochastic depth; `mnist10k`: the
best of these again, on 5,000 images; `gpu`: ResNet-8 with batch norm, crops and
flips on CIFAR-10 (JPEG).

Seen: `:small`, 48 arms, in 11 minutes on two cores of an AMD EPYC, partly
beside other work; softplus gains 0.40 in log2 ε50, with a quarter of the rate
0.85, averages, mixup and stochastic depth nothing. `:mnist10k`, 12 arms in 17
minutes beside another sweep: softplus 0.58 at the end, the smaller rate
nothing. `:gpu` was not run.
"""

import ml_collections

from implicit_attr.configs import cifar_resnet8, digits_cnn, mnist10k_cnn

SEEDS = (0, 1, 2)
BEST = ('base', 'softplus', 'slow', 'softplus,slow')


def routes(lr: float, width: int, epochs: int) -> dict[str, dict]:
  """What each changes of the base."""
  softplus = {'model.activation': 'softplus', 'model.beta': 2.0}
  decay = {'optim.weight_decay': 0.002}
  average = {'optim.average': 0.99}
  slow = {'optim.lr': lr / 4, 'train.duration': f'{4 * epochs} epochs'}
  return {
    'base': {},
    'average': average,
    'weight_decay': decay,
    'label_smoothing': {'loss.label_smoothing': 0.1},
    'mixup': {'objective.name': 'mixup'},
    'softplus': softplus,
    'width': {'model.width': 2 * width},
    'slow': slow,
    'softplus,weight_decay': softplus | decay,
    'softplus,average': softplus | average,
    'softplus,slow': softplus | slow,
    'average,slow': average | slow,
    'gradient_penalty': {
      'objective.name': 'gradient_penalty', 'objective.weight': 0.1
    },
    'sam': {'objective.name': 'sam'},
  }  # fmt: skip


def get_config(arg=None):
  modules = {
    'small': digits_cnn, 'mnist10k': mnist10k_cnn, 'gpu': cifar_resnet8
  }  # fmt: skip
  if arg not in modules:
    raise ValueError(f'config argument {arg!r}; allowed: {[*modules]}')
  base = modules[arg].get_config()
  epochs = {'small': 40, 'mnist10k': 10, 'gpu': 14}[arg]
  base.optim.update({'lr': 0.1, 'momentum': 0.0, 'warmup': 'never'})
  base.train.duration = f'{epochs} epochs'
  base.train.milestones.test_accuracy = 0.8 if arg == 'gpu' else 0.95
  base.track.every = '10%'
  base.evaluation.attributions = ('gradient',)
  blocks = {'norm': 'batch', 'stochastic_depth': 0.0}
  drop = {'model.stochastic_depth': 0.3}
  if arg == 'gpu':
    base.data.name = 'cifar10_jpeg'
    base.model.update({'width': 64, **blocks})
  else:
    base.model.width = 8
    # As docs/study_numbers.md has it; the default is 30 steps by now.
    base.evaluation.update({'examples': 64, 'steps': 20})
  overrides = routes(base.optim.lr, base.model.width, epochs)
  changes = {name: (base, route) for name, route in overrides.items()}
  if arg == 'mnist10k':
    base.data.subset = 5000
    changes = {name: changes[name] for name in BEST}
  elif arg == 'small':  # the base has no branches to leave out
    residual = base.copy_and_resolve_references()
    residual.model = cifar_resnet8.get_config().model
    residual.model.update({'width': 8, 'mean': 0.0, 'std': 1.0, **blocks})
    changes['residual'] = residual, {}
    changes['residual,stochastic_depth'] = residual, drop
  else:
    changes['stochastic_depth'] = base, drop
  return ml_collections.ConfigDict({
    'arms': [
      {
        'name': f'{name}/seed_{seed}',
        'base': start,
        'overrides': {**route, 'seed': seed},
      }
      for name, (start, route) in changes.items()
      for seed in SEEDS
    ]
  })  # fmt: skip
