"""Arrays of somebody's images and labels, checked and made into splits."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from implicit_attr import errors
from implicit_attr.data.source import held_out

NAMES = ('images', 'labels', 'masks')
MOST_CLASSES = 1 << 16

Columns = dict[str, np.ndarray]
"""'image' uint8 or uint16 [N, H, W, C], 'label' int32 [N], maybe 'mask' uint8
[N, H, W]."""


def checked(
  name: str, arrays: Mapping[str, np.ndarray]
) -> tuple[tuple[Columns, Columns], int]:
  """((train, test), white) of arrays with the names that `own` gives.

  Raises:
    InputError: one is missing, unknown, or not what it should be.
  """
  known = (*NAMES, *(f'test_{n}' for n in NAMES))
  for key in arrays:
    errors.choose(f'data.name={name!r}: array', key, known)
  train = {n: arrays[n] for n in NAMES if n in arrays}
  test = {n: arrays[f'test_{n}'] for n in NAMES if f'test_{n}' in arrays}
  parts = {'': train, 'test_': test} if test else {'': train}
  for prefix, part in parts.items():
    for key in ('images', 'labels'):
      require(name, key in part, f'with an array {prefix}{key}')
  columns, white = _pixels(name, parts)
  for prefix, part in parts.items():
    mine = columns[prefix]
    mine['label'] = _labels(name, prefix, part['labels'], len(mine['image']))
    if 'masks' in part:
      mine['mask'] = _masks(name, prefix, part['masks'], mine['image'].shape)
  shapes = {part['image'].shape[1:] for part in columns.values()}
  require(name, len(shapes) == 1, f'of images of one size, not {shapes}')
  train = columns['']
  splits = (train, columns['test_']) if test else divided(name, train)
  most = max(int(part['label'].max()) for part in splits)
  require(name, most > 0, 'of two classes or more: all labels are 0')
  return splits, white


def _pixels(
  name: str, parts: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, Columns], int]:
  """Integer pixels of each part, and the integer that stands for 1.0."""
  images = {prefix: part['images'] for prefix, part in parts.items()}
  for prefix, a in images.items():
    what = f'{prefix}images'
    require(name, a.ndim in (3, 4), f'of {what} [N, H, W, C], not {a.shape}')
    if a.ndim == 3:
      images[prefix] = a[..., None]
    else:
      require(
        name, not a.shape[1] <= 4 < a.shape[3],
        f'of {what} [N, H, W, C]: {a.shape} looks like [N, C, H, W]',
      )  # fmt: skip
    require(name, a.size > 0, f'of {what}: {a.shape} has none')
    number = np.issubdtype(a.dtype, np.floating)
    require(
      name, a.dtype == np.uint8 or number,
      f'of {what} of uint8, or of floats from 0 to 1, not of {a.dtype}',
    )  # fmt: skip
    low, high = (a.min(), a.max()) if number else (0, 1)
    require(
      name, bool(low >= 0 and high <= 1),
      f'of {what} from 0 to 1, where they are floats: these go from {low:g} to '
      f'{high:g}',
    )  # fmt: skip
  kinds = {a.dtype == np.uint8 for a in images.values()}
  require(name, len(kinds) == 1, 'of one type of pixel in both splits')
  if kinds == {True}:
    return {prefix: {'image': a} for prefix, a in images.items()}, 255
  eighth = {p: np.rint(a * 255).astype(np.uint8) for p, a in images.items()}
  exact = all(
    np.array_equal(
      eighth[p] / np.float32(255), a.astype(np.float32, copy=False)
    )
    for p, a in images.items()
  )
  if exact:
    return {prefix: {'image': a} for prefix, a in eighth.items()}, 255
  fine = lambda a: np.rint(a.astype(np.float64) * 65535).astype(np.uint16)
  return {prefix: {'image': fine(a)} for prefix, a in images.items()}, 65535


def _labels(
  name: str, prefix: str, labels: np.ndarray, count: int
) -> np.ndarray:
  what = f'{prefix}labels'
  require(
    name, labels.shape in ((count,), (count, 1)),
    f'of {what} [{count}], a class an image, not {labels.shape}',
  )  # fmt: skip
  labels = labels.reshape(-1)
  whole = np.issubdtype(labels.dtype, np.integer)
  require(name, whole, f'of {what} that are integers, not {labels.dtype}')
  low, high = int(labels.min()), int(labels.max())
  require(
    name, low >= 0 and high < MOST_CLASSES,
    f'of {what} from 0 to less than {MOST_CLASSES}, not {low} to {high}',
  )  # fmt: skip
  return labels.astype(np.int32)


def _masks(
  name: str, prefix: str, masks: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
  what = f'{prefix}masks'
  require(
    name, masks.shape in (shape[:3], (*shape[:3], 1)),
    f'of {what} {list(shape[:3])}, not {masks.shape}',
  )  # fmt: skip
  fits = any(np.isin(masks, (0, white)).all() for white in (1, 255))
  require(name, fits, f'of {what} that are 0 or 1, or 0 or 255')
  return (masks.reshape(shape[:3]) != 0).astype(np.uint8)


def divided(name: str, columns: Columns) -> tuple[Columns, Columns]:
  """(train, test): a fifth of every class is held out."""
  require(
    name, len(columns['label']) > 1, 'of two images or more, to hold one out'
  )
  test = held_out(columns['label'], 'data/own')
  pick = lambda where: {n: values[where] for n, values in columns.items()}
  return pick(~test), pick(test)


def require(name: str, ok: Any, allowed: str) -> None:
  """Raises InputError unless `ok`; `allowed` completes 'must be a set …'."""
  errors.require('data.name', name, bool(ok), f'a set {allowed}')
