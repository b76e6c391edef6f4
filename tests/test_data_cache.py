"""Is a set whole, whoever else writes it and whenever a writer is killed?"""

import json
import os
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from implicit_attr.data import cache

CODE = (
  'from implicit_attr import data\n'
  "s = data.load('planted', 'train', batch_size=8, difficulty='easy', "
  'examples={examples})\n'
  "print(len(s), s.batch_at(0)['image'].sum())"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
  """An empty cache folder, for this process and those it starts."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  return tmp_path


def parts(home):
  return list(home.rglob('.part-*'))


def run(examples):
  return subprocess.Popen(
    [sys.executable, '-c', CODE.format(examples=examples)],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )


def test_two_processes_that_prepare_at_once_both_get_the_set(home):
  both = [run(400), run(400)]
  said = [process.communicate(timeout=120)[0] for process in both]
  assert [process.returncode for process in both] == [0, 0]
  assert said[0] == said[1] and said[0].startswith('400 ')
  assert not parts(home)


def test_killed_while_preparing_leaves_no_set_and_the_next_one_is_good(home):
  killed = run(1200)
  deadline = time.time() + 60
  while not parts(home) and time.time() < deadline:
    time.sleep(0.01)
  time.sleep(0.1)
  killed.send_signal(signal.SIGKILL)
  killed.communicate()
  assert killed.returncode == -signal.SIGKILL
  assert parts(home), 'it was not killed in the middle'
  assert not list(home.rglob('easy-1200/1.0.0'))
  survivor = run(1200)
  assert survivor.communicate(timeout=120)[0].startswith('1200 ')
  assert survivor.returncode == 0


def test_what_was_left_a_day_ago_is_removed(tmp_path):
  old, young = tmp_path / '.part-old', tmp_path / '.part-young'
  for path in (old, young):
    path.mkdir()
  os.utime(old, (time.time() - 90_000,) * 2)
  with cache.whole(tmp_path / 'set') as part:
    (part / 'file').write_text('x')
  assert not old.exists() and young.exists()
  assert (tmp_path / 'set/file').read_text() == 'x'


def test_failed_writer_leaves_nothing(tmp_path):
  with (
    pytest.raises(ZeroDivisionError),
    cache.whole(tmp_path / 'set') as part,
  ):
    (part / 'file').write_text('x')
    raise ZeroDivisionError
  assert list(tmp_path.iterdir()) == []


ARRAYS = {'image': np.arange(60, dtype=np.uint8), 'label': np.arange(3)}


@pytest.fixture
def kept(tmp_path):
  cache.write(tmp_path / 'set', ARRAYS)
  return tmp_path / 'set'


def test_arrays_come_back_as_they_were(kept):
  arrays = cache.read(kept, ARRAYS)
  assert arrays.keys() == ARRAYS.keys()
  for name, values in arrays.items():
    assert values.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(values, ARRAYS[name])


@pytest.mark.parametrize(
  'manifest',
  [
    '', 'null', '5', '[]', '{}', '"text"', '[' * 100_000, '{"image": null}',
    '{"image": 5, "label": 5}', '\0' * 40,
  ],
  ids=lambda text: text[:9],
)  # fmt: skip
def test_a_manifest_of_any_other_kind_is_no_cache(kept, manifest):
  (kept / 'manifest.json').write_text(manifest)
  assert cache.read(kept, ARRAYS) is None


@pytest.mark.parametrize('name', ARRAYS)
@pytest.mark.parametrize('file', [False, True])
def test_a_manifest_that_lacks_an_entry_is_no_cache(kept, name, file):
  manifest = kept / 'manifest.json'
  sums = json.loads(manifest.read_text())
  del sums[name]
  manifest.write_text(json.dumps(sums))
  if file:
    (kept / f'{name}.npy').unlink()
  assert cache.read(kept, ARRAYS) is None


def test_a_change_that_keeps_simple_sums_is_seen(kept):
  path = kept / 'image.npy'
  content = bytearray(path.read_bytes())
  before = zlib.adler32(content)
  for place, change in ((-9, 1), (-8, -2), (-7, 1)):
    content[place] += change
  assert zlib.adler32(content) == before
  path.write_bytes(content)
  assert cache.read(kept, ARRAYS) is None
