"""Loading of a set by name: `digits`, `planted`, one of TFDS, or one's own."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from implicit_attr import errors
from implicit_attr.data import own, prepared
from implicit_attr.data.digits import SPLITS, digits
from implicit_attr.data.source import Source, Stored

OPTIONS = {'digits': (), 'planted': ('difficulty', 'examples')}


def load(
  name: str,
  split: str,
  *,
  batch_size: int,
  seed: int = 0,
  data_dir: str | os.PathLike | None = None,
  label_noise: float = 0.0,
  subset: int | None = None,
  augment: Sequence[str] = (),
  shard: tuple[int, int] = (0, 1),
  **builder_options: Any,
) -> Source:
  """The `split` of the set `name`, as a `Source` of batches.

  Args:
    name: 'digits', 'planted', or a set that TensorFlow Datasets has prepared:
      'cifar10', 'name/config', 'name:1.0.0'; or one's own, 'npz:path',
      'folder:path' or 'package.module:function', see `own`.
    split: 'train', 'test' or another split of the set; where a set has no
      'test', its 'validation' is taken for it.
    batch_size: examples in the global batch.
    seed: decides order, subset, label noise and augmentation; see `Source`.
    data_dir: where prepared sets are looked for first, and where `planted` is
      put if the folder may be written to. The folder of TensorFlow Datasets
      and the user's cache folder are searched after it.
    label_noise: share of wrong labels; see `Source`.
    subset: how many examples to keep; None keeps all.
    augment: any of 'crop' and 'flip'.
    shard: (i, n), the i-th of n equal slices of every batch.
    **builder_options: of 'planted', `difficulty` ('easy', 'medium' or 'hard')
      and `examples`, how many training images to make; and those of a function
      of one's own.

  Raises:
    InputError: an unknown name, split or option, a set that is not prepared, a
      missing data_dir, a number out of range. The network is never asked: a
      set that is not here fails at once and the message says how to get it.
  """
  folder = pathlib.Path(data_dir).expanduser() if data_dir else None
  if folder is not None:
    errors.require(
      'data.data_dir', str(data_dir), folder.is_dir(), 'a folder that exists'
    )
  stored = _stored(str(name), split, folder, builder_options)
  return Source(
    stored,
    batch_size=batch_size,
    seed=seed,
    label_noise=label_noise,
    subset=subset,
    augment=augment,
    shard=shard,
  )


def _stored(
  name: str, split: str, data_dir: pathlib.Path | None, options: dict
) -> Stored:
  if own.is_own(name):
    return own.stored(name, split, data_dir, options)
  known = OPTIONS.get(name, ())
  for option, value in options.items():
    errors.require(
      f'data.{option}',
      value,
      option in known,
      f'left out: {name!r} takes {", ".join(known) or "no options of its own"}',
    )
  if name == 'digits':
    errors.choose('data.split', split, SPLITS)
    return digits(split)
  if name == 'planted':
    return prepared.stored(prepared.planted(data_dir, **options), split)
  return prepared.stored(prepared.find(name, data_dir), split)
