"""Does every arm of a sweep run once, whoever is killed, and end in a table?"""

import csv
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import ml_collections
import pytest

from implicit_attr import errors
from implicit_attr.configs import common
from implicit_attr.configs.sweeps import lr_batch
from implicit_attr.runs import lock, records
from implicit_attr.runs.metrics import Metrics
from implicit_attr.sweeps import budget, summary, sweep
from implicit_attr.train.run_folder import Diverged
from implicit_attr.train.spans import Interrupted

ROOT = pathlib.Path(__file__).parent.parent


def arm(name: str, **overrides):
  base = ml_collections.ConfigDict({'optim': {'lr': 0.1}, 'seed': 0})
  return {'name': name, 'base': base, 'overrides': overrides}


def some(*names: str) -> list[sweep.Arm]:
  given = [arm(name, seed=i) for i, name in enumerate(names)]
  return sweep.arms(ml_collections.ConfigDict({'arms': given}))


class Stub:
  """Stands for runs: claims the folders, writes metrics, ends as told.

  `together` ends calls for several runs, as `endings` end those for one.
  """

  def __init__(self, together=(), **endings):
    self.endings, self.together = endings, dict(together)
    self.ran, self.groups = [], []

  def __call__(self, configs, workdirs):
    endings = self.endings
    if len(configs) > 1:
      self.groups.append([w.name for w in workdirs])
      endings = self.together
    for config, workdir in zip(configs, workdirs, strict=True):
      self.ran.append(workdir.name)
      records.claim(workdir, config)
      metrics = Metrics(workdir, 0)
      metrics.write(0, {'eval/accuracy': 0.1, 'train/loss': float('nan')})
      metrics.write(5, {'eval/accuracy': 0.5 + config['seed']})
      metrics.close()
      ending = endings.get(workdir.name)
      if isinstance(ending, Diverged):
        records.write_status(workdir, 'diverged', 5, str(ending))
      if ending:
        raise ending
      records.write_status(workdir, 'finished', 5)


def table(root: pathlib.Path) -> list[dict]:
  with (root / 'summary.csv').open() as file:
    return list(csv.DictReader(file))


def test_an_override_changes_one_value_of_the_base():
  a, b = sweep.arms(
    ml_collections.ConfigDict({'arms': [arm('a', **{'optim.lr': 1}), arm('b')]})
  )
  assert a == sweep.Arm('a', {'optim': {'lr': 1.0}, 'seed': 0})
  assert b == sweep.Arm('b', {'optim': {'lr': 0.1}, 'seed': 0})


@pytest.mark.parametrize(
  'arms, said',
  [
    ([], 'with arms'),
    ([arm('a'), arm('a')], 'only one arm'),
    ([arm('../a')], 'path of letters'),
    ([arm('/a')], 'path of letters'),
    ([arm('a b')], 'path of letters'),
    ([arm('a', **{'optim.rate': 1})], 'rate'),
    ([arm('a', **{'optim.lr': 'fast'})], 'fast'),
  ],
)
def test_a_bad_arm_is_refused_in_one_line(arms, said):
  with pytest.raises(errors.InputError, match=said) as e:
    sweep.arms(ml_collections.ConfigDict({'arms': arms}))
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('arg, count', [(None, 360), ('mlp', 90), ('small', 8)])
def test_names_of_arms_are_stable_and_say_the_config(arg, count):
  arms = sweep.arms(lr_batch.get_config(arg))
  assert len(arms) == count
  assert arms == sweep.arms(lr_batch.get_config(arg))
  for one in arms:
    assert f'lr={one.config["optim"]["lr"]},' in one.name
    assert f'batch={one.config["data"]["batch_size"]}/' in one.name
    assert one.name.startswith(
      f'{one.config["model"]["name"]}-{one.config["loss"]["name"]}/'
    )
    assert one.name.endswith(f'seed_{one.config["seed"]}')


def test_shards_are_disjoint_and_together_everything():
  arms = some(*'abcdefg')
  parts = [sweep.share(arms, f'{i}/3') for i in range(3)]
  assert sorted(a.name for part in parts for a in part) == list('abcdefg')
  for bad in ('3/3', '1', 'a/b', '-1/2', '0/0'):
    with pytest.raises(errors.InputError, match='--shard'):
      sweep.share(arms, bad)


def test_arms_run_in_order_and_what_is_done_is_not_run_again(tmp_path, caplog):
  caplog.set_level('INFO', 'implicit_attr')
  stub, arms = Stub(), some('c', 'a', 'b')
  assert sweep.run(arms[:2], tmp_path, stub) == 0
  assert sweep.run(arms, tmp_path, stub) == 0
  assert stub.ran == ['c', 'a', 'b']
  said = [r.getMessage() for r in caplog.records]
  assert '3 arms, 2 of them done' in said
  assert any('arm 3/3 (100%)' in line and 'ETA' in line for line in said)


def test_divergence_is_an_answer_and_failure_is_tried_again(tmp_path):
  stub = Stub(
    a=Diverged(5, 'the loss'),
    b=errors.InputError('optim.lr=0 must be > 0'),
    c=jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no memory\nmore'),
  )
  arms = some('a', 'b', 'c', 'd')
  assert sweep.run(arms, tmp_path, stub) == 2
  assert stub.ran == ['a', 'b', 'c', 'd']
  found = {row['run']: row['status'] for row in table(tmp_path)}
  assert found == {
    'a': 'diverged',
    'b': 'failed',
    'c': 'failed',
    'd': 'finished',
  }
  rows = json.loads((tmp_path / 'summary.json').read_text())
  assert rows[2]['message'] == 'RESOURCE_EXHAUSTED: no memory'
  stub.endings.clear()
  assert sweep.run(arms, tmp_path, stub) == 0
  assert stub.ran[4:] == ['b', 'c']


def test_a_stop_ends_the_sweep_and_leaves_the_arm_to_the_next_start(tmp_path):
  stub, arms = Stub(a=Interrupted(3)), some('a', 'b')
  with pytest.raises(Interrupted):
    sweep.run(arms, tmp_path, stub)
  stub.endings.clear()
  sweep.run(arms, tmp_path, stub)
  assert stub.ran == ['a', 'a', 'b']


def test_a_done_arm_of_another_config_is_reported_and_left_alone(tmp_path):
  stub = Stub()
  sweep.run(some('a'), tmp_path, stub)
  before = (tmp_path / 'a' / 'status.json').read_bytes()
  changed = some('z', 'a')[1:]  # the same name with another seed
  assert sweep.run(changed, tmp_path, stub) == 2
  assert stub.ran == ['a']
  assert (tmp_path / 'a' / 'status.json').read_bytes() == before


def alike(**lrs: float) -> list[sweep.Arm]:
  base = {
    'optim': {'lr': 0.1, 'momentum': 0.0}, 'seed': 0, 'parallel': 'jit',
    'objective': {}, 'loss': {}, 'model': {},
  }  # fmt: skip
  return [
    sweep.Arm(name, base | {'optim': base['optim'] | {'lr': lr}})
    for name, lr in lrs.items()
  ]


def test_arms_that_can_share_a_program_go_together(tmp_path):
  arms = alike(a=0.1, b=0.2, c=0.3)
  other = arms[0].config | {'data': {'batch_size': 8}}
  arms.insert(1, sweep.Arm('alone', other))
  stub = Stub()
  assert sweep.run(arms, tmp_path, stub, lanes=2) == 0
  assert stub.groups == [['a', 'b']]
  assert stub.ran == ['a', 'b', 'c', 'alone']
  assert [row['status'] for row in table(tmp_path)] == ['finished'] * 4
  assert sweep.run(arms, tmp_path, stub, lanes=4) == 0
  assert len(stub.ran) == 4


def test_what_is_done_or_run_by_others_is_no_lane(tmp_path):
  arms, stub = alike(a=0.1, b=0.2, c=0.3, d=0.4), Stub()
  sweep.run(arms[:1], tmp_path, Stub())
  with lock.lock(tmp_path / 'c') as ours:
    assert ours
    assert sweep.run(arms, tmp_path, stub, lanes=4) == 0
  assert stub.groups == [['b', 'd']]


@pytest.mark.parametrize(
  'error',
  [
    errors.InputError('optim.lr=0 must be > 0'),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no memory'),
  ],
)
def test_what_lanes_could_not_do_is_done_arm_by_arm(tmp_path, error):
  stub = Stub(together={'b': error}, c=error)
  arms = alike(a=0.1, b=0.2, c=0.3)
  assert sweep.run(arms, tmp_path, stub, lanes=3) == 2
  assert stub.ran == ['a', 'b', 'b', 'c']
  statuses = [row['status'] for row in table(tmp_path)]
  assert statuses == ['finished', 'finished', 'failed']


def test_of_many_arms_that_failed_three_are_named(tmp_path, caplog):
  error = errors.InputError('data.name is not known')
  names = 'abcde'
  arms = alike(**{name: 0.1 * i for i, name in enumerate(names, start=1)})
  stub = Stub(**dict.fromkeys(names, error))
  assert sweep.run(arms, tmp_path, stub) == 2
  assert '5 arms failed: a, b, c and 2 more' in caplog.text


def test_a_stop_ends_lanes_and_the_sweep(tmp_path):
  stub = Stub(together={'a': Interrupted(3)})
  with pytest.raises(Interrupted):
    sweep.run(alike(a=0.1, b=0.2), tmp_path, stub, lanes=2)
  assert stub.ran == ['a']


@pytest.mark.parametrize('count', [0, -1, 1.5])
def test_a_bad_number_of_lanes_is_refused(tmp_path, count):
  with pytest.raises(errors.InputError, match='--lanes'):
    sweep.run(some('a'), tmp_path, Stub(), lanes=count)


HOLD = """
import pathlib, sys, time
from implicit_attr.runs import lock
with lock.lock(pathlib.Path(sys.argv[1])) as ours:
  print(ours, flush=True)
  time.sleep(60)
"""


def test_a_running_arm_is_left_alone_and_taken_over_when_its_owner_dies(
  tmp_path,
):
  stub, arms = Stub(), some('a', 'b')
  with subprocess.Popen(
    [sys.executable, '-c', HOLD, tmp_path / 'a'],
    cwd=ROOT, stdout=subprocess.PIPE, text=True,
  ) as owner:  # fmt: skip
    assert owner.stdout.readline() == 'True\n'
    assert sweep.run(arms, tmp_path, stub) == 0
    assert stub.ran == ['b']
    owner.send_signal(signal.SIGKILL)
  assert (tmp_path / 'a' / '.lock').exists()
  assert sweep.run(arms, tmp_path, stub) == 0
  assert stub.ran == ['b', 'a']


SHARE = """
import json, pathlib, sys, time
from tests import test_sweep
from implicit_attr.runs import records
from implicit_attr.sweeps import sweep
root = pathlib.Path(sys.argv[1])
def train(configs, workdirs):
  (config,), (workdir,) = configs, workdirs
  records.claim(workdir, config)
  with (workdir / 'ran').open('a') as file:
    file.write(sys.argv[2])
  time.sleep(0.02)
  records.write_status(workdir, 'finished', 1)
while not (root / 'go').exists():
  time.sleep(0.001)
sweep.run(test_sweep.some(*map(str, range(40))), root, train)
"""


def test_two_launchers_share_the_work_and_no_arm_runs_twice(tmp_path):
  children = [
    subprocess.Popen([sys.executable, '-c', SHARE, tmp_path, who], cwd=ROOT)
    for who in 'ab'
  ]
  time.sleep(3)  # both have done their imports, or nearly
  (tmp_path / 'go').touch()
  assert [child.wait() for child in children] == [0, 0]
  ran = [(tmp_path / str(i) / 'ran').read_text() for i in range(40)]
  assert set(ran) <= {'a', 'b'}  # each arm once
  assert len(table(tmp_path)) == 40


def test_the_table_has_what_differs_and_the_last_finite_numbers(tmp_path):
  sweep.run(some('x/a', 'x/b'), tmp_path, Stub())
  first, second = table(tmp_path)
  assert first == {
    'run': 'x/a', 'status': 'finished', 'step': '5', 'seed': '0',
    'eval/accuracy': '0.5',
  }  # fmt: skip
  assert second['eval/accuracy'] == '1.5'
  value = {
    'clean': {'accuracy': 0.75},
    'rows': [{
      'attribution': 'gradient', 'attack': 'topk',
      'metrics': {'kendall': {'mean': 0.25}},
    }],
  }  # fmt: skip
  records.write_json(tmp_path / 'x/a/evaluation/last.json', value)
  first, second = summary.write_summary(tmp_path)
  assert first['evaluation'] == {
    'last/accuracy': 0.75, 'last/gradient/topk/kendall': 0.25,
  }  # fmt: skip
  assert second['evaluation'] == {}


def test_the_table_reads_again_only_what_changed(tmp_path, monkeypatch):
  sweep.run(some('a', 'b', 'c'), tmp_path, Stub())
  read, seen = summary._read, []
  monkeypatch.setattr(
    summary, '_read', lambda path: (seen.append(path.name), read(path))[1]
  )
  summary.write_summary(tmp_path)
  assert seen == []
  with (tmp_path / 'b' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "train/loss": 3.0}\n')
  rows = summary.write_summary(tmp_path)
  assert seen == ['b'] and rows[1]['metrics']['train/loss'] == 3.0
  (tmp_path / 'summary.json').write_text('{cut')
  assert summary.write_summary(tmp_path) == rows


SWEEP = """
import ml_collections
from implicit_attr.configs import digits_mlp
def get_config(arg=None):
  base = digits_mlp.get_config('smoke')
  base.model.widths = (8,)
  base.train.duration = '4 steps'
  base.track.every = 'never'
  base.evaluation.update({'attributions': ('gradient',), 'steps': 1})
  return ml_collections.ConfigDict({'arms': [
    {'name': f'lr={lr}', 'base': base, 'overrides': {
      'optim.lr': lr, 'loss.name': 'squared_error'}}
    for lr in (1e20, 0.1)
  ]})
"""


def test_the_program_runs_a_sweep_to_its_table(tmp_path):
  (tmp_path / 'tiny.py').write_text(SWEEP)
  command = [
    sys.executable, '-m', 'implicit_attr.main', '--mode', 'sweep',
    '--config', tmp_path / 'tiny.py', '--workdir', tmp_path / 'runs',
    '--compilation_cache', '', '--shard', '0/1',
  ]  # fmt: skip
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'arm 2/2 (100%)' in done.stderr
  finished, diverged = table(tmp_path / 'runs')
  assert diverged['run'] == 'lr=1e+20' and diverged['status'] == 'diverged'
  assert finished['run'] == 'lr=0.1' and finished['status'] == 'finished'
  assert 0 <= float(finished['last/accuracy']) <= 1


def test_a_budget_is_spent_seed_by_seed_on_what_ends_in_time(tmp_path, caplog):
  given = [
    arm(f'lr={lr}/seed_{seed}', **{'optim.lr': lr, 'seed': seed})
    for lr in (0.1, 0.2)
    for seed in (0, 1, 2)
  ]
  arms = sweep.arms(ml_collections.ConfigDict({'arms': given}))
  done = lambda: {
    a.name for a in arms if records.read_status(tmp_path / a.name)
  }
  for one in (a for a in arms if a.config['seed'] == 0):
    (tmp_path / one.name).mkdir(parents=True)
    seconds = {0.1: 1.0, 0.2: 1000.0}[one.config['optim']['lr']]
    status = {'status': 'finished', 'step': 5, 'message': ''}
    records.claim(tmp_path / one.name, one.config)
    path = tmp_path / one.name / 'status.json'
    records.write_json(path, {**status, 'seconds': seconds})
  with caplog.at_level('INFO'):
    assert sweep.run(arms, tmp_path, Stub(), budget=100) == 0
  # The next of seed 1 is a slow one: no arm of seed 2 goes before it.
  assert done() == {f'lr={lr}/seed_0' for lr in (0.1, 0.2)} | {'lr=0.1/seed_1'}
  assert 'lr=0.2/seed_1 needs some 1000 s' in caplog.text
  took = records.read_status(tmp_path / 'lr=0.1/seed_1')['seconds']
  assert 0 <= took < 100
  assert sweep.run(arms, tmp_path, Stub(), budget=5000) == 0
  assert len(done()) == 6
  with pytest.raises(errors.InputError, match='--budget'):
    sweep.run(arms, tmp_path, Stub(), budget=0)


def test_groups_under_a_budget_are_of_one_seed():
  given = [
    {
      'name': f'{lr}-{s}',
      'base': common.base(),
      'overrides': {'optim.lr': lr, 'seed': s},
    }
    for lr in (0.1, 0.2)
    for s in (0, 1)
  ]
  arms = sweep.arms(ml_collections.ConfigDict({'arms': given}))
  arms.sort(key=lambda a: a.config['seed'])
  names = lambda seconds: [
    [a.name for a in group]
    for group in budget.Budget(seconds, ROOT, arms).groups(arms, 4)
  ]
  assert names(100) == [['0.1-0', '0.2-0'], ['0.1-1', '0.2-1']]
  assert names(None) == [['0.1-0', '0.2-0', '0.1-1', '0.2-1']]
