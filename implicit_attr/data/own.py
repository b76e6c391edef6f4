"""Sets of one's own: an .npz file, a folder of images, or a function by path.

  npz:mine.npz          arrays images [N, H, W, C] or [N, H, W] and labels [N],
                        masks [N, H, W] if the truth is known; test_images,
                        test_labels, test_masks if there is a test set
  folder:photos         images of one size, a folder a class; or the same twice,
                        below train/ and test/ (or val/)
  package.module:load   a function that returns a dict of such arrays

Images are uint8, or floats from 0 to 1. Floats that are all k / 255 in float32
are kept as k, others as the nearest k / 65535. Where no test set is given, a
fifth of every class is held out, the same fifth for every seed and on every
machine, so that runs are compared on the same images.
"""

import functools
import inspect
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from implicit_attr import by_path, errors
from implicit_attr.data.arrays import Columns, checked, require
from implicit_attr.data.image_folder import folder
from implicit_attr.data.source import Stored

SPLITS = ('train', 'test')


def is_own(name: str) -> bool:
  """Whether `name` has one of the three forms; 'name:1.0.0' has not."""
  return name.startswith(('npz:', 'folder:')) or by_path.is_path(name)


def stored(
  name: str,
  split: str,
  data_dir: pathlib.Path | None,
  options: Mapping[str, Any],
) -> Stored:
  """The 'train' or 'test' split of the set `name`.

  Args:
    data_dir: where a path that is not absolute begins; the current folder if
      None.
    options: keyword arguments of the function; a file or folder has none.

  Raises:
    InputError: nothing is there, it cannot be read, or it is no set of
      labelled images of one size; the line says what is wrong with it.
  """
  errors.choose('data.split', split, SPLITS)
  kind, _, rest = name.partition(':')
  if kind in ('npz', 'folder'):
    for option, value in options.items():
      errors.require(
        f'data.{option}', value, False,
        f'left out: {name!r} takes no options of its own',
      )  # fmt: skip
    root = data_dir or pathlib.Path()
    path = (root / pathlib.Path(rest).expanduser()).absolute()
    if kind == 'npz':
      require(
        name, path.is_file(), f'in a file that exists, and {path} is none'
      )
      facts = path.stat()
      splits, white = _of_file(name, path, facts.st_size, facts.st_mtime_ns)
    else:
      require(name, path.is_dir(), f'in a folder, and {path} is none')
      splits, white = folder(name, path), 255
  else:
    splits, white = _of_function(name, tuple(sorted(options.items())))
  train, test = splits
  columns = test if split == 'test' else train
  return Stored(
    name=name,
    num_classes=1 + int(max(train['label'].max(), test['label'].max())),
    shape=columns['image'].shape[1:],
    count=len(columns['label']),
    white=white,
    fetch=lambda at: {n: values[at] for n, values in columns.items()},
  )


@functools.lru_cache(2)  # both splits, and every lane, read it
def _of_file(
  name: str, path: pathlib.Path, size: int, changed: int
) -> tuple[tuple[Columns, Columns], int]:
  require(
    name, zipfile.is_zipfile(path), 'of named arrays, in a whole .npz file'
  )
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {key: file[key] for key in file.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
    raise errors.InputError(
      f'data.name={name!r}: {path} cannot be read ({errors.said(e)})'
    ) from e
  return checked(name, arrays)


@functools.lru_cache(4)  # called once: test images stay out of training
def _of_function(
  name: str, options: tuple[tuple[str, Any], ...]
) -> tuple[tuple[Columns, Columns], int]:
  load = by_path.find('data.name', name)
  require(name, callable(load), 'that a function makes')
  given = dict(options)
  try:
    inspect.signature(load).bind(**given)
  except TypeError as e:
    raise errors.InputError(
      f'data.name={name!r} is called with the options {errors.shown(given)} of '
      f'the section data ({e})'
    ) from e
  try:
    arrays = load(**given)
  except Exception as e:  # whatever a stranger's code does
    raise errors.InputError(
      f'data.name={name!r} failed ({errors.said(e)})'
    ) from e
  mapping = isinstance(arrays, Mapping)
  require(name, mapping, 'as a dict of arrays, images and labels')
  return checked(name, {k: np.asarray(v) for k, v in arrays.items()})
