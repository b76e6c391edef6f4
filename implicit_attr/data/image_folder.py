"""Images of one size in a folder a class, decoded once.

Classes are the folders by name, in the order of their names. What else lies in
a folder, and whatever begins with a dot, is left alone.
"""

import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np

from implicit_attr import errors
from implicit_attr.data import cache
from implicit_attr.data.arrays import Columns, divided, require

SUFFIXES = (
  '.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
  '.webp',
)  # fmt: skip
PLAIN = ('1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'CMYK', 'YCbCr')
"""Modes of Pillow with 8 bits a channel."""


def folder(name: str, path: pathlib.Path) -> tuple[Columns, Columns]:
  """(train, test) of `path`, decoded once and kept as arrays in the cache.

  Raises:
    InputError: fewer than two classes, a class without images in training or
      unknown to it, images of several sizes or of more than 8 bits.
  """
  train, test = path, None
  if (path / 'train').is_dir():
    train = path / 'train'
    below = (path / 'test', path / 'val')
    test = next((p for p in below if p.is_dir()), None)
  classes = sorted(p.name for p in train.iterdir() if _shown(p) and p.is_dir())
  require(
    name, len(classes) > 1,
    f'with a folder for each of two classes or more: {train} has {classes}',
  )  # fmt: skip
  parts = {'': _listed(train, classes)}
  if test is not None:
    for p in filter(_shown, test.iterdir()):
      known = not p.is_dir() or p.name in classes
      require(name, known, f'with {p.name!r} in {train}, as in {test}')
    parts['test_'] = _listed(test, classes)
  empty = set(range(len(classes))) - {label for _, label in parts['']}
  require(
    name, not empty,
    f'with images of every class: {[classes[i] for i in sorted(empty)]} of '
    f'{train} have none',
  )  # fmt: skip
  require(name, all(parts.values()), f'with images in {test}')
  digest = hashlib.sha256()
  for prefix, files in parts.items():
    for file, label in files:
      facts = file.stat()
      about = prefix, file.name, label, facts.st_size, facts.st_mtime_ns
      digest.update(repr(about).encode())
  kept = cache.root() / 'decoded' / f'folder-{digest.hexdigest()[:32]}'
  keys = [f'{prefix}{kind}' for prefix in parts for kind in ('image', 'label')]
  arrays = cache.read(kept, keys) or cache.write(kept, _decoded(name, parts))
  splits = [
    {kind: arrays[f'{prefix}{kind}'] for kind in ('image', 'label')}
    for prefix in parts
  ]
  if test is None:
    return divided(name, splits[0])
  return splits[0], splits[1]


def _shown(path: pathlib.Path) -> bool:
  return not path.name.startswith('.')


def _listed(
  folder: pathlib.Path, classes: list[str]
) -> list[tuple[pathlib.Path, int]]:
  return [
    (file, label)
    for label, name in enumerate(classes)
    if (folder / name).is_dir()
    for file in sorted(filter(_shown, (folder / name).iterdir()))
    if file.suffix.lower() in SUFFIXES
  ]


def _decoded(
  name: str, parts: Mapping[str, list[tuple[pathlib.Path, int]]]
) -> dict[str, np.ndarray]:
  """uint8 pixels: of one channel if all images are grey, else of three."""
  from PIL import Image

  images, arrays, first = {}, {}, None
  for prefix, files in parts.items():
    images[prefix] = []
    for file, _ in files:
      try:
        with Image.open(file) as image:
          require(
            name, image.mode in PLAIN,
            f'of images of 8 bits a channel: {file} is {image.mode}',
          )  # fmt: skip
          grey = image.mode in ('1', 'L')
          pixels = np.asarray(image.convert('L' if grey else 'RGB'))
      except (OSError, SyntaxError, ValueError) as e:
        if isinstance(e, errors.InputError):
          raise
        raise errors.InputError(
          f'data.name={name!r}: {file} cannot be read ({errors.said(e)})'
        ) from e
      first = first or (file, pixels.shape[:2])
      require(
        name, pixels.shape[:2] == first[1],
        f'of images of one size: {first[0]} is {first[1]}, {file} is '
        f'{pixels.shape[:2]}',
      )  # fmt: skip
      images[prefix].append(pixels if pixels.ndim == 3 else pixels[..., None])
  channels = max(a.shape[-1] for part in images.values() for a in part)
  for prefix, files in parts.items():
    wide = [np.repeat(a, channels // a.shape[-1], -1) for a in images[prefix]]
    arrays[f'{prefix}image'] = np.stack(wide)
    arrays[f'{prefix}label'] = np.array([n for _, n in files], np.int32)
  return arrays
