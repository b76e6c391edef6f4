"""Rate × attention kernel × row sum: which attention maps gain, which cannot?

  python -m implicit_attr.main --mode sweep --lanes 8 \
    --config sweeps/transformers:small --workdir runs/transformers
  python -m implicit_attr.main --mode report --workdir runs/transformers

Softmax beside elu + 1 and relu² with and without the sum over a row, SGD over
rates, and AdamW as a control that has no such rate; the gradient map, raw
attention, rollout and Chefer's relevance. `small`: digits, two rates, softmax
and elu + 1 without row sums, seven seeds, each arm until the loss over training
examples is 0.1; `small,kernels`: all five, three seeds of relu². `gpu`:
CIFAR-10 (JPEG), all of them. `cooled`: the rate falls to 0 over the last tenth.

Seen: `:small`, 28 arms, `--lanes 8`, in 66 minutes and the other 26 arms of
`:small,kernels` in some 75, on two cores of an AMD EPYC beside up to three
other programs: C1, C4 and C5 undecided, raw maps and rollout of elu + 1 at two
to three times the radius of softmax's, half of that with row sums too. `:gpu`
was not run.
"""

import ml_collections

from implicit_attr.configs import cifar_vit, digits_vit

MAPS = ('gradient', 'raw', 'rollout', 'chefer')
KERNELS = ('softmax', 'elu1_none', 'elu1_sum', 'relu2_none', 'relu2_sum')


def get_config(arg=None):
  words = set(filter(None, (arg or '').split(',')))
  allowed = {'small', 'gpu', 'cooled', 'kernels'}
  if words - allowed or {'small', 'gpu'} <= words:
    raise ValueError(f'config argument {arg!r}; allowed: {sorted(allowed)}')
  small = 'small' in words
  two = small and 'kernels' not in words
  base = (digits_vit if small else cifar_vit).get_config()
  base.optim.update({'momentum': 0.0, 'warmup': 'never'})
  base.optim.schedule = 'cooldown' if 'cooled' in words else 'constant'
  base.train.duration = '80 epochs' if small else '40 epochs'
  base.train.milestones.update({'train_loss': 0.1, 'test_accuracy': 0.92})
  base.track.update({'every': '50%', 'whole': 512})
  base.evaluation.attributions = MAPS
  rates = (0.05, 0.2) if small else (0.01, 0.05, 0.25)
  if small:
    base.train.update({'stop_at': 'train_loss', 'eval_every': '6 steps'})
    base.evaluation.update({'examples': 32, 'steps': 10, 'restarts': 2})
    base.evaluation.checkpoints = ('last', 'train_loss')
  else:
    base.data.name = 'cifar10_jpeg'
    base.train.milestones.update({'train_loss': 1.0, 'test_accuracy': 0.6})
  optima = [('sgd', lr) for lr in rates]
  if not small:
    optima.append(('adamw', 0.001))
  return ml_collections.ConfigDict({
    'arms': [
      {
        'name': f'{kernel}/{optimizer}-lr={lr}/seed_{seed}',
        'base': base,
        'overrides': {
          'model.attention': kernel, 'optim.name': optimizer, 'optim.lr': lr,
          'seed': seed,
        },
      }
      for kernel in KERNELS[: 2 if two else None]
      for optimizer, lr in optima
      for seed in range(7 if small and 'relu2' not in kernel else 3)
    ]
  })  # fmt: skip
