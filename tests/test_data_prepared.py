"""Are prepared sets found, read as they are, and refused when damaged?"""

import json
import os
import pathlib
import shutil
import sys
import time

import numpy as np
import pytest

from implicit_attr import data
from implicit_attr.data import cache, planted, prepared, tfds_sets
from implicit_attr.errors import InputError

SMALL = {'batch_size': 8, 'difficulty': 'easy', 'examples': 40}


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """A folder with the records of planted, made once and never changed."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('first')))
    yield prepared.planted(None, difficulty='easy', examples=40)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  """An empty cache folder, and no sets of the person who runs the tests."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  return tmp_path


@pytest.fixture
def place(records, home):
  """Puts the set under another name, as if TFDS had prepared it for a user."""

  def put(inside, rename=None, **facts):
    folder = home / 'sets' / inside
    shutil.copytree(records, folder)
    name = inside.split('/')[0]
    for path in folder.glob('planted-*'):
      path.rename(folder / path.name.replace('planted-', f'{name}-'))
    path = folder / 'dataset_info.json'
    info = json.loads(path.read_text()) | {'name': name} | facts
    for split in info['splits']:
      if rename and split['name'] in rename:
        new = rename[split['name']]
        (old,) = folder.glob(f'{name}-{split["name"]}.*')
        old.rename(str(old).replace(f'-{split["name"]}.', f'-{new}.'))
        split['name'] = new
    path.write_text(json.dumps(info))
    return folder

  return put


def load(home, name, split='train', **options):
  return data.load(
    name, split, **({'batch_size': 8, 'data_dir': home / 'sets'} | options)
  )


def equal(a, b):
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_planted_is_what_was_drawn():
  for split, count in (('train', 40), ('test', 10)):
    source = data.load('planted', split, **SMALL)
    assert (source.num_classes, source.shape) == (8, (32, 32, 3))
    drawn = next(planted.blocks(planted.DIFFICULTIES['easy'], split, count))
    batch = source.examples(range(count))
    assert np.array_equal(batch['image'], drawn['image'] / np.float32(255))
    assert np.array_equal(batch['label'], drawn['label'])
    assert np.array_equal(batch['mask'], drawn['mask'] == 1)
    assert batch['mask'].dtype == bool and len(source) == count


def test_planted_goes_to_data_dir_unless_that_is_read_only(home):
  open_dir, closed = home / 'open', home / 'closed'
  open_dir.mkdir()
  closed.mkdir(mode=0o555)
  data.load('planted', 'train', data_dir=closed, **SMALL)
  assert list(closed.iterdir()) == []
  assert (home / 'cache/implicit_attr/tfds/planted/easy-40').is_dir()
  other = SMALL | {'examples': 48}
  data.load('planted', 'train', data_dir=open_dir, **other)
  assert (open_dir / 'planted/easy-48/1.0.0/dataset_info.json').is_file()
  assert not list(home.rglob('.part-*'))


def damage(path, kind):
  if kind == 'truncated':
    os.truncate(path, path.stat().st_size // 2)
  elif kind == 'flipped':
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
  else:
    path.unlink()


@pytest.mark.parametrize('file', ['image.npy', 'manifest.json'])
@pytest.mark.parametrize('kind', ['truncated', 'flipped', 'gone'])
def test_damaged_cache_is_seen_and_made_again(home, place, file, kind):
  place('shapes/1.0.0')
  before = load(home, 'shapes').examples(range(40))
  (path,) = home.glob(f'cache/implicit_attr/decoded/shapes-train-*/{file}')
  good = path.read_bytes()
  damage(path, kind)
  assert equal(load(home, 'shapes').examples(range(40)), before)
  assert path.read_bytes() == good
  assert not list(home.rglob('.part-*'))


@pytest.mark.parametrize('text', ['null', '5', '{}', '{"label": "0"}'])
def test_a_cache_with_another_manifest_is_made_again(home, place, text):
  place('shapes/1.0.0')
  before = load(home, 'shapes').examples(range(40))
  pattern = 'cache/implicit_attr/decoded/shapes-train-*/manifest.json'
  (path,) = home.glob(pattern)
  good = path.read_bytes()
  path.write_text(text)
  assert equal(load(home, 'shapes').examples(range(40)), before)
  assert path.read_bytes() == good


def test_second_load_reads_the_cache_not_the_records(home, place, monkeypatch):
  place('shapes/1.0.0')
  before = load(home, 'shapes').batch_at(3)
  monkeypatch.setitem(sys.modules, 'implicit_attr.data.tfds_sets', None)
  monkeypatch.delattr(data, 'tfds_sets', raising=False)
  assert equal(load(home, 'shapes').batch_at(3), before)


def test_set_prepared_anew_is_not_answered_from_the_old_cache(home, place):
  folder = place('shapes/1.0.0')
  load(home, 'shapes')
  train = folder / 'shapes-train.array_record-00000-of-00001'
  good = train.read_bytes()
  damage(train, 'flipped')  # of the same size: only the time tells
  with pytest.raises(InputError, match='cannot be read'):
    load(home, 'shapes')
  train.write_bytes(good)
  assert len(load(home, 'shapes')) == 40
  info = folder / 'dataset_info.json'
  shutil.copy(str(train).replace('train', 'test'), train)
  info.write_text(info.read_text().replace('"40"', '"10"'))
  assert len(load(home, 'shapes')) == 10


def test_lazily_read_set_gives_the_same_batches(home, place, monkeypatch):
  place('shapes/1.0.0')
  options = {'augment': ('flip',), 'label_noise': 0.5, 'subset': 30}
  kept = load(home, 'shapes', **options)
  monkeypatch.setattr(prepared, 'MOST_BYTES', 1)
  shutil.rmtree(home / 'cache')
  lazy = load(home, 'shapes', **options)
  assert not (home / 'cache').exists()
  assert len(lazy) == 30 and lazy.shape == kept.shape
  assert equal(lazy.batch_at(11), kept.batch_at(11))


@pytest.mark.parametrize('name', ['digits', 'shapes'])
def test_cache_that_cannot_be_written_does_not_stop_a_run(
  home, place, monkeypatch, caplog, name
):
  place('shapes/1.0.0')
  expected = load(home, name).batch_at(0)
  (home / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(home / 'file'))
  assert equal(load(home, name).batch_at(0), expected)
  assert 'not cached' in caplog.text


def test_newest_version_is_taken_unless_one_is_named(home, place):
  for version in ('1.9.0', '1.10.0', '1.2.0'):
    place(f'shapes/{version}')
  roots = home / 'sets'
  assert prepared.find('shapes', roots).name == '1.10.0'
  assert prepared.find('shapes:1.2.0', roots).name == '1.2.0'
  with pytest.raises(InputError, match=r'shapes:1\.9\.0'):
    prepared.find('shapes:1.3.0', roots)


def test_config_is_found_by_name_and_alone_without(home, place):
  place('shapes/big/1.0.0')
  roots = home / 'sets'
  inside = prepared.find('shapes/big', roots)
  assert inside == prepared.find('shapes', roots)
  place('shapes/small/1.0.0')
  with pytest.raises(InputError, match='shapes/big'):
    prepared.find('shapes', roots)


def test_data_dir_comes_before_the_folder_of_tfds(home, place):
  first = place('shapes/1.0.0')
  shutil.copytree(home / 'sets', home / 'tfds')
  assert prepared.find('shapes', home / 'sets') == first
  assert prepared.find('shapes', None) == home / 'tfds/shapes/1.0.0'


def test_validation_stands_in_for_a_missing_test(home, place):
  place('shapes/1.0.0', rename={'test': 'validation'})
  assert len(load(home, 'shapes', 'test')) == 10
  assert len(load(home, 'shapes', 'validation')) == 10
  with pytest.raises(InputError, match=r"data.split='tset'.*validation"):
    load(home, 'shapes', 'tset')


def test_set_that_is_not_prepared_fails_at_once_and_says_how(home, place):
  place('shapes/1.0.0')
  start = time.time()
  with pytest.raises(InputError) as caught:
    load(home, 'fashion_mnist')
  assert time.time() - start < 2
  said = str(caught.value)
  assert '\n' not in said and "data.name='fashion_mnist'" in said
  for word in ('shapes', str(home / 'sets'), 'tfds build fashion_mnist'):
    assert word in said


def test_other_file_formats_are_refused(home, place):
  place('shapes/1.0.0', fileFormat='tfrecord')
  with pytest.raises(InputError, match=r'data.name.*array_record.*tfrecord'):
    load(home, 'shapes')


@pytest.mark.parametrize(
  ('file', 'kind'),
  [
    ('shapes-train.', 'truncated'),
    ('shapes-train.', 'flipped'),
    ('shapes-train.', 'gone'),
    ('features', 'truncated'),  # text: a flipped bit need not be an error
    ('features', 'gone'),
    ('dataset_info', 'truncated'),
    ('dataset_info', 'gone'),
  ],
)
def test_damaged_records_end_in_one_line(home, place, file, kind):
  (path,) = place('shapes/1.0.0').glob(f'{file}*')
  damage(path, kind)
  with pytest.raises(InputError, match=r'data\.name') as caught:
    load(home, 'shapes')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'text', ['null', '5', '[]', '{}', '{"name": "shapes", "splits": 5}']
)
def test_metadata_of_any_other_kind_ends_in_one_line(home, place, text):
  (place('shapes/1.0.0') / 'dataset_info.json').write_text(text)
  with pytest.raises(InputError, match=r'data\.name') as caught:
    load(home, 'shapes')
  assert '\n' not in str(caught.value)


def test_a_flipped_bit_of_a_record_is_never_another_picture(place):
  folder = place('shapes/1.0.0')
  (path,) = folder.glob('shapes-train.*')
  fetch = lambda: tfds_sets.open_split(folder, 'train').fetch(np.arange(40))
  good, before, refused = path.read_bytes(), fetch(), 0
  used = len(good.rstrip(b'\0'))
  draws = np.random.default_rng(0)
  for at in [*range(0, 64, 8), *draws.integers(0, used, 16)]:
    content = bytearray(good)
    content[at] ^= 1 << draws.integers(8)
    path.write_bytes(content)
    try:
      assert equal(fetch(), before)
    except (OSError, RuntimeError, ValueError):
      refused += 1
  assert refused > 12


@pytest.mark.parametrize(
  ('field', 'options'),
  [
    ('data.difficulty', {'difficulty': 'eazy'}),
    ('data.examples', {'examples': 3}),
    ('data.contrast', {'contrast': 0.1}),
  ],
)
def test_bad_option_of_planted_names_the_field(field, options):
  with pytest.raises(InputError, match=field):
    data.load('planted', 'train', batch_size=8, **options)
  assert not pathlib.Path(cache.root()).exists()


def test_nowhere_to_put_planted_is_one_line(home, monkeypatch):
  (home / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(home / 'file'))
  with pytest.raises(InputError, match=r'data\.data_dir'):
    data.load('planted', 'train', **SMALL)
