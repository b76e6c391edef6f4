"""Does a run go on in its own folder alone, and is a damaged file named?"""

import errno
import fcntl

import pytest

from implicit_attr import errors
from implicit_attr.runs import lock, records


def test_a_folder_of_another_config_is_refused_with_what_differs(tmp_path):
  records.claim(tmp_path, {'optim': {'lr': 0.1}, 'seed': 0})
  records.claim(tmp_path, {'optim': {'lr': 0.1}, 'seed': 0})
  with pytest.raises(errors.InputError, match=r'optim\.lr: 0\.1 -> 0\.2'):
    records.claim(tmp_path, {'optim': {'lr': 0.2}, 'seed': 0})


def test_tuples_and_lists_are_the_same_config(tmp_path):
  records.claim(tmp_path, {'data': {'augment': ('crop',)}})
  records.claim(tmp_path, {'data': {'augment': ['crop']}})


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  blocked = tmp_path / 'file'
  blocked.write_text('not a folder')
  with pytest.raises(errors.InputError, match='--workdir'):
    records.claim(blocked / 'run', {})


def test_a_folder_without_a_config_is_not_a_run(tmp_path):
  with pytest.raises(errors.InputError, match=r'config\.json'):
    records.read_config(tmp_path)


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    (b'', 'line 1 column 1'),
    (b'[]', 'config'),
    (b'null', 'config'),
    (b'5', 'config'),
    (b'{}', 'config'),
    (b'{"config": 5}', 'config'),
    (b'{"config": []}', 'config'),
    (b'{\n "config": {\n "a": }}', 'line 3'),
    (b'{\n "config": {\n "\xff": 1}}', 'line 3 is not UTF-8'),
    (b'\xef\xbb\xbf{}', 'BOM'),
    (b'\0' * 20, 'line 1'),
    (b'{"config": ' + b'[' * 100_000, 'brackets'),
  ],
)
def test_a_config_that_is_none_is_named_in_one_line(tmp_path, content, said):
  (tmp_path / 'config.json').write_bytes(content)
  for use in (
    lambda: records.read_config(tmp_path),
    lambda: records.claim(tmp_path, {'seed': 0}),
    lambda: records.continued(tmp_path, {'seed': 0, 'evaluation': {}}),
  ):
    with pytest.raises(errors.InputError, match=r'config\.json') as e:
      use()
    assert said in str(e.value) and '\n' not in str(e.value)
  assert (tmp_path / 'config.json').read_bytes() == content


def test_a_config_without_evaluation_differs_from_one_with_it(tmp_path):
  records.claim(tmp_path, {'seed': 1})
  with pytest.raises(errors.InputError, match='seed: 1 -> 2'):
    records.continued(tmp_path, {'seed': 2, 'evaluation': {}})


@pytest.mark.parametrize(
  'content', [b'', b'[]', b'null', b'\xff', b'[' * 100_000]
)
def test_a_status_that_does_not_parse_is_none(tmp_path, content):
  (tmp_path / 'status.json').write_bytes(content)
  assert records.read_status(tmp_path) == {}


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
  def flock(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', flock)
  with (
    pytest.raises(errors.InputError, match=r'--workdir.*No locks available'),
    lock.lock(tmp_path),
  ):
    pass


def test_a_lock_is_held_where_the_disk_is_full(tmp_path, monkeypatch):
  full = tmp_path / '.lock'
  full.symlink_to('/dev/full')
  with lock.lock(tmp_path) as ours:
    assert ours
