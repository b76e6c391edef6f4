"""Learning rates at the edge of stability, on natural images: are maps robust?

  TFDS_DATA_DIR=… python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/edge.py --lanes 15 --workdir runs/edge
  python -m implicit_attr.main --mode report --workdir runs/edge

The network of configs/cifar_edge.py: 2,000 images of CIFAR-10 (re-encoded as
JPEG), squared error, batches of 16, trained until batch sharpness is at 2/η
for the larger rates. Feeds docs/study_first.md.

Seen: 15 arms in 16 minutes on two cores of an AMD EPYC; η × batch sharpness
1.13, 1.82 and 2.04; C1 undecided, every mean below 0; no arm came to the
accuracy of the milestone.
"""

import itertools
import os

import ml_collections

from implicit_attr.configs import cifar_edge

RATES = (0.01, 0.02, 0.04)
SEEDS = (0, 1, 2, 3, 4)
MAPS = ('gradient', 'gradient_x_input', 'integrated_gradients', 'smoothgrad')


def get_config(arg=None):
  if arg is not None:
    raise ValueError(f'config argument {arg!r}; there is none')
  base = cifar_edge.get_config()
  base.data.name = 'cifar10_jpeg'
  base.data.data_dir = os.environ.get('TFDS_DATA_DIR')
  base.train.milestones.update({'train_loss': 0.2, 'test_accuracy': 0.35})
  base.track.update({'every': '12.5%', 'examples': 64, 'sharpness_batches': 32})
  base.evaluation.update({'attributions': MAPS, 'eps': 4 / 255})
  base.evaluation.checkpoints = ('last', 'train_loss', 'test_accuracy')
  base.evaluation.update({'examples': 128, 'steps': 20, 'restarts': 1})
  arms = [
    {
      'name': f'lr={lr}/seed_{seed}',
      'base': base,
      'overrides': {'optim.lr': lr, 'seed': seed},
    }
    for seed, lr in itertools.product(SEEDS, RATES)
  ]
  return ml_collections.ConfigDict({'arms': arms})
