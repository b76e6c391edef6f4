"""Is a damaged run read as far as it goes, with what is wrong named?"""

import copy
import itertools
import json

import numpy as np
import pytest

from implicit_attr import claims, errors, report
from implicit_attr.report import canvas
from implicit_attr.runs import reading, records
from implicit_attr.sweeps import summary

ODD = (None, True, 5, -1, 10**400, 'x', '', [], [1], {}, {'a': 5},
       float('nan'), float('inf'))  # fmt: skip
"""Values of JSON that may stand where another one should."""

MEAN = {'mean': 0.5, 'low': 0.4, 'high': 0.6}
CONFIG = {
  'config': {
    'seed': 0, 'model': {'name': 'vit', 'attention': 'softmax'},
    'data': {'name': 'digits', 'batch_size': 16, 'label_noise': 0.1},
    'optim': {'name': 'sgd', 'lr': 0.1, 'momentum': 0.9},
    'loss': {'name': 'cross_entropy'}, 'train': {'duration': '4 epochs'},
    'objective': {'name': 'cure', 'weight': 0.1},
  },
  'argv': ['main.py'], 'versions': {'jax': '0.10.2'},
  'git': {'commit': 'abc', 'dirty': True}, 'device': {'kind': 'cpu'},
}  # fmt: skip
LINES = [
  {'step': step, 'param/lambda_max': 2.0 + step, 'time/steps_per_s': 5.0}
  for step in (0, 10, 20)
]
EVALUATION = {
  'checkpoint': 'last', 'step': 20, 'clean': {'accuracy': 0.9, 'n': 4},
  'settings': {'target': 'logit', 'eps': 0.03, 'k': 0.1, 'steps': 5},
  'rows': [
    {'attribution': 'gradient', 'attack': attack, 'eps': 0.03, 'n': 4,
     'n_kept': 4, 'n_stalled': 0, 'faithfulness': {'deletion_auc': MEAN},
     'metrics': {'topk': MEAN, 'log2_eps50': MEAN}, 'area': MEAN,
     'censored': {'below': 0.1, 'above': 0.2},
     'curve': {'eps': [0.1, 0.2], 'topk': {end: [0.9, 0.5] for end in MEAN}}}
    for attack in ('topk', 'random_sign')
  ],
}  # fmt: skip
SPECTRUM = {'top': [2.0], 'bottom': [-1.0], 'trace': 3.0, 'trace_se': 0.1}
STATUS = {'status': 'finished', 'step': 20, 'message': ''}
OBJECTS = {
  'config.json': CONFIG, 'evaluation/last.json': EVALUATION,
  'spectrum/last.json': SPECTRUM, 'status.json': STATUS,
}  # fmt: skip


def as_lines(lines):
  return ''.join(json.dumps(line) + '\n' for line in lines)


@pytest.fixture
def run(tmp_path):
  """A whole run, small."""
  folder = tmp_path / 'sweep' / 'run'
  for name, value in OBJECTS.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value))
  (folder / 'metrics.jsonl').write_text(as_lines(LINES))
  np.savez(
    folder / 'evaluation' / 'last.npz',
    **{'correct/gradient': np.ones(4, bool),
       'score/gradient/topk/topk': np.arange(4.0)},
  )  # fmt: skip
  grid = np.linspace(-1, 2, 20)
  np.savez(
    folder / 'spectrum' / 'last.npz', grid=grid, density=grid**2,
    density_se=0 * grid,
  )  # fmt: skip
  (folder / 'probes').mkdir()
  for step in (0, 20):
    path = folder / 'probes' / f'{step:08d}.npz'
    np.savez(path, index=np.arange(3), mine=np.full(3, step))
  return folder


@pytest.fixture
def undrawn(monkeypatch):
  """No figure is rendered, no interval is a good one."""

  def save(target, folder, name, alt):
    path = folder / f'{name}.png'
    records.write_file(path, lambda file: file.write(b'not drawn'))
    return canvas.Image(path, alt, 3.5)

  monkeypatch.setattr(canvas, 'save', save)


def damages(run):
  return reading.load(run).damages


def test_a_whole_run_has_no_damages_and_its_values(run):
  found = reading.load(run)
  assert found.damages == {}
  assert set(found.problems.values()) == {reading.MISSING}
  assert found.config == CONFIG['config'] and found.lines == LINES
  assert found.setting('optim.lr') == 0.1 and found.setting('optim.b', 7) == 7
  assert found.ends == {'param/lambda_max': 22.0, 'time/steps_per_s': 5.0}
  assert found.evaluations['last'].rows == EVALUATION['rows']
  assert found.spectra['last'].numbers == SPECTRUM
  measured, problems = reading.probes(run)
  assert measured[20]['mine'].tolist() == [20, 20, 20] and not problems


@pytest.mark.parametrize('name', OBJECTS)
@pytest.mark.parametrize(
  ('data', 'why'),
  [
    (b'[]', 'does not hold a JSON object'),
    (b'5', 'does not hold a JSON object'),
    (b'null', 'does not hold a JSON object'),
    (b'', 'is there, but cannot be read'),
    (b'{"config": {', 'is there, but cannot be read'),
    (b'{"\xff": 5}', 'is there, but cannot be read'),
    (b'\0' * 100, 'is there, but cannot be read'),
    (b'[' * 100_000, 'is there, but cannot be read'),
  ],
)
def test_a_file_that_is_no_object_is_named_with_the_reason(
  run, name, data, why
):
  (run / name).write_bytes(data)
  assert damages(run) == {name: why}
  assert (run / name).read_bytes() == data


@pytest.mark.parametrize('value', [{}, {'config': 5}, {'config': None}])
def test_a_config_file_without_a_config_is_named(run, value):
  (run / 'config.json').write_text(json.dumps(value))
  assert damages(run) == {'config.json': 'holds no config'}
  records, problems = claims.read(run)
  assert records == []
  why = 'is left out: config.json holds no config'
  assert problems == {str(run): why}


@pytest.mark.parametrize(
  'line',
  [b'', b'5', b'null', b'[]', b'{"a": 1}', b'{"step": "10"}', b'{"step": nul',
   b'{"step": null}', b'{"step": true}', b'{"step": NaN}', b'\0\0\0',
   b'{"step": 1' + b'0' * 400 + b'}', b'\xff\xfe{"step": 1}'],
)  # fmt: skip
def test_a_bad_line_is_left_out_and_named_and_the_others_are_read(run, line):
  first, *rest = as_lines(LINES).encode().splitlines()
  (run / 'metrics.jsonl').write_bytes(b'\n'.join([first, line, *rest, b'']))
  assert reading.load(run).lines == LINES
  assert damages(run) == {'metrics.jsonl': 'cannot be read in line 2'}


def test_many_bad_lines_are_counted(run):
  (run / 'metrics.jsonl').write_text('x\n' * 15 + as_lines(LINES))
  said = 'cannot be read in lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 5 more'
  assert damages(run) == {'metrics.jsonl': said}


def test_a_last_line_that_a_kill_cut_is_no_damage(run):
  with (run / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 30, "par')
  assert reading.load(run).lines == LINES and damages(run) == {}


def test_bad_rows_are_left_out_and_named(run):
  good = EVALUATION['rows'][0]
  rows = [5, good, {}, {**good, 'metrics': 3}, {**good, 'attack': None}]
  (run / 'evaluation/last.json').write_text(json.dumps({'rows': rows}))
  assert reading.load(run).evaluations['last'].rows == [good]
  said = 'cannot be read in rows 1, 3, 4, 5'
  assert damages(run) == {'evaluation/last.json': said}
  (run / 'evaluation/last.json').write_text('{"rows": 5}')
  assert damages(run) == {'evaluation/last.json': 'holds no list of rows'}


def test_what_is_left_of_an_archive_is_read(run):
  path = run / 'evaluation/last.npz'
  data = bytearray(path.read_bytes())
  at = data.index(np.arange(4.0).tobytes())
  data[at] ^= 1
  path.write_bytes(data)
  arrays = reading.load(run).evaluations['last'].examples
  assert list(arrays) == ['correct/gradient']
  said = 'cannot be read in score/gradient/topk/topk'
  assert damages(run) == {'evaluation/last.npz': said}


@pytest.mark.parametrize('keep', [0, 10, 200, -10])
@pytest.mark.parametrize(
  'name', ['evaluation/last.npz', 'spectrum/last.npz', 'probes/00000020.npz']
)
def test_an_archive_cut_short_is_named(run, name, keep):
  (run / name).write_bytes((run / name).read_bytes()[:keep])
  found = damages(run) if 'probes' not in name else reading.probes(run)[1]
  assert found == {name: 'is there, but cannot be read'}


def test_arrays_are_read_as_asked_for(run):
  found = reading.load(run, arrays=lambda name: name == 'grid')
  assert list(found.spectra['last'].arrays) == ['grid']
  assert found.evaluations['last'].examples == {}


def test_folders_are_runs_and_not_what_is_inside_of_them(run, tmp_path):
  nested = run / 'checkpoints' / 'copy'
  nested.mkdir(parents=True)
  (nested / 'config.json').write_text('{}')
  failed = tmp_path / 'sweep' / 'failed'
  failed.mkdir()
  (failed / 'status.json').write_text('{}')
  (tmp_path / 'sweep' / 'empty').mkdir()
  assert list(reading.folders(tmp_path)) == [failed, run]
  assert list(reading.folders(run)) == [run]


def test_a_folder_that_is_none_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match='the folder of a run'):
    reading.load(tmp_path / 'nowhere')


def nodes(value, path=()):
  """The place of every value inside of one."""
  inner = value.items() if isinstance(value, dict) else enumerate(value)
  for key, part in inner:
    yield (*path, key)
    if isinstance(part, dict | list):
      yield from nodes(part, (*path, key))


def changed(value, path, odd):
  whole = copy.deepcopy(value)
  part = whole
  for key in path[:-1]:
    part = part[key]
  part[path[-1]] = odd
  return whole


CHANGES = [
  (name, path, odd)
  for name, value in (*OBJECTS.items(), ('metrics.jsonl', LINES))
  for path, odd in itertools.product(nodes(value), ODD)
]


def change(run, name, path, odd):
  value = changed(OBJECTS.get(name, LINES), path, odd)
  write = json.dumps if name in OBJECTS else as_lines
  (run / name).write_text(write(value))


def test_no_value_in_a_file_keeps_records_and_summaries_from_being_made(run):
  """Every value of every file, replaced by some odd ones."""
  whole = {path: path.read_text() for path in run.rglob('*.json*')}
  for name, path, odd in CHANGES[::7]:
    change(run, name, path, odd)
    found = reading.load(run)
    assert all(reading.finite(line['step']) for line in found.lines)
    for record in claims.of_run(found)[0]:
      assert {type(record[n]) for n in ('lr', 'topk', 'speed')} == {float}
    summary.write_summary(run.parent)
    for path, text in whole.items():
      path.write_text(text)


@pytest.mark.parametrize('seed', range(3))
def test_no_value_in_a_file_keeps_a_page_from_being_written(run, undrawn, seed):
  """Eight of the changes, each with a page of the run and one of the sweep."""
  whole = {path: path.read_text() for path in run.rglob('*.json*')}
  for i in np.random.default_rng(seed).choice(len(CHANGES), 8, replace=False):
    change(run, *CHANGES[i])
    report.write(run)
    report.write(run.parent)
    for path, text in whole.items():
      path.write_text(text)
