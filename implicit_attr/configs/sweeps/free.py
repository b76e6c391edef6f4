"""What is free and makes maps robust, at the same test accuracy?

  python -m implicit_attr.main --mode sweep --lanes 3 \
    --config sweeps/free:small --workdir runs/free
  python -m implicit_attr.main --mode report --workdir runs/free

Each against the base, in three seeds: weight decay, label smoothing, softplus
of small β, twice the width, a quarter of the rate for four times as long; and
beside them the two cheapest explicit regularisers, a gradient penalty and SAM.
studies/free.py reads the gain in log2 ε50 at 'test_accuracy'. `small`: a
convolutional network on digits; `gpu`: ResNet-8 with batch norm, crops and
flips on CIFAR-10 (JPEG).

Seen: `:small`, 27 arms, in 9 minutes on two cores of an AMD EPYC, half of the
time beside other work. `:gpu` was not run.
"""

import ml_collections

from implicit_attr.configs import cifar_resnet8, digits_cnn

SEEDS = (0, 1, 2)


def routes(lr: float, width: int, epochs: int) -> dict[str, dict]:
  """What each changes of the base."""
  return {
    'base': {},
    'weight_decay': {'optim.weight_decay': 0.002},
    'label_smoothing': {'loss.label_smoothing': 0.1},
    'softplus': {'model.activation': 'softplus', 'model.beta': 2.0},
    'width': {'model.width': 2 * width},
    'slow': {'optim.lr': lr / 4, 'train.duration': f'{4 * epochs} epochs'},
    'softplus,weight_decay': {
      'model.activation': 'softplus', 'model.beta': 2.0,
      'optim.weight_decay': 0.002,
    },
    'gradient_penalty': {
      'objective.name': 'gradient_penalty', 'objective.weight': 0.1
    },
    'sam': {'objective.name': 'sam'},
  }  # fmt: skip


def get_config(arg=None):
  if arg not in ('small', 'gpu'):
    raise ValueError(f"config argument {arg!r}; allowed: 'small', 'gpu'")
  small = arg == 'small'
  base = (digits_cnn if small else cifar_resnet8).get_config()
  epochs = 40 if small else 14
  base.optim.update({'lr': 0.1, 'momentum': 0.0, 'warmup': 'never'})
  base.train.duration = f'{epochs} epochs'
  base.train.milestones.update({'test_accuracy': 0.95 if small else 0.8})
  base.track.every = '50%'
  base.evaluation.attributions = ('gradient',)
  if small:
    base.model.width = 8
    base.evaluation.examples = 64
  else:
    base.data.name = 'cifar10_jpeg'
    base.model.update({'norm': 'batch', 'width': 64})
  changes = routes(base.optim.lr, base.model.width, epochs)
  return ml_collections.ConfigDict({
    'arms': [
      {
        'name': f'{name}/seed_{seed}',
        'base': base,
        'overrides': {**overrides, 'seed': seed},
      }
      for name, overrides in changes.items()
      for seed in SEEDS
    ]
  })  # fmt: skip
