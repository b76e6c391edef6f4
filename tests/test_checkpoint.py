"""Does a checkpoint come back bit for bit, or not at all?"""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from implicit_attr import errors
from implicit_attr.runs import checkpoint


def tree(seed: int):
  draw = np.random.default_rng(seed)
  return {
    'w': draw.standard_normal((40, 30)).astype(np.float32),
    'step': np.int32(seed),
    'nothing': {},
  }


@pytest.fixture
def saved(tmp_path):
  kept = checkpoint.Checkpoints(tmp_path, keep=2)
  for step in (1, 2, 3):
    kept.save(step, tree(step), {'note': [step, 0.1]})
  yield kept
  kept.close()


def largest(folder):
  """The file of the checkpoint that holds its numbers."""
  files = [f for f in folder.rglob('*') if f.is_file()]
  return max(files, key=lambda f: f.stat().st_size)


def test_what_was_saved_comes_back_bit_for_bit(saved):
  state, meta = saved.restore(3, tree(0))
  jax.tree.map(np.testing.assert_array_equal, state, tree(3))
  assert meta == {'note': [3, 0.1]}


def test_only_the_newest_are_kept(saved):
  assert saved.steps() == [2, 3]


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_used(
  saved, caplog
):
  path = largest(saved.folder / '3')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(checkpoint.Damaged):
    saved.restore(3, tree(0))
  step, state, _ = saved.newest(tree(0))
  assert step == 2
  np.testing.assert_array_equal(state['w'], tree(2)['w'])
  (record,) = caplog.records
  said = record.getMessage()
  assert '/3' in said and 'going on from step 2' in said and '\n' not in said


def test_steps_after_a_damaged_checkpoint_are_written_again(saved):
  largest(saved.folder / '3').write_bytes(b'')
  assert saved.newest(tree(0))[0] == 2
  assert saved.steps() == [2]
  assert (saved.folder / '3.damaged').is_dir()  # put aside, not thrown away
  saved.save(3, tree(3), {})
  step, state, _ = saved.newest(tree(0))
  assert step == 3
  np.testing.assert_array_equal(state['w'], tree(3)['w'])


def flip(data: bytes) -> bytes:
  """One bit in the middle."""
  at = len(data) // 2
  return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


HARM = {
  'flipped': lambda path: path.write_bytes(flip(path.read_bytes())),
  'halved': lambda path: path.write_bytes(
    path.read_bytes()[: path.stat().st_size // 2]
  ),
  'emptied': lambda path: path.write_bytes(b''),
  'deleted': lambda path: path.unlink(),
}


@pytest.mark.parametrize('harm', HARM)
def test_whatever_is_harmed_nothing_wrong_is_ever_restored(saved, harm):
  folder = saved.folder / '3'
  files = sorted(p for p in folder.rglob('*') if p.is_file())
  noticed = []
  for path in files:
    before = path.read_bytes()
    HARM[harm](path)
    try:
      state, meta = saved.restore(3, tree(0))
    except checkpoint.Damaged as e:
      noticed.append(str(e))
    else:  # a file that is not needed
      jax.tree.map(np.testing.assert_array_equal, state, tree(3))
      assert meta == {'note': [3, 0.1]}
    path.write_bytes(before)
  assert len(noticed) >= 2 and not any('\n' in said for said in noticed)
  saved.restore(3, tree(0))


def test_numbers_that_changed_in_storage_are_not_believed(saved, monkeypatch):
  # What orbax would return after a bit flipped in an uncompressed leaf.
  other = tree(3)
  other['w'][0, 0] = np.nextafter(other['w'][0, 0], np.float32(9))
  read = saved._read
  monkeypatch.setattr(
    saved,
    '_read',
    lambda step, item, args: (
      other if item == 'state' else read(step, item, args)
    ),
  )
  with pytest.raises(checkpoint.Damaged, match='numbers are not those'):
    saved.restore(3, tree(0))


def test_another_precision_is_refused_not_cast(saved):
  like = {**tree(0), 'w': np.zeros((40, 30), np.float16)}
  with pytest.raises(errors.InputError, match=r'float32.*float16') as e:
    saved.newest(like)
  assert not isinstance(e.value, checkpoint.Damaged)
  assert saved.steps() == [2, 3]  # it was whole, and is left alone


def test_another_network_does_not_fit(saved):
  with pytest.raises(errors.InputError, match='does not fit'):
    saved.restore(3, {**tree(0), 'w': np.zeros((3, 3), np.float32)})


def test_no_good_checkpoint_at_all_is_an_error_not_a_fresh_start(saved):
  for step in (2, 3):
    path = largest(saved.folder / str(step))
    path.write_bytes(b'')
  with pytest.raises(checkpoint.Damaged, match='/3'):
    saved.newest(tree(0))
  assert saved.steps() == [2, 3]


def test_an_empty_folder_has_no_newest(tmp_path):
  kept = checkpoint.Checkpoints(tmp_path / 'new')
  assert kept.newest(tree(0)) is None
  kept.close()


FULL = """
import resource, sys
import numpy as np
from implicit_attr import errors
from implicit_attr.runs import checkpoint
kept = checkpoint.Checkpoints(sys.argv[1], keep=2)
tree = {'w': np.random.default_rng(0).random(100_000, np.float32)}
kept.save(1, tree, {})
# No file may grow over 50 kB from here on, as on a disk that is almost full.
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
  kept.save(2, tree, {})
except errors.InputError as e:
  print(e)
kept.close()
"""


def test_a_full_disk_is_one_line_and_harms_nothing(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', FULL, tmp_path], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  said = done.stdout.splitlines()
  assert len(said) == 1 and 'cannot be written' in said[0]
  assert 'Traceback' not in done.stderr
  assert [p.name for p in tmp_path.iterdir()] == ['1']
  like = {'w': np.zeros(100_000, np.float32)}
  kept = checkpoint.Checkpoints(tmp_path)
  _, state, _ = kept.newest(like)
  draw = np.random.default_rng(0).random(100_000, np.float32)
  np.testing.assert_array_equal(state['w'], draw)
  kept.close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='can be written'):
    checkpoint.Checkpoints(tmp_path / 'file' / 'checkpoints')


def test_nothing_in_the_package_reads_or_writes_pickles():
  package = pathlib.Path(checkpoint.__file__).parent
  for path in package.rglob('*.py'):
    text = path.read_text()
    assert 'import pickle' not in text and 'joblib' not in text, path
    assert 'allow_pickle=True' not in text, path
