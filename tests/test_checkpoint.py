"""Does a checkpoint come back bit for bit, or not at all?"""

import jax
import numpy as np
import pytest

from implicit_attr import checkpoint, errors


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


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_used(saved):
  path = largest(saved.folder / '3')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(errors.InputError, match='damaged'):
    saved.restore(3, tree(0))
  step, state, _ = saved.newest(tree(0))
  assert step == 2
  np.testing.assert_array_equal(state['w'], tree(2)['w'])


def test_numbers_that_changed_in_storage_are_not_believed(saved, monkeypatch):
  # orbax restores flipped bits without a word; the fingerprint is ours.
  original = checkpoint.fingerprint(tree(3))
  other = tree(3)
  other['w'][0, 0] += 1e-6
  assert checkpoint.fingerprint(other) != original
  monkeypatch.setattr(checkpoint, 'fingerprint', lambda _: 'another')
  with pytest.raises(errors.InputError, match='not those'):
    saved.restore(3, tree(0))


def test_another_network_does_not_fit(saved):
  with pytest.raises(errors.InputError, match='does not fit'):
    saved.restore(3, {**tree(0), 'w': np.zeros((3, 3), np.float32)})


def test_no_good_checkpoint_at_all_is_an_error_not_a_fresh_start(saved):
  for step in (2, 3):
    path = largest(saved.folder / str(step))
    path.write_bytes(b'')
  with pytest.raises(errors.InputError, match='damaged'):
    saved.newest(tree(0))


def test_an_empty_folder_has_no_newest(tmp_path):
  kept = checkpoint.Checkpoints(tmp_path / 'new')
  assert kept.newest(tree(0)) is None
  kept.close()
