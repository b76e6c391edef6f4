"""TensorFlow Datasets: a builder of planted sets, and a reader of any set.

The only file that imports it, and itself imported only where a set is not in
the cache yet: the import alone takes half a second. TensorFlow is not needed:
records are array_record files, images are given as tensors.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import sys
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from implicit_attr import errors
from implicit_attr.data import planted
from implicit_attr.data.source import Stored

_CHUNK = 500


@dataclasses.dataclass
class PlantedConfig(tfds.core.BuilderConfig):
  """A difficulty by name, and how many training images there are."""

  difficulty: str = 'medium'
  examples: int = 8000


class Planted(tfds.core.GeneratorBasedBuilder):
  """Images whose class is decided by one glyph; the mask says where it is."""

  VERSION = tfds.core.Version(planted.VERSION)
  RELEASE_NOTES: ClassVar = {planted.VERSION: 'Eight classes, 32x32x3.'}
  BUILDER_CONFIGS: ClassVar = [
    PlantedConfig(name=f'{level}-8000', difficulty=level)
    for level in planted.DIFFICULTIES
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    side = planted.SIDE
    square = {'dtype': np.uint8, 'encoding': 'bytes'}
    return tfds.core.DatasetInfo(
      builder=self,
      description='A glyph at a random place decides the class.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Tensor(shape=(side, side, 3), **square),
          'label': tfds.features.ClassLabel(num_classes=planted.CLASSES),
          'mask': tfds.features.Tensor(shape=(side, side), **square),
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,  # the examples are drawn at random already
    )

  def _split_generators(self, dl_manager):
    config: Any = self.builder_config
    counts = {'train': config.examples}
    counts['test'] = counts['train'] // 4
    return {k: self._generate_examples(k, n) for k, n in counts.items()}

  def _generate_examples(self, split, count):
    config: Any = self.builder_config
    level = planted.DIFFICULTIES[config.difficulty]
    key = 0
    for block in planted.blocks(level, split, count):
      for row in range(len(block['label'])):
        yield key, {name: values[row] for name, values in block.items()}
        key += 1


def prepare_planted(
  folder: pathlib.Path, name: str, difficulty: str, examples: int
) -> None:
  """Writes the records and the metadata of a planted set into `folder`."""
  config = Planted.builder_configs.get(name) or PlantedConfig(
    name=name, difficulty=difficulty, examples=examples
  )
  builder = Planted(
    data_dir=folder / 'build', config=config, file_format='array_record'
  )
  offline = tfds.download.DownloadConfig(try_download_gcs=False)
  with contextlib.redirect_stdout(sys.stderr):  # it prints what it does
    builder.download_and_prepare(download_config=offline)
  for path in pathlib.Path(builder.data_dir).iterdir():
    path.rename(folder / path.name)
  shutil.rmtree(folder / 'build')


def open_split(folder: pathlib.Path, split: str) -> Stored:
  """The prepared `split` in `folder`, decoded anew whenever it is fetched.

  Raises:
    InputError: it is not a set of fixed-size uint8 images with class labels.
  """
  builder: Any = tfds.builder_from_directory(folder)
  features = builder.info.features
  columns = {n: features[n] for n in features}
  image, label = columns.get('image'), columns.get('label')
  shape: Any = getattr(image, 'shape', ())
  fits = (
    isinstance(label, tfds.features.ClassLabel)
    and isinstance(image, tfds.features.Tensor | tfds.features.Image)
    and len(shape) == 3
    and None not in shape
    and image.np_dtype == np.uint8
  )
  errors.require(
    'data.name',
    builder.name,
    fits,
    "a set with an 'image' of one size, uint8, and a class 'label'",
  )
  source = builder.as_data_source(split)
  names = [n for n in ('image', 'label', 'mask') if n in features]

  def fetch(positions: np.ndarray) -> dict[str, np.ndarray]:
    rows = source.__getitems__([int(p) for p in positions])
    return {n: np.stack([row[n] for row in rows]) for n in names}

  return Stored(
    name=builder.name,
    num_classes=features['label'].num_classes,
    shape=shape,
    count=len(source),
    white=255,
    fetch=fetch,
  )


def decode(stored: Stored) -> dict[str, np.ndarray]:
  """All examples of a split that `open_split` opened, with a progress bar."""
  parts = []
  with tqdm_utils.tqdm(
    total=stored.count, desc=f'reading {stored.name}'
  ) as bar:
    for start in range(0, stored.count, _CHUNK):
      at = np.arange(start, min(start + _CHUNK, stored.count))
      parts.append(stored.fetch(at))
      bar.update(len(at))
  arrays = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
  arrays['classes'] = np.array(stored.num_classes)
  return arrays
