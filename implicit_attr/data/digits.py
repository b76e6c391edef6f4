"""Digits of scikit-learn: real images that need no network.

1,797 handwritten digits of the UCI set "Optical Recognition of Handwritten
Digits" (Alpaydin, Kaynak 1998), 8x8 pixels with values 0 to 16, ten classes.
"""

from typing import Any

import numpy as np

from implicit_attr.data import cache
from implicit_attr.data.source import Stored, held_out

SPLITS = ('train', 'test')
_WHITE = 16


def digits(split: str) -> Stored:
  """The 'train' (1,437) or 'test' (360) images, [8, 8, 1].

  The division is fixed and does not depend on any seed a user sets: in a
  permutation that is sorted by class, every fifth image is a test image, so
  that each class gives a fifth of itself, give or take one. Writers are not
  kept apart, because the set does not name them.
  """
  folder = cache.root() / 'digits-v1'
  # Importing scikit-learn takes seconds; its copy is read in milliseconds.
  stored = cache.read(folder, ('image', 'label'))
  stored = stored or cache.write(folder, _from_sklearn())
  image, label = np.asarray(stored['image']), np.asarray(stored['label'])
  is_test = held_out(label, 'data/digits')
  keep = is_test if split == 'test' else ~is_test
  image, label = image[keep], label[keep]
  return Stored(
    name='digits',
    num_classes=10,
    shape=(8, 8, 1),
    count=len(label),
    white=_WHITE,
    fetch=lambda at: {'image': image[at], 'label': label[at]},
  )


def _from_sklearn() -> dict[str, np.ndarray]:
  from sklearn.datasets import load_digits

  raw: Any = load_digits()  # a Bunch, unless asked for a pair
  return {
    'image': raw.images.astype(np.uint8)[..., None],
    'label': raw.target.astype(np.uint8),
  }
