"""Which examples are in the batch of step t? A pure function of the seed.

Nothing is iterated: the order of an epoch is a Philox permutation of (seed,
epoch), so that any step is reached at once, a resumed run needs no state, and
the shards of several processes are slices of one global batch.
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from implicit_attr import errors
from implicit_attr.data import augment as augmentations

Fetch = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Positions [B] -> 'image' uint8 [B, H, W, C], 'label' [B], maybe 'mask'."""


@dataclasses.dataclass(frozen=True)
class Stored:
  """A split as it is stored: integer pixels, reached by position.

  `white` is the stored value that stands for 1.0.
  """

  name: str
  num_classes: int
  shape: tuple[int, int, int]
  count: int
  white: int
  fetch: Fetch


def generator(seed: int, name: str, step: int = 0) -> np.random.Generator:
  """The Philox generator of the stream `name` at `step`."""
  words = [seed, zlib.crc32(name.encode()), step]
  return np.random.Generator(np.random.Philox(words))


class Source:
  """A (sub)set of one split, with the order in which training sees it.

  Guarantees: `batch_at(step)` depends on (seed, step, shard) alone; every
  example is seen at most once an epoch, and the `len % batch_size` left over
  are others in every epoch; joining the shards' batches gives the unsharded
  batch; `examples(batch['index'])` gives the same examples again, unaugmented.

  Args:
    stored: the split.
    batch_size: examples in the global batch, over all shards.
    seed: decides order, subset, label noise and augmentation.
    label_noise: share of the labels that are wrong, exactly
      `round(label_noise * len)` of them, each drawn from the other classes.
    subset: keeps that many examples, the first of a seeded permutation, so
      that a smaller subset lies inside a larger one; None keeps all.
    augment: names out of `augment.AUGMENTATIONS`, applied in this order.
    shard: (i, n), the i-th of n equal slices of every global batch.

  Raises:
    InputError: an option is out of its range; names `data.<option>`.
  """

  def __init__(
    self,
    stored: Stored,
    *,
    batch_size: int,
    seed: int = 0,
    label_noise: float = 0.0,
    subset: int | None = None,
    augment: Sequence[str] = (),
    shard: tuple[int, int] = (0, 1),
  ):
    errors.number('data.seed', seed, 0, integer=True)
    errors.number('data.label_noise', label_noise, 0, 1)
    augment = (augment,) if isinstance(augment, str) else tuple(augment)
    for name in augment:
      errors.choose('data.augment', name, augmentations.AUGMENTATIONS)
    if subset is not None:
      errors.number('data.subset', subset, 1, stored.count, integer=True)
    count = stored.count if subset is None else subset
    errors.number('data.batch_size', batch_size, 1, integer=True)
    errors.require(
      'data.batch_size',
      batch_size,
      batch_size <= count,
      f'<= {count}, the number of examples of {stored.name!r} in use',
    )
    i, n = shard
    errors.require('data.shard', shard, 0 <= i < n, '(i, n) with 0 <= i < n')
    errors.require(
      'data.batch_size',
      batch_size,
      batch_size % n == 0,
      f'a multiple of the {n} processes that share a batch',
    )
    self.name = stored.name
    self.num_classes = stored.num_classes
    self.shape = stored.shape
    self.batch_size = batch_size
    self.steps_per_epoch = count // batch_size
    self._stored = stored
    self._seed = seed
    self._augment = augment
    self._rows = slice(i * batch_size // n, (i + 1) * batch_size // n)
    self._positions = np.arange(stored.count)
    if subset is not None:
      chosen = generator(seed, 'data/subset').permutation(stored.count)
      self._positions = chosen[:subset]
    self._shift = _label_shift(seed, label_noise, count, stored.num_classes)
    self._epoch, self._order = -1, np.empty(0, np.int64)

  def __len__(self) -> int:
    return len(self._positions)

  def batch_at(self, step: int) -> dict[str, np.ndarray]:
    """This shard's batch of `step` >= 0: see `examples`, then augmented.

    Costs O(batch), but for the first batch of an epoch: O(len).
    """
    epoch, turn = divmod(int(step), self.steps_per_epoch)
    if epoch != self._epoch:
      order = generator(self._seed, 'data/order', epoch).permutation(len(self))
      self._epoch, self._order = epoch, order
    start = turn * self.batch_size
    indices = self._order[start : start + self.batch_size][self._rows]
    batch = self.examples(indices)
    for name in self._augment:
      # Drawn for the global batch, so that shards agree with the whole.
      draws = generator(self._seed, f'data/{name}', int(step))
      fun = augmentations.AUGMENTATIONS[name]
      batch = fun(draws, batch, self.batch_size, self._rows)
    return batch

  def examples(self, indices: np.ndarray | Sequence[int]) -> dict:
    """The examples at `indices` [B] in 0 … len-1, unaugmented.

    Returns numpy arrays: 'image' float32 [B, H, W, C] in [0, 1], 'label' int32
    [B] (with its noise), 'index' int32 [B], and 'mask' bool [B, H, W] where
    the set knows the truth.
    """
    indices = np.asarray(indices, np.int64)
    raw = self._stored.fetch(self._positions[indices])
    label = raw['label'].astype(np.int32) + self._shift[indices]
    batch = {
      'image': raw['image'].astype(np.float32) / np.float32(self._stored.white),
      'label': label % np.int32(self.num_classes),
      'index': indices.astype(np.int32),
    }
    if 'mask' in raw:
      batch['mask'] = raw['mask'].astype(bool)
    return batch


def _label_shift(
  seed: int, share: float, count: int, classes: int
) -> np.ndarray:
  """What is added to each label, mod `classes`: 0 keeps it; int32 [count].

  A shift, not a table of labels: sets that are read lazily need no pass.
  """
  shift = np.zeros(count, np.int32)
  wrong = round(share * count)
  draws = generator(seed, 'data/label_noise')
  where = draws.permutation(count)[:wrong]
  shift[where] = draws.integers(1, classes, wrong)
  return shift
