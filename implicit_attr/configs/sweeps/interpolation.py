"""Rate and batch where every network interpolates: does the rate flatten maps?

  python -m implicit_attr.main --mode sweep --lanes 15 \
    --config sweeps/interpolation:small --workdir runs/interpolation
  python -m implicit_attr.main --mode report --workdir runs/interpolation

No augmentation; every arm trains until the loss over training examples is 0.01
(of `gpu` 0.005 under squared error), at most 200 epochs, and is evaluated
there: the regime in which theory speaks of the flatness that SGD selects.
Rates are a factor of four or five apart and end below the largest that does
not diverge, which `studies/largest_rate.py` finds: 0.86 and 0.43 for the
network of `small` in batches of 32 and 8, 0.30 under squared error, 1.7 with
relu and 2.0 with softplus in batches of 32, and 0.33 for `cifar`, of which a
half still diverges later in one of three.

The argument names sets and variants, joined by commas. `small`: digits, three
rates, two batches, ten seeds, 60 arms. `squared`: digits under squared error,
one batch, five seeds. `cifar` (re-encoded as JPEG) and `mnist10k`: 5,000
images, three rates, one batch, five seeds. `gpu`: ResNet-8 on 5,000 images of
CIFAR-10, and three rates for each other batch, loss, norm and activation, 63
arms; give it `--budget=480`. `cooled`: a quarter of the epochs at a constant
rate that falls to 0 over the last tenth, so that the end is not the noise of
the last step, and the last state counts. `momentum`: 0.9 of it, at the same
effective rate. `relu` and `softplus` (β = 2): in place of gelu. `maps`: six
maps beside each other, four of `mnist10k` and `cifar`, and guided backprop of
rectifiers, of the first batch alone.

Seen on two cores of an AMD EPYC, partly beside other work: `:small` in 10
minutes, C1 reversed for the rate and undecided for the batch; `:small,cooled`
and `:small,momentum` in 5 each, reversed for both; `:small,relu` in 10,
`:small,softplus` (batches of 32 alone) in 12 and `:squared` in 9, all reversed
for the rate; `:small,maps` in 22 and `:small,relu,maps` in 34, no map gains;
`:mnist10k` in 9, supported; `:mnist10k,maps` in 30, supported for no other map
and reversed for gradient × input; `:mnist10k,relu` in 13 and
`:mnist10k,softplus` in 18, undecided; `:cifar` in 64, reversed. `:gpu` was not
run.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections

from implicit_attr.configs import (
  cifar_cnn,
  cifar_resnet8,
  digits_cnn,
  mnist10k_cnn,
)

EPOCHS = 200
GOALS = {'cross_entropy': 0.01, 'squared_error': 0.005}
# 20 steps, where the default has 30 by now: as docs/study_numbers.md has them.
ONE_MAP = {'examples': 64, 'attributions': ('gradient',), 'steps': 20}
SMALL = {
  'model': {'width': 8, 'downsample': 'stride', 'activation': 'gelu'},
  'data': {'subset': 5000},
  'evaluation': ONE_MAP,
}
VARIANTS = ('cooled', 'momentum', 'relu', 'softplus', 'maps')
MAPS = (
  'gradient', 'gradient_x_input', 'grad_cam', 'lrp_zplus',
  'integrated_gradients', 'smoothgrad',
)  # fmt: skip


class Set(NamedTuple):
  """What is trained, and over what."""

  module: object
  changes: dict[str, dict]
  rates: tuple[float, ...]
  factors: dict[str, tuple]
  seeds: Sequence[int] = range(3)


SETS = {
  'small': Set(
    digits_cnn, {'evaluation': ONE_MAP},
    (0.02, 0.08, 0.32), {'data.batch_size': (32, 8)}, range(10),
  ),
  'squared': Set(
    digits_cnn, {'loss': {'name': 'squared_error'}, 'evaluation': ONE_MAP},
    (0.06, 0.12, 0.24), {'data.batch_size': (32,)}, range(5),
  ),
  'mnist10k': Set(
    mnist10k_cnn, SMALL,
    (0.02, 0.08, 0.32), {'data.batch_size': (32,)}, range(5),
  ),
  'cifar': Set(
    cifar_cnn, SMALL,
    (0.005, 0.02, 0.08), {'data.batch_size': (32,)}, range(5),
  ),
  'gpu': Set(
    cifar_resnet8, {'data': {'subset': 5000}, 'model': {'norm': 'batch'}},
    (0.02, 0.1, 0.5),
    {
      'data.batch_size': (128, 32, 512),
      'loss.name': ('cross_entropy', 'squared_error'),
      'model.norm': ('batch', 'none', 'group'),
      'model.activation': ('gelu', 'relu'),
    },
  ),
}  # fmt: skip


def cells(factors: dict[str, tuple]) -> list[dict]:
  """The first value of each factor, and every other value of one of them."""
  first = {name: values[0] for name, values in factors.items()}
  others = ((name, v) for name, values in factors.items() for v in values[1:])
  return [first, *({**first, name: value} for name, value in others)]


def get_config(arg=None):
  words = set(filter(None, (arg or '').split(',')))
  if words - {*SETS, *VARIANTS}:
    allowed = ', '.join([*SETS, *VARIANTS])
    raise ValueError(f'config argument {arg!r}; allowed: {allowed}')
  cooled, momentum = 'cooled' in words, 'momentum' in words
  arms = []
  for name in [name for name in SETS if name in words] or SETS:
    chosen = SETS[name]
    module: Any = chosen.module
    base = module.get_config()
    for section, values in chosen.changes.items():
      base[section].update(values)
    if name in ('cifar', 'gpu'):
      base.data.name = 'cifar10_jpeg'
    base.data.augment = ()
    if 'relu' in words:
      base.model.activation = 'relu'
    if 'softplus' in words:
      base.model.update({'activation': 'softplus', 'beta': 2.0})
    base.optim.update({'momentum': 0.9 if momentum else 0.0, 'warmup': 'never'})
    base.optim.schedule = 'cooldown' if cooled else 'constant'
    if 'maps' in words:
      # Guided backprop is of rectifiers, and gelu is none.
      guided = ('guided_backprop',) if words & {'relu', 'softplus'} else ()
      # The last two cost six to nine gradients each: too dear on larger images.
      some_maps = MAPS[:-2] if name in ('mnist10k', 'cifar') else MAPS
      base.evaluation.attributions = (*some_maps, *guided)
    base.train.duration = f'{EPOCHS // (4 if cooled else 1)} epochs'
    base.train.stop_at = 'never' if cooled else 'train_loss'
    # A large rate halves the loss within an epoch: looked at once in it, arms
    # would be compared at losses of 0.001 to 0.01.
    digits = base.data.name == 'digits'
    base.train.eval_every = '0.1 epochs' if digits else '0.25 epochs'
    base.track.update({'every': '50%', 'whole': 1000})  # and at milestones
    base.evaluation.checkpoints = ('last', 'train_loss')[: 2 - cooled]
    some = cells(chosen.factors)[: 1 if 'maps' in words else None]
    for lr, cell in itertools.product(chosen.rates, some):
      factors = {'optim.lr': lr, **cell}
      # Squared error on digits comes to 0.005 at the largest rate alone.
      loss = factors.get('loss.name', base.loss.name)
      goal = 0.01 if digits else GOALS[loss]
      label = ','.join(f'{k.split(".")[1]}={v}' for k, v in factors.items())
      if momentum:
        factors['optim.lr'] = round(factors['optim.lr'] / 10, 6)
      for seed in chosen.seeds[: 5 if words & {*VARIANTS} else None]:
        arms.append(
          {
            'name': f'{name}/{label}/seed_{seed}',
            'base': base,
            'overrides': {
              **factors, 'seed': seed, 'train.milestones.train_loss': goal,
            },
          }
        )  # fmt: skip
  return ml_collections.ConfigDict({'arms': arms})
