"""Are batches a pure function of (seed, step, shard), and options exact?"""

import subprocess
import sys

import numpy as np
import pytest

from implicit_attr import data
from implicit_attr.errors import InputError


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    yield


def load(split='train', **options):
  return data.load('digits', split, **({'batch_size': 64} | options))


def equal(a, b):
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_digits_are_those_of_scikit_learn_divided_once_and_evenly():
  from sklearn.datasets import load_digits

  raw = load_digits()
  whole = {
    (x.tobytes(), y) for x, y in zip(raw.images, raw.target, strict=True)
  }
  seen, counts = [], {}
  for split, count in (('train', 1437), ('test', 360)):
    source = load(split)
    assert len(source) == count
    assert (source.num_classes, source.shape) == (10, (8, 8, 1))
    batch = source.examples(range(count))
    images = (batch['image'][..., 0] * 16).astype(np.float64)
    seen += [
      (x.tobytes(), y) for x, y in zip(images, batch['label'], strict=True)
    ]
    counts[split] = np.bincount(batch['label'])
  assert len(seen) == len(whole) and set(seen) == whole
  fifth = np.bincount(raw.target) / 5
  assert (np.abs(counts['test'] - fifth) < 1).all()


def test_batch_has_the_agreed_types():
  batch = load().batch_at(0)
  assert batch['image'].dtype == np.float32
  assert batch['image'].shape == (64, 8, 8, 1)
  assert batch['image'].min() == 0 and batch['image'].max() == 1
  assert batch['label'].dtype == batch['index'].dtype == np.int32
  assert 'mask' not in batch
  assert all(type(v) is np.ndarray for v in batch.values())


def test_batch_depends_on_seed_and_step_alone():
  augment = ('crop', 'flip')
  one = load(seed=3, augment=augment)
  steps = [0, 1, 21, 22, 23, 500]
  first = [one.batch_at(s) for s in steps]
  other = load(seed=3, augment=augment)
  again = [other.batch_at(s) for s in reversed(steps)]
  again.reverse()
  assert all(equal(first[i], again[i]) for i in range(len(steps)))
  assert not equal(first[0], first[1])
  assert not equal(first[0], load(seed=4, augment=augment).batch_at(0))


def test_epoch_sees_every_example_at_most_once_and_drops_others_each_time():
  source = load(batch_size=100)
  assert source.steps_per_epoch == 14
  epochs = [
    np.concatenate([source.batch_at(14 * e + s)['index'] for s in range(14)])
    for e in range(2)
  ]
  assert all(len(set(e)) == 1400 for e in epochs)
  assert set(epochs[0]) != set(epochs[1])
  assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize('shards', [2, 4])
def test_joined_shards_are_the_global_batch(shards):
  options = {'augment': ('crop', 'flip'), 'label_noise': 0.3, 'subset': 200}
  whole = load(**options)
  parts = [load(shard=(i, shards), **options) for i in range(shards)]
  for step in (0, 7):
    batches = [part.batch_at(step) for part in parts]
    joined = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    assert equal(joined, whole.batch_at(step))


def test_examples_gives_a_batch_again_unaugmented():
  source = load(subset=300, label_noise=0.2)
  batch = source.batch_at(5)
  assert equal(batch, source.examples(batch['index']))
  augmented = load(subset=300, label_noise=0.2, augment=('crop',))
  moved = augmented.batch_at(5)
  assert not np.array_equal(moved['image'], batch['image'])
  assert equal(augmented.examples(moved['index']), batch)


@pytest.mark.parametrize('share', [0.0, 0.1, 0.333, 1.0])
def test_label_noise_is_exact_and_never_keeps_a_noisy_label(share):
  clean, noisy = load(), load(label_noise=share, seed=0)
  everything = range(len(clean))
  a = clean.examples(everything)
  b = noisy.examples(everything)
  assert np.array_equal(a['image'], b['image'])
  wrong = a['label'] != b['label']
  assert wrong.sum() == round(share * len(clean))
  assert set(b['label']) <= set(range(10))
  if share == 1.0:  # uniform over the nine others: 1437 draws, 160 +- 12 each
    steps = np.bincount((b['label'] - a['label']) % 10, minlength=10)
    assert steps[0] == 0 and (np.abs(steps[1:] - 1437 / 9) < 60).all()
  assert not share or not np.array_equal(
    b['label'], load(label_noise=share, seed=1).examples(everything)['label']
  )


def test_smaller_subset_lies_inside_a_larger_one():
  def pictures(**options):
    source = load(**options)
    rows = source.examples(range(len(source)))['image']
    return {x.tobytes() for x in rows}

  small, large = pictures(subset=100), pictures(subset=400)
  assert len(small) <= 100 and small < large
  assert pictures(subset=100, seed=1) != small


def test_flip_mirrors_about_half_and_nothing_else():
  plain, flipped = load(), load(augment='flip')
  mirrored = 0
  for step in range(10):
    a, b = plain.batch_at(step), flipped.batch_at(step)
    same = (a['image'] == b['image']).all(axis=(1, 2, 3))
    turned = (a['image'][:, :, ::-1] == b['image']).all(axis=(1, 2, 3))
    assert (same | turned).all()
    assert np.array_equal(a['label'], b['label'])
    mirrored += (turned & ~same).sum()
  assert 250 < mirrored < 390  # 640 draws


def test_crop_shifts_by_at_most_an_eighth_with_black_borders():
  plain, cropped = load(), load(augment='crop')
  a, b = plain.batch_at(0)['image'], cropped.batch_at(0)['image']
  shifts = set()
  for x, y in zip(a, b, strict=True):
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    fits = {
      (i, j)
      for i in range(3)
      for j in range(3)
      if np.array_equal(padded[i : i + 8, j : j + 8], y)
    }
    assert fits
    shifts |= fits
  assert len(shifts) == 9


@pytest.mark.parametrize(
  ('field', 'options'),
  [
    ('data.batch_size', {'batch_size': 1438}),
    ('data.batch_size', {'batch_size': 51, 'subset': 50}),
    ('data.batch_size', {'batch_size': 0}),
    ('data.batch_size', {'batch_size': 63, 'shard': (0, 2)}),
    ('data.subset', {'subset': 1438}),
    ('data.subset', {'subset': -1}),
    ('data.label_noise', {'label_noise': 1.1}),
    ('data.label_noise', {'label_noise': 'much'}),
    ('data.seed', {'seed': -1}),
    ('data.shard', {'shard': (2, 2)}),
    ('data.augment', {'augment': ('flop',)}),
    ('data.difficulty', {'difficulty': 'easy'}),
    ('data.split', {'split': 'validation'}),
    ('data.data_dir', {'data_dir': '/no/such/folder'}),
  ],
)
def test_bad_option_is_one_line_that_names_the_field(field, options):
  with pytest.raises(InputError, match=field) as caught:
    load(**options)
  assert '\n' not in str(caught.value)


def test_unknown_name_is_answered_with_the_nearest():
  with pytest.raises(
    InputError, match=r"data.name='digit'.*'digits'"
  ) as caught:
    data.load('digit', 'train', batch_size=8)
  assert 'tfds build' in str(caught.value)


def test_second_start_needs_neither_scikit_learn_nor_tfds():
  load()
  code = (
    'import sys; from implicit_attr import data\n'
    "data.load('digits', 'train', batch_size=8).batch_at(0)\n"
    "heavy = {'sklearn', 'tensorflow_datasets'} & set(sys.modules)\n"
    'assert not heavy, heavy'
  )
  subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
