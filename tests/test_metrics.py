"""Does the record of a run lose nothing and double nothing, however damaged?"""

import json
import logging

import pytest

from implicit_attr.errors import InputError
from implicit_attr.runs.metrics import Metrics, read_metrics

STEPS = (0, 5, 10, 15, 20, 25)
LINES = [json.dumps({'step': s, 'x': s / 2}).encode() for s in STEPS]
DAMAGES = {
  'half written': lambda line: line[:9],
  'blank': lambda line: b'',
  'spaces': lambda line: b'  ',
  'NUL': lambda line: bytes(len(line)),
  'flipped': lambda line: line.replace(b'{', b'z'),
  'not UTF-8': lambda line: line.replace(b'x', b'\xff'),
  'number': lambda line: b'5',
  'null': lambda line: b'null',
  'list': lambda line: b'[{"step": 10}]',
  'no step': lambda line: b'{"x": 5.0}',
  'text as step': lambda line: line.replace(b'10', b'"10"'),
  'null as step': lambda line: line.replace(b'10', b'null'),
  'flag as step': lambda line: line.replace(b'10', b'true'),
  'fraction as step': lambda line: line.replace(b'10', b'10.5'),
  'nested': lambda line: b'[' * 100_000,
}


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b''.join(line + b'\n' for line in LINES))
  return path


def go_on(file, step, **options):
  Metrics(file.parent, step, **options).close()
  return file.read_bytes().split(b'\n')[:-1]


def test_continuing_drops_lines_from_that_step_on_and_a_cut_last_line(
  tmp_path, caplog
):
  first = Metrics(tmp_path, 0)
  for step in (0, 5, 10, 15):
    first.write(step, {'x': step / 2})
  first.close()
  with (tmp_path / 'metrics.jsonl').open('a') as f:
    f.write('{"step": 20, "x"')  # killed in the middle of a line
  again = Metrics(tmp_path, 10, due=(0, 5, 10, 15))
  again.write(10, {'x': 5.0})
  again.close()
  assert read_metrics(tmp_path) == [{'step': s, 'x': s / 2} for s in (0, 5, 10)]
  assert [p.name for p in tmp_path.iterdir()] == ['metrics.jsonl']
  assert not caplog.records  # a kill is no damage


def test_a_non_finite_number_is_null_so_that_every_line_is_json(tmp_path):
  metrics = Metrics(tmp_path, 0)
  metrics.write(1, {'x': float('nan')})
  metrics.close()
  assert json.loads((tmp_path / 'metrics.jsonl').read_text())['x'] is None


@pytest.mark.parametrize('kind', DAMAGES)
def test_a_damaged_line_costs_itself_alone(file, caplog, kind):
  lines = [*LINES[:2], DAMAGES[kind](LINES[2]), *LINES[3:]]
  damaged = b''.join(line + b'\n' for line in lines)
  file.write_bytes(damaged)
  good = [s for s in STEPS if s != 10]
  assert [line['step'] for line in read_metrics(file.parent)] == good
  with caplog.at_level(logging.WARNING):
    kept = go_on(file, 25, due=STEPS)
  assert kept == [*LINES[:2], *LINES[3:5]]  # byte for byte
  aside = file.with_name('metrics.jsonl.damaged')
  assert aside.read_bytes() == damaged
  (said,) = [r.getMessage() for r in caplog.records]
  assert '\n' not in said and str(file) in said and 'line 3 cannot' in said
  assert 'metrics.jsonl.damaged' in said and said.endswith('step 10')


@pytest.mark.parametrize('kind', ['emptied', 'removed'])
def test_a_file_that_was_emptied_or_removed_is_remarked(file, caplog, kind):
  file.write_bytes(b'') if kind == 'emptied' else file.unlink()
  assert go_on(file, 15, due=STEPS) == []
  (said,) = [r.getMessage() for r in caplog.records]
  assert said.endswith('no line is there for step 0, 5, 10')
  assert not file.with_name('metrics.jsonl.damaged').exists()


def test_what_was_set_aside_before_is_left(file):
  for name in ('metrics.jsonl.damaged', 'metrics.jsonl.damaged1'):
    file.with_name(name).write_text(name)
  file.write_bytes(b'no JSON\n' + LINES[0] + b'\n')
  assert go_on(file, 5) == LINES[:1]
  text = lambda end: file.with_name(f'metrics.jsonl.damaged{end}').read_text()
  assert text('') == 'metrics.jsonl.damaged'
  assert text('1') == 'metrics.jsonl.damaged1'
  assert text('2').startswith('no JSON')


def test_a_step_that_stands_twice_is_dropped_once(file):
  file.write_bytes(file.read_bytes() + LINES[1] + b'\n' + LINES[3] + b'\n')
  assert go_on(file, 25) == LINES[:5]
  assert not file.with_name('metrics.jsonl.damaged').exists()


def test_an_event_beside_the_line_of_its_step_is_kept(file):
  event = b'{"step": 10, "event": "diverged"}'
  file.write_bytes(file.read_bytes() + event + b'\n')
  assert go_on(file, 15) == [*LINES[:3], event]


def test_a_whole_last_line_without_a_line_break_is_kept(file):
  file.write_bytes(file.read_bytes()[:-1])
  assert len(read_metrics(file.parent)) == len(STEPS)
  assert go_on(file, 30) == LINES


def test_a_record_that_cannot_be_read_at_all_is_one_line(tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  for use in (lambda: read_metrics(tmp_path), lambda: Metrics(tmp_path, 0)):
    with pytest.raises(InputError, match=r'metrics\.jsonl.*directory') as e:
      use()
    assert '\n' not in str(e.value)
