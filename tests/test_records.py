"""Does the record of a run lose nothing, double nothing and mix nothing?"""

import json

import pytest

from implicit_attr import errors
from implicit_attr.runs import records


def test_continuing_drops_lines_from_that_step_on_and_a_cut_last_line(tmp_path):
  first = records.Metrics(tmp_path, 0)
  for step in (0, 5, 10, 15):
    first.write(step, {'x': step / 2})
  first.close()
  with (tmp_path / 'metrics.jsonl').open('a') as f:
    f.write('{"step": 20, "x"')  # killed in the middle of a line
  again = records.Metrics(tmp_path, 10)
  again.write(10, {'x': 5.0})
  again.close()
  lines = records.read_metrics(tmp_path)
  assert lines == [{'step': s, 'x': s / 2} for s in (0, 5, 10)]


def test_a_non_finite_number_is_null_so_that_every_line_is_json(tmp_path):
  metrics = records.Metrics(tmp_path, 0)
  metrics.write(1, {'x': float('nan')})
  metrics.close()
  assert json.loads((tmp_path / 'metrics.jsonl').read_text())['x'] is None


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
