"""Have sets of one's own the guarantees of ours, and are others refused?"""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from implicit_attr import data
from implicit_attr.configs import common
from implicit_attr.data import own
from implicit_attr.errors import InputError
from implicit_attr.train import experiment

N, CLASSES = 60, 4
DRAWS = np.random.default_rng(0)
IMAGES = DRAWS.integers(0, 256, (N, 8, 12, 3), np.uint8)
LABELS = np.arange(N) % CLASSES
MASKS = IMAGES[..., 0] > 127


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    yield


@pytest.fixture
def here(tmp_path, monkeypatch):
  """An empty current folder, from which modules are imported."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  return tmp_path


def npz(**arrays):
  """The name of the set that is these arrays, in the current folder."""
  np.savez('mine.npz', **({'images': IMAGES, 'labels': LABELS} | arrays))
  return 'npz:mine.npz'


def module(text, name):
  pathlib.Path(f'{name}.py').write_text(text)
  return name


def write_images(root, images, labels, names='abcd', mode=None, suffix='png'):
  for i, (image, label) in enumerate(zip(images, labels, strict=True)):
    folder = root / names[label]
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(
      folder / f'{i:03d}.{suffix}'
    )


def load(name, split='train', **options):
  return data.load(name, split, **({'batch_size': 8} | options))


def whole(source):
  return source.examples(range(len(source)))


def refused(name, *said, **options):
  with pytest.raises(InputError) as e:
    load(name, **options)
  text = str(e.value)
  assert '\n' not in text and len(text) < 500
  for part in ('data.', *said):
    assert part in text, text


def by_pixels(batch):
  return {
    (x.tobytes(), int(y))
    for x, y in zip(batch['image'], batch['label'], strict=True)
  }


def test_a_fifth_of_every_class_is_held_out_the_same_for_every_seed(here):
  name = npz()
  train, test = load(name, seed=1), load(name, 'test', seed=2)
  assert (len(train), len(test)) == (48, 12)
  assert (train.num_classes, train.shape) == (CLASSES, (8, 12, 3))
  assert set(np.bincount(whole(test)['label'])) == {3}
  parts = by_pixels(whole(train)), by_pixels(whole(test))
  assert not parts[0] & parts[1]
  images = IMAGES / np.float32(255)
  assert parts[0] | parts[1] == by_pixels({'image': images, 'label': LABELS})
  again = load(name, 'test', seed=7)
  np.testing.assert_array_equal(whole(again)['image'], whole(test)['image'])


def test_a_test_set_that_is_given_is_the_test_set(here):
  name = npz(test_images=IMAGES[:7], test_labels=LABELS[:7][:, None] + 1)
  train, test = load(name), load(name, 'test', batch_size=1)
  assert (len(train), len(test)) == (N, 7)
  np.testing.assert_array_equal(whole(test)['label'], LABELS[:7] + 1)
  assert train.num_classes == test.num_classes == CLASSES + 1


def test_masks_stay_with_their_images(here):
  for masks in (MASKS, MASKS[..., None].astype(np.float32), 255 * MASKS):
    for split in ('train', 'test'):
      batch = whole(load(npz(masks=masks), split))
      assert batch['mask'].dtype == bool
      np.testing.assert_array_equal(batch['mask'], batch['image'][..., 0] > 0.5)


@pytest.mark.parametrize('kind', ['uint8', 'float32', 'float64'])
def test_pixels_that_are_bytes_keep_their_bits_whatever_their_type(here, kind):
  images = IMAGES if kind == 'uint8' else IMAGES / np.dtype(kind).type(255)
  source = load(npz(images=images))
  wanted = load(npz())
  np.testing.assert_array_equal(whole(source)['image'], whole(wanted)['image'])
  assert source.table()['image'].dtype == np.uint8
  assert source.table_bytes == source.table()['image'].nbytes


def test_other_floats_are_kept_to_half_of_a_65535th(here):
  images = DRAWS.random((N, 5, 5)).astype(np.float32)
  name = npz(images=images, test_images=images, test_labels=LABELS)
  test = load(name, 'test')
  got = whole(test)['image'][..., 0]
  assert 0 < np.abs(got - images).max() <= 0.5 / 65535 + 1e-7
  assert test.shape == (5, 5, 1)
  assert test.table_bytes == test.table()['image'].nbytes


@pytest.mark.parametrize('kind', ['npz', 'npz float', 'folder', 'function'])
def test_every_kind_has_seeded_batches_shards_tables_and_draws(here, kind):
  if kind == 'folder':
    write_images(here / 'photos', IMAGES, LABELS)
    name = 'folder:photos'
  elif kind == 'function':
    np.savez('mine.npz', images=IMAGES, labels=LABELS)
    module('import numpy as np\ndef load(): return dict(np.load("mine.npz"))',
           'sets_of_mine')  # fmt: skip
    name = 'sets_of_mine:load'
  else:
    name = npz(images=IMAGES / (300 if 'float' in kind else 255))
  options = {
    'seed': 3, 'augment': ('crop', 'flip'), 'label_noise': 0.2, 'subset': 30,
  }  # fmt: skip
  one, other = load(name, **options), load(name, **options)
  shards = [load(name, shard=(i, 2), **options) for i in (0, 1)]
  table, draws = one.table(), one.draws(2, 3)
  assert table['image'].shape == (30, 8, 12, 3)
  for step in (4, 2, 3):  # in any order
    batch = other.batch_at(step)
    halves = [shard.batch_at(step) for shard in shards]
    draw = {name: values[step - 2] for name, values in draws.items()}
    made = jax.jit(data.assemble)(table, draw)
    for name in batch:
      joined = np.concatenate([half[name] for half in halves])
      np.testing.assert_array_equal(joined, batch[name])
      np.testing.assert_array_equal(made[name], batch[name])


def test_images_of_a_folder_are_those_of_the_arrays(here):
  write_images(here / 'photos', IMAGES, LABELS, names=('ox', 'ant', 'b', '.no'))
  # Classes are folders in the order of their names; '.no' is none.
  (here / 'photos' / 'ox' / 'notes.txt').write_text('no image')
  (here / 'photos' / 'ox' / '.hidden.png').write_text('no image')
  parts = [whole(load('folder:photos', split)) for split in ('train', 'test')]
  images = IMAGES / np.float32(255)
  label = np.array([2, 0, 1])
  kept = LABELS < 3
  wanted = {'image': images[kept], 'label': label[LABELS[kept]]}
  assert by_pixels(parts[0]) | by_pixels(parts[1]) == by_pixels(wanted)


def test_a_folder_may_have_both_splits_and_is_decoded_once(here, monkeypatch):
  write_images(here / 'photos' / 'train', IMAGES, LABELS)
  write_images(here / 'photos' / 'val', IMAGES[:3], LABELS[:3])
  before = whole(load('folder:photos', 'test', batch_size=1))
  np.testing.assert_array_equal(before['image'], IMAGES[:3] / np.float32(255))
  assert len(load('folder:photos')) == N
  monkeypatch.setattr(Image, 'open', None)
  again = whole(load('folder:photos', 'test', batch_size=1))
  np.testing.assert_array_equal(again['image'], before['image'])
  monkeypatch.undo()
  monkeypatch.chdir(here)
  write_images(here / 'photos' / 'val', 255 - IMAGES[:2], LABELS[:2])
  changed = whole(load('folder:photos', 'test', batch_size=1))
  assert not np.array_equal(changed['image'], before['image'])


def test_grey_images_have_one_channel_and_beside_colour_three(here):
  grey = IMAGES[..., 0]
  write_images(here / 'grey', grey, LABELS)
  assert load('folder:grey').shape == (8, 12, 1)
  write_images(here / 'both', grey[:20], LABELS[:20])
  write_images(here / 'both', IMAGES[20:], LABELS[20:])
  assert load('folder:both').shape == (8, 12, 3)


def test_a_file_that_changed_is_read_again(here):
  assert load(npz()).num_classes == CLASSES
  assert load(npz(labels=LABELS % 2)).num_classes == 2


def test_a_function_is_called_once_and_with_the_options_of_the_config(here):
  module('''
import numpy as np
calls = []
def load(side, classes=2):
  calls.append(side)
  draws = np.random.default_rng(len(calls))
  return {'images': draws.random((40, side, side, 1)),
          'labels': np.arange(40) % classes}
''', 'sets_with_options')  # fmt: skip
  name = 'sets_with_options:load'
  train, test = load(name, side=6), load(name, 'test', side=6)
  assert train.shape == (6, 6, 1) and len(train) == 32 and len(test) == 8
  assert not by_pixels(whole(train)) & by_pixels(whole(test))
  assert load(name, side=6, classes=3).num_classes == 3
  refused(name, 'side', 'missing a required')
  refused(name, 'sied', side=6, sied=3)


def test_a_path_begins_in_data_dir_if_that_is_given(here):
  npz()
  (here / 'below').mkdir()
  (here / 'mine.npz').rename(here / 'below' / 'mine.npz')
  assert len(load('npz:mine.npz', data_dir='below')) == 48
  assert len(load(f'npz:{here}/below/mine.npz', data_dir='below')) == 48
  refused('npz:mine.npz', 'a file that exists')


def test_a_smoke_run_keeps_a_set_of_ones_own(here):
  config = common.base()
  for name, kept in (
    ('npz:mine.npz', True), ('folder:photos', True), ('mine:load', True),
    ('cifar10', False), ('cifar10:1.0.0', False),
  ):  # fmt: skip
    config = common.base()
    config.data.name = name
    assert (common.smoke(config).data.name == name) == kept
    assert own.is_own(name) == kept
  config = common.base()
  config.data.name = npz(masks=MASKS)
  config.data.update({'augment': ('flip',)})
  built = experiment.build(common.smoke(config).to_dict())
  assert built.test_batch(3)['mask'].shape == (3, 8, 12)


FLOATS = IMAGES.astype(np.float32)


@pytest.mark.parametrize(
  'arrays, said',
  [
    ({'images': FLOATS}, ['from 0 to 1', '255']),
    ({'images': FLOATS / 255 - 0.1}, ['from 0 to 1', '-0.1']),
    ({'images': np.where(FLOATS > 9, np.nan, 0)}, ['from 0 to 1', 'nan']),
    ({'images': IMAGES.astype(np.int64)}, ['uint8', 'int64']),
    ({'images': MASKS[..., None]}, ['uint8', 'bool']),
    ({'images': IMAGES.transpose(0, 3, 1, 2)}, ['[N, C, H, W]']),
    ({'images': IMAGES[:, 0, 0]}, ['[N, H, W, C]']),
    ({'images': IMAGES[:0], 'labels': LABELS[:0]}, ['has none']),
    ({'images': IMAGES[:, :0]}, ['has none']),
    ({'labels': LABELS[:-1]}, ['labels [60]', '(59,)']),
    ({'labels': np.eye(CLASSES)[LABELS]}, ['labels [60]', '(60, 4)']),
    ({'labels': LABELS / 2}, ['integers', 'float64']),
    ({'labels': LABELS - 1}, ['from 0', '-1']),
    ({'labels': LABELS * 10**6}, ['65536']),
    ({'labels': 0 * LABELS}, ['two classes']),
    ({'labels': LABELS.astype(str)}, ['integers', '<U']),
    ({'labels': LABELS.astype(object)}, ['cannot be read', 'allow_pickle']),
    ({'test_images': IMAGES}, ['array test_labels']),
    ({'test_labels': LABELS}, ['array test_images']),
    ({'test_image': IMAGES}, ["did you mean 'test_images'"]),
    ({'test_images': IMAGES[:, :4], 'test_labels': LABELS}, ['one size']),
    ({'test_images': FLOATS / 255, 'test_labels': LABELS}, ['one type']),
    ({'masks': MASKS[:, 1:]}, ['masks', '(60, 7, 12)']),
    ({'masks': MASKS * 2}, ['0 or 1']),
    ({'masks': np.where(MASKS, 0.5, np.nan)}, ['0 or 1']),
  ],
  ids=lambda v: str(v)[:40].replace('\n', ' ') if isinstance(v, list) else '',
)  # fmt: skip
def test_arrays_that_are_no_set_are_one_line(here, arrays, said):
  refused(npz(**arrays), "data.name='npz:mine.npz'", *said)


def test_a_file_that_is_no_npz_is_one_line(here):
  refused('npz:mine.npz', 'a file that exists')
  np.save('mine.npy', IMAGES)
  refused('npz:mine.npy', 'named arrays')
  (here / 'text.npz').write_text('no arrays')
  refused('npz:text.npz', 'named arrays')
  npz()
  damaged = bytearray((here / 'mine.npz').read_bytes())
  damaged[2000:2400] = bytes(400)
  (here / 'damaged.npz').write_bytes(damaged)
  refused('npz:damaged.npz', 'cannot be read')
  np.savez('nothing.npz')
  refused('npz:nothing.npz', 'array images')
  refused(npz(), 'data.split', split='validation')
  refused(npz(), 'data.difficulty', 'left out', difficulty='easy')


def test_a_folder_that_is_no_set_is_one_line(here):
  refused('folder:photos', 'in a folder')
  (here / 'photos' / 'a').mkdir(parents=True)
  refused('folder:photos', 'two classes or more', "['a']")
  (here / 'photos' / 'b').mkdir()
  refused('folder:photos', "['a', 'b']", 'have none')
  write_images(here / 'photos', IMAGES, LABELS % 2)
  assert len(load('folder:photos')) == 48
  write_images(here / 'photos', IMAGES[:1, :4], LABELS[:1], suffix='bmp')
  refused('folder:photos', 'one size', '000.bmp', '(4, 12)')
  (here / 'photos' / 'a' / '000.bmp').write_text('no image')
  refused('folder:photos', 'cannot be read', '000.bmp')
  deep = Image.fromarray(np.zeros((8, 12), np.uint16))
  deep.save(here / 'photos' / 'a' / '000.png')
  (here / 'photos' / 'a' / '000.bmp').unlink()
  refused('folder:photos', '8 bits', '000.png')
  write_images(here / 'two' / 'train', IMAGES, LABELS)
  write_images(here / 'two' / 'test', IMAGES[:4], LABELS[:4], names='abcx')
  refused('folder:two', "'x'")


@pytest.mark.parametrize(
  'text, said',
  [
    ('', 'is not known'),
    ('load = 3', 'a function'),
    ('def load(): return 3', 'a dict'),
    ('def load(): return {"images": 3}', 'array labels'),
    ('def load(): return {"images": [3], "labels": [0]}', '[N, H, W, C]'),
    ('def load(): 1 / 0', 'ZeroDivisionError'),
    ('import nothing_like_it', 'nothing_like_it'),
  ],
)  # fmt: skip
def test_a_function_that_gives_no_set_is_one_line(here, request, text, said):
  name = f'no_set_{abs(hash(text))}'
  module(text, name)
  refused(f'{name}:load', said)
  refused('no_such_module:load', 'No module named')
