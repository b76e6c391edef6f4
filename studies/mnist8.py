"""What turns C1 round between digits and MNIST: size, number, or the images?

  python -m implicit_attr.main --mode sweep --lanes 15 \
    --config studies/mnist8.py:8 --workdir runs/mnist8
  python -m implicit_attr.main --mode sweep --config studies/mnist8.py:28 \
    --workdir runs/mnist28
  python studies/regimes.py runs/mnist8 runs/mnist28

MNIST made as the set of digits was: the mean of each 4 x 4 block of 32 x 32
pixels, 1,437 images to train on and 360 to test. `8`: in all else
sweeps/interpolation:small in batches of 32. `28`: as many images, in their own
size, and the network of sweeps/interpolation:mnist10k. Needs mnist10k.
"""

import numpy as np

from implicit_attr import data
from implicit_attr.configs.sweeps import interpolation

COUNTS = {'train': 1437, 'test': 360}


def load(size: int) -> dict[str, np.ndarray]:
  """MNIST in `size` x `size` pixels, as a set of one's own."""
  found = {}
  for split, count in COUNTS.items():
    source = data.load('mnist10k', split, batch_size=1, seed=0)
    order = np.random.default_rng(0).permutation(len(source))
    batch = source.examples(np.sort(order[:count]))
    image = np.asarray(batch['image'])
    if size == 8:
      image = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
      image = image.reshape(-1, 8, 4, 8, 4, 1).mean((2, 4))
    prefix = 'test_' if split == 'test' else ''
    found[f'{prefix}images'], found[f'{prefix}labels'] = image, batch['label']
  return found


def get_config(arg: str):
  config = interpolation.get_config('small' if arg == '8' else 'mnist10k')
  batch = 'data.batch_size'
  config.arms = [arm for arm in config.arms if arm['overrides'][batch] == 32]
  for arm in config.arms:
    arm['base'].data.subset = None
    arm['base'].data.update({'name': 'studies.mnist8:load', 'size': int(arg)})
  return config
