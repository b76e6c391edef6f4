"""Sets that TensorFlow Datasets has prepared here, found and decoded once.

A prepared set is a folder `name[/config]/version` with a dataset_info.json. It
is found without importing TensorFlow Datasets, decoded once and kept as arrays
in the user's cache folder; only sets too large for that are decoded as used.

A flipped bit is seen: arrays in the cache have sums of their own, and
array_record keeps a hash of every chunk and refuses one that has changed.
"""

import hashlib
import json
import math
import os
import pathlib
import re

from implicit_attr import errors
from implicit_attr.data import cache
from implicit_attr.data.planted import DIFFICULTIES, VERSION
from implicit_attr.data.source import Stored

_VERSION = re.compile(r'\d+\.\d+\.\d+')
MOST_BYTES = 2 << 30
"""Decoded splits beyond this are read lazily."""


def roots(data_dir: pathlib.Path | None) -> list[pathlib.Path]:
  """Folders that may hold prepared sets, in the order of search."""
  usual = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  given = [] if data_dir is None else [data_dir]
  return given + [pathlib.Path(usual).expanduser(), cache.root() / 'tfds']


def find(name: str, data_dir: pathlib.Path | None) -> pathlib.Path:
  """The folder of the newest version of `name`, or of `name:version`.

  Raises:
    InputError: no such set is prepared; names those that are.
  """
  searched = roots(data_dir)
  sets = _prepared(searched)
  base, _, version = name.partition(':')
  configs = [n for n in sets if n.startswith(f'{base}/')]
  if base not in sets and len(configs) == 1:
    base = configs[0]
  if base not in sets:
    try:
      errors.choose('data.name', name, {'digits', 'planted', *sets})
    except errors.InputError as error:
      raise errors.InputError(
        f'{error}; prepared sets were looked for in '
        f'{", ".join(map(str, searched))}; to prepare one that TensorFlow '
        f'Datasets knows: tfds build {base} --file_format=array_record'
      ) from None
  versions = sets[base]
  if version:
    errors.choose('data.name', name, {f'{base}:{v}' for v in versions})
    return versions[version]
  newest = max(versions, key=lambda v: [int(n) for n in v.split('.')])
  return versions[newest]


def _prepared(searched: list[pathlib.Path]) -> dict[str, dict]:
  """{name or name/config: {version: folder}}; earlier roots come first."""
  sets: dict[str, dict[str, pathlib.Path]] = {}
  for root in searched:
    for pattern in ('*/*/dataset_info.json', '*/*/*/dataset_info.json'):
      for info in sorted(root.glob(pattern)):
        folder = info.parent
        if _VERSION.fullmatch(folder.name):
          name = folder.parent.relative_to(root).as_posix()
          sets.setdefault(name, {}).setdefault(folder.name, folder)
  return sets


def planted(
  data_dir: pathlib.Path | None,
  *,
  difficulty: str = 'medium',
  examples: int = 8000,
) -> pathlib.Path:
  """The folder of the planted set, which is made if it is nowhere yet.

  It is put into `data_dir` if that may be written to, else into the cache.

  Args:
    data_dir: searched first.
    difficulty: one of `planted.DIFFICULTIES`.
    examples: how many training images there are, four times the test images.
  """
  errors.choose('data.difficulty', difficulty, DIFFICULTIES)
  errors.number('data.examples', examples, 4, integer=True)
  config = f'{difficulty}-{examples}'
  inside = pathlib.Path('planted', config, VERSION)
  for root in roots(data_dir):
    if (root / inside / 'dataset_info.json').is_file():
      return root / inside
  root = cache.root() / 'tfds'
  if data_dir is not None and cache.writable(data_dir):
    root = data_dir
  errors.require(
    'data.data_dir',
    None if data_dir is None else str(data_dir),
    cache.writable(root),
    f'a folder to put planted into: {root} may not be written to',
  )
  from implicit_attr.data import tfds_sets

  with cache.whole(root / inside) as part:
    tfds_sets.prepare_planted(part, config, difficulty, examples)
  return root / inside


def stored(folder: pathlib.Path, split: str) -> Stored:
  """The `split` of the set in `folder`: decoded once, then memory-mapped.

  Raises:
    InputError: no such split, another file format than array_record, damaged
      records, or not a set of labelled images of one size.
  """
  try:
    return _stored(folder, split)
  except errors.InputError:
    raise
  except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
    reason = str(error).partition('\n')[0]
    raise errors.InputError(
      f'data.name: the set prepared in {folder} cannot be read, remove it and '
      f'prepare it again ({reason})'
    ) from error


def _stored(folder: pathlib.Path, split: str) -> Stored:
  info = json.loads((folder / 'dataset_info.json').read_text())
  name, form = info['name'], info.get('fileFormat', 'tfrecord')
  errors.require(
    'data.name',
    name,
    form == 'array_record',
    f'stored as array_record to be read without TensorFlow, and {folder} is '
    f'{form}; see tfds convert_format --out_file_format=array_record',
  )
  splits = {s['name'] for s in info['splits']}
  if split == 'test' and 'test' not in splits and 'validation' in splits:
    split = 'validation'
  errors.choose('data.split', split, splits)
  kept = cache.root() / 'decoded' / f'{name}-{split}-{_fingerprint(folder)}'
  arrays = cache.read(kept, ('image', 'label', 'classes'))
  if arrays is None:
    from implicit_attr.data import tfds_sets

    lazy = tfds_sets.open_split(folder, split)
    if lazy.count * math.prod(lazy.shape) > MOST_BYTES:
      return lazy
    arrays = cache.write(kept, tfds_sets.decode(lazy))
  columns = {n: arrays[n] for n in ('image', 'label', 'mask') if n in arrays}
  return Stored(
    name=name,
    num_classes=int(arrays['classes']),
    shape=arrays['image'].shape[1:],
    count=len(arrays['label']),
    white=255,
    fetch=lambda at: {n: values[at] for n, values in columns.items()},
  )


def _fingerprint(folder: pathlib.Path) -> str:
  """Changes whenever the metadata or the record files of a set change."""
  digest = hashlib.sha256(str(folder.name).encode())
  for path in sorted(folder.iterdir()):
    facts = path.stat()
    digest.update(f'{path.name} {facts.st_size} {facts.st_mtime_ns}'.encode())
    if path.suffix == '.json':
      digest.update(path.read_bytes())
  return f'{folder.name}-{digest.hexdigest()[:16]}'
