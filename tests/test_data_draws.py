"""Is what the device makes of drawn numbers the batch of the host, in bits?"""

import hashlib

import jax
import numpy as np
import pytest

from implicit_attr import data
from implicit_attr.data import augment
from implicit_attr.data.source import Stored

COUNT, CLASSES = 50, 3
AUGMENT = [(), *[(name,) for name in augment.AUGMENTATIONS]]
AUGMENT += [tuple(augment.AUGMENTATIONS)]


def stored(mask=True, white=255, seen=None):
  """Random pixels, 16 high and 24 wide, and a mask of those bright in red.

  What is fetched is added to `seen`.
  """
  draws = np.random.default_rng(0)
  columns = {
    'image': draws.integers(0, white + 1, (COUNT, 16, 24, 3), np.uint8),
    'label': draws.integers(0, CLASSES, COUNT),
  }
  if mask:
    bright = columns['image'][..., 0] > white // 2
    columns['mask'] = bright.astype(np.uint8)

  def fetch(at):
    if seen is not None:
      seen.extend(at)
    return {name: values[at] for name, values in columns.items()}

  return Stored('random', CLASSES, (16, 24, 3), COUNT, white, fetch)


def source(augment=(), mask=True, white=255, seen=None, **options):
  options = {'batch_size': 8, 'seed': 5} | options
  return data.Source(stored(mask, white, seen), augment=augment, **options)


def at(draws, i):
  return {name: values[i] for name, values in draws.items()}


def same_bits(a, b):
  assert a.keys() == b.keys()
  for name in b:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(np.asarray(a[name]), b[name])


@pytest.mark.parametrize('augment', AUGMENT, ids='+'.join)
@pytest.mark.parametrize('pixels', [False, True], ids=['table', 'pixels'])
@pytest.mark.parametrize(
  'options',
  [
    {},
    {'mask': False, 'white': 16},
    {'shard': (1, 2), 'label_noise': 0.4, 'subset': 37},
  ],
  ids=['mask', 'white', 'shard'],
)
def test_an_assembled_batch_has_the_bits_of_batch_at(augment, pixels, options):
  made = source(augment, **options)
  table = {'levels': made.levels} if pixels else made.table()
  draws = made.draws(3, 3, pixels=pixels)
  assemble = jax.jit(data.assemble)
  for i in range(3):
    same_bits(assemble(table, at(draws, i)), made.batch_at(3 + i))
  whole = jax.jit(jax.vmap(data.assemble, (None, 0)))(table, draws)
  same_bits(at(whole, 1), made.batch_at(4))


@pytest.mark.parametrize('augment', AUGMENT, ids='+'.join)
def test_a_mask_moves_with_its_image(augment):
  batch = source(augment).batch_at(2)
  np.testing.assert_array_equal(batch['mask'], batch['image'][..., 0] > 0.5)


@pytest.mark.parametrize('white', [16, 255])
def test_pixels_are_float32_quotients(white):
  values = np.arange(white + 1)
  quotients = values.astype(np.float32) / np.float32(white)
  drawn = {'image': values.reshape(1, 1, -1, 1)}
  table = {'levels': source(white=white).levels}
  image = jax.jit(data.assemble)(table, drawn)['image']
  np.testing.assert_array_equal(np.asarray(image).ravel(), quotients)


@pytest.mark.parametrize('shard', [(0, 1), (1, 2)])
def test_a_span_over_an_epoch_border_is_its_steps_one_by_one(shard):
  made = source(tuple(augment.AUGMENTATIONS), shard=shard, label_noise=0.2)
  assert made.steps_per_epoch == 6
  span = made.draws(4, 9)  # epochs 0, 1 and 2
  for i in range(9):
    one = source(tuple(augment.AUGMENTATIONS), shard=shard, label_noise=0.2)
    same_bits(at(span, i), at(one.draws(4 + i, 1), 0))
  size = 8 // shard[1]
  shapes = {name: values.shape for name, values in span.items()}
  assert shapes == {
    'index': (9, size), 'label': (9, size), 'crop': (9, size, 2),
    'flip': (9, size),
  }  # fmt: skip
  types = {name: values.dtype for name, values in span.items()}
  assert types == {
    'index': np.int32, 'label': np.int32, 'crop': np.int32, 'flip': bool
  }  # fmt: skip


def test_draws_read_nothing_once_the_table_is_made():
  seen = []
  made = source(('crop',), seen=seen)
  made.table()
  assert len(seen) == COUNT
  made.draws(0, 20)
  assert len(seen) == COUNT


def test_draws_with_pixels_read_what_they_give_and_no_more():
  seen = []
  made = source(seen=seen)
  draws = made.draws(2, 3, pixels=True)
  np.testing.assert_array_equal(seen, draws['index'].ravel())


def test_table_bytes_is_what_the_pixels_of_the_table_take():
  made = source(subset=37)
  assert made.table_bytes == made.table()['image'].nbytes


def test_batches_are_those_of_the_first_version():
  """Numbers published with one version can be had with the next."""
  made = data.load(
    'digits', 'train', batch_size=64, seed=3, augment=('crop', 'flip'),
    label_noise=0.3, subset=200, shard=(1, 2),
  )  # fmt: skip
  digests = []
  for step in (0, 2, 3, 500):
    batch, digest = made.batch_at(step), hashlib.sha256()
    for name in sorted(batch):
      values = batch[name]
      digest.update(f'{name}{values.dtype}{values.shape}'.encode())
      digest.update(values.data)
    digests.append(digest.hexdigest()[:16])
  assert digests == [
    '9b394843133db8e4', '42d0e32a3cd2f7b5', 'a6747837ee59bbbc',
    'f298de61a2f1f515',
  ]  # fmt: skip
