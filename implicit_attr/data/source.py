"""Sources of batches: which examples are in the batch of step t, by seed alone.

Nothing is iterated: the order of an epoch is a Philox permutation of (seed,
epoch), so that any step is reached at once, a resumed run needs no state, and
the shards of several processes are slices of one global batch.

Numbers are drawn here, on the host; `assemble` makes a batch of them and of
stored pixels wherever these are, so that a set which is resident on a device
never leaves it.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
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


def held_out(label: np.ndarray, name: str) -> np.ndarray:
  """Which examples are for testing, bool [N], where a set does not say.

  In a permutation that is sorted by class every fifth is, so that each class
  gives a fifth of itself, give or take one. The same whatever seed a user sets.
  """
  shuffled = generator(0, name).permutation(len(label))
  by_class = shuffled[np.argsort(label[shuffled], kind='stable')]
  is_test = np.zeros(len(label), bool)
  is_test[by_class[::5]] = True
  return is_test


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
    augment: names out of `augment.AUGMENTATIONS`.
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
    self._order = functools.lru_cache(2)(self._permutation)

  def __len__(self) -> int:
    return len(self._positions)

  @property
  def levels(self) -> np.ndarray:
    """The pixel value, 0 to 1, of each stored integer; float32.

    Looked up, since compilers divide by a number in ways of their own.
    """
    white = self._stored.white
    return np.arange(white + 1, dtype=np.float32) / np.float32(white)

  @property
  def image_bytes(self) -> int:
    """What the stored pixels of an image take."""
    return math.prod(self.shape) * (1 if self._stored.white < 256 else 2)

  @property
  def table_bytes(self) -> int:
    """What the pixels of `table` take."""
    return len(self) * self.image_bytes

  def table(self) -> dict[str, np.ndarray]:
    """What `assemble` needs beside draws: 'image', stored pixels [N, H, W, C]
    of all examples in the order of their indices, 'levels', and 'mask'
    [N, H, W] where the set knows the truth."""
    whole = self.stored(np.arange(len(self)))
    self._labels = whole.pop('label')  # `draws` needs them: one pass for both
    del whole['index']
    return whole | {'levels': self.levels}

  def draws(
    self, step: int, n: int, *, pixels: bool = False
  ) -> dict[str, np.ndarray]:
    """What is drawn for this shard's batches of `n` updates from `step` on.

    Returns 'index' and 'label' (with its noise), int32 [n, B], and the draws
    of each augmentation, [n, B, …]; with `pixels` also the stored 'image' (and
    'mask') of each batch, for who has no `table` at hand.
    """
    steps = range(int(step), int(step) + n)
    index = np.stack([self._indices(s) for s in steps])
    drawn = {'index': index.astype(np.int32)}
    for name in self._augment:
      # Drawn for the global batch, so that shards agree with the whole.
      draw = augmentations.AUGMENTATIONS[name].draw
      each = [
        draw(
          generator(self._seed, f'data/{name}', s), self.batch_size, self.shape
        )[self._rows]
        for s in steps
      ]
      drawn[name] = np.stack(each)
    if not pixels:
      return drawn | {'label': self._labels[index]}
    stored = self.stored(index.ravel())
    whole = lambda a: a.reshape(*index.shape, *a.shape[1:])
    return {name: whole(a) for name, a in stored.items()} | drawn

  def batch_at(self, step: int) -> dict[str, np.ndarray]:
    """This shard's batch of `step` >= 0 on the host: see `examples`, augmented.

    Costs O(batch), but for the first batch of an epoch: O(len).
    """
    drawn = self.draws(step, 1, pixels=True)
    draw = {name: values[0] for name, values in drawn.items()}
    return assemble({'levels': self.levels}, draw, xp=np)

  def stored(self, indices: np.ndarray | Sequence[int]) -> dict:
    """The examples at `indices` [B] in 0 … len-1 as they are stored: 'image'
    integers [B, H, W, C], 'label' and 'index' int32 [B], maybe 'mask'."""
    indices = np.asarray(indices, np.int64)
    raw = self._stored.fetch(self._positions[indices])
    label = raw['label'].astype(np.int32) + self._shift[indices]
    pixels = {name: raw[name] for name in ('image', 'mask') if name in raw}
    return pixels | {
      'label': label % np.int32(self.num_classes),
      'index': indices.astype(np.int32),
    }

  def examples(self, indices: np.ndarray | Sequence[int]) -> dict:
    """The examples at `indices` [B] in 0 … len-1, unaugmented.

    Returns numpy arrays: 'image' float32 [B, H, W, C] in [0, 1], 'label' int32
    [B] (with its noise), 'index' int32 [B], and 'mask' bool [B, H, W] where
    the set knows the truth.
    """
    return assemble({'levels': self.levels}, self.stored(indices), xp=np)

  @functools.cached_property
  def _labels(self) -> np.ndarray:
    """The label of every example, with its noise; int32 [N]."""
    return self.stored(np.arange(len(self)))['label']

  def _indices(self, step: int) -> np.ndarray:
    """This shard's examples of one step, [B]."""
    epoch, turn = divmod(step, self.steps_per_epoch)
    start = turn * self.batch_size
    return self._order(epoch)[start : start + self.batch_size][self._rows]

  def _permutation(self, epoch: int) -> np.ndarray:
    return generator(self._seed, 'data/order', epoch).permutation(len(self))


def assemble(
  table: Mapping[str, Any], draw: Mapping[str, Any], *, xp: Any = jnp
) -> dict[str, Any]:
  """The batch of one step of stored pixels and of what was drawn for it.

  Pure, to be jitted: draws are those of `Source.draws` without their first
  axis, and where they hold no 'image', the `table` does.

  Args:
    xp: jax.numpy or numpy, whose arrays these are.

  Guarantee: the bits of `Source.batch_at`, whichever of both it is.
  """
  batch = {name: draw[name] for name in ('label', 'index') if name in draw}
  for name in ('image', 'mask'):
    if name in draw:
      batch[name] = draw[name]
    elif name in table:
      batch[name] = table[name][draw['index']]
  for name, augmentation in augmentations.AUGMENTATIONS.items():
    if name in draw:
      for kind in {'image', 'mask'} & set(batch):
        batch[kind] = augmentation.apply(batch[kind], draw[name], xp)
  batch['image'] = xp.asarray(table['levels'])[batch['image']]
  if 'mask' in batch:
    batch['mask'] = batch['mask'].astype(bool)
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
