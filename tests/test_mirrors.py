"""Do trackers show the record, each step once, and never stop it?"""

import copy
import json
import sys
import types

import pytest

from implicit_attr import errors
from implicit_attr.configs import common
from implicit_attr.runs import mirrors, records
from implicit_attr.runs.metrics import Metrics, read_metrics
from implicit_attr.train import experiment, settings
from implicit_attr.train.run_folder import RunFolder
from implicit_attr.train.tracking import Tracker

CONFIG = {'seed': 0, 'optim': {'lr': 0.1, 'more': (1, None)}}


def write(workdir, name, spans, **more):
  """A record of {'x': step} that is begun at the first step of each span."""
  for first, last in spans:
    metrics = Metrics(workdir, first, (name,), config=CONFIG)
    for step in range(first, last):
      values = {'x': float(step), 'bad': float('nan'), 'text': 'left out'}
      metrics.write(step, values | more)
    metrics.close()


def killed(workdir, name):
  """25 steps of which 10 to 14 were written twice."""
  write(workdir, name, ((0, 15), (10, 25)))
  assert [line['step'] for line in read_metrics(workdir)] == list(range(25))


def tensorboard(workdir, name):
  pytest.importorskip('tensorboardX')
  read = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  shown = read.EventAccumulator(str(workdir / 'tensorboard'))
  shown.Reload()
  return [(event.step, event.value) for event in shown.Scalars(name)]


def test_tensorboard_shows_every_step_once_after_a_kill(tmp_path):
  pytest.importorskip('tensorboardX')
  for first, factor in ((0, 1), (10, 2), (20, 3)):
    metrics = Metrics(tmp_path, first, ('tensorboard',))
    for step in range(first, first + 15):
      metrics.write(step, {'x': float(step * factor), 'text': 'left out'})
    metrics.close()
  assert tensorboard(tmp_path, 'x') == [
    (s, s * (1 + s // 10)) for s in range(30)
  ] + [(s, s * 3) for s in range(30, 35)]


def test_a_run_folder_shows_what_it_records(tmp_path):
  pytest.importorskip('tensorboardX')
  config = common.smoke(common.base())
  config.model = {'name': 'mlp', 'widths': (4,)}
  config.train.log_to = ('tensorboard',)
  built = experiment.build(config.to_dict())
  folder = RunFolder(built, tmp_path, Tracker.memory)
  sums = [{'loss': 3.0, 'correct': 1.0, 'n': 2.0}]
  folder.write(0, {'eval/accuracy': 0.5}, [], {'time/wall_s': 1.0})
  folder.write(1, {'eval/accuracy': 0.75}, sums, {'time/wall_s': 2.0})
  folder.close()
  for name in ('eval/accuracy', 'train/loss', 'time/wall_s'):
    lines = [(s['step'], s[name]) for s in read_metrics(tmp_path) if name in s]
    assert tensorboard(tmp_path, name) == lines and lines


class Fake(types.ModuleType):
  """wandb and trackio as far as we use them; `runs` by id or name."""

  def __init__(self, name):
    super().__init__(name)
    self.runs, self.given, self.open = {}, [], 0

  def init(self, **given):
    assert given['resume'] == 'allow'
    self.given.append(given)
    self.open += 1
    seen = self.runs.setdefault(given.get('id') or given['name'], [])

    def log(values, step):
      assert not seen or step > seen[-1][0], 'a step that is there already'
      seen.append((step, values))

    def finish():
      self.open -= 1

    return types.SimpleNamespace(log=log, finish=finish)


@pytest.mark.parametrize('name', ['wandb', 'trackio'])
def test_a_tracker_has_one_run_a_folder_and_each_step_once(
  name, tmp_path, monkeypatch
):
  fake = Fake(name)
  monkeypatch.setitem(sys.modules, name, fake)
  for folder in ('a/run', 'b/run'):
    killed(tmp_path / folder, name)
  assert fake.open == 0 and len(fake.given) == 4 and len(fake.runs) == 2
  for seen in fake.runs.values():
    assert seen == [(s, {'x': float(s)}) for s in range(25)]
  config = {'seed': 0, 'optim.lr': 0.1, 'optim.more': (1, None)}
  for given in fake.given:
    assert given['project'] == 'implicit_attr'
    assert given['name'].startswith('run') and given['config'] == config


@pytest.mark.peers
def test_trackio_has_each_step_once_in_its_local_base(tmp_path, monkeypatch):
  monkeypatch.setenv('TRACKIO_DIR', str(tmp_path / 'trackio'))
  trackio = pytest.importorskip('trackio')
  storage = pytest.importorskip('trackio.sqlite_storage').SQLiteStorage
  killed(tmp_path / 'run', 'trackio')
  name = records.parsed((tmp_path / 'run' / 'mirrors.json').read_bytes())['id']
  (run,) = [r for r in trackio.Api().runs('implicit_attr') if name in r.name]
  logs = storage.get_logs('implicit_attr', run.name)
  assert [(line['step'], line['x']) for line in logs] == [
    (s, s) for s in range(25)
  ]


@pytest.mark.peers
def test_mlflow_has_each_step_once_in_its_local_base(tmp_path, monkeypatch):
  mlflow = pytest.importorskip('mlflow')
  monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'file://{tmp_path}/mlruns')
  killed(tmp_path / 'run', 'mlflow')
  client = mlflow.MlflowClient()
  about = client.get_experiment_by_name('implicit_attr')
  (run,) = client.search_runs([about.experiment_id])
  assert run.info.status == 'FINISHED' and run.data.params['optim.lr'] == '0.1'
  shown = client.get_metric_history(run.info.run_id, 'x')
  assert [(m.step, m.value) for m in shown] == [(s, s) for s in range(25)]


@pytest.mark.parametrize('name', mirrors.MIRRORS)
def test_a_package_that_is_missing_is_one_line_when_a_config_is_read(
  name, monkeypatch
):
  package = mirrors.PACKAGES[name]
  monkeypatch.setitem(sys.modules, package, None)
  config = copy.deepcopy(common.base().to_dict())
  assert settings.read(config).train.log_to == ()
  config['train']['log_to'] = [name]
  with pytest.raises(errors.InputError) as e:
    settings.read(config)
  text = str(e.value)
  assert f"train.log_to='{name}'" in text and '\n' not in text
  assert f'pip install {package}' in text


def test_an_unknown_tracker_is_one_line():
  with pytest.raises(errors.InputError, match="did you mean 'wandb'"):
    mirrors.installed('train.log_to', ('wandbb',))
  with pytest.raises(errors.InputError, match='a tuple of any of'):
    mirrors.installed('train.log_to', 'wandb')


def test_a_tracker_that_fails_is_left_out_and_the_record_goes_on(
  tmp_path, monkeypatch, caplog
):
  fake = Fake('trackio')
  monkeypatch.setitem(sys.modules, 'trackio', fake)
  metrics = Metrics(tmp_path, 0, ('trackio',))
  metrics.write(0, {'x': 1.0})
  (seen,) = fake.runs.values()
  seen.append((9, {}))  # now it refuses steps up to 9
  for step in (1, 2, 20):
    metrics.write(step, {'x': 1.0})
  metrics.close()
  assert [line['step'] for line in read_metrics(tmp_path)] == [0, 1, 2, 20]
  assert len(seen) == 2  # nothing more was sent
  said = [r.getMessage() for r in caplog.records]
  assert len(said) == 1 and 'trackio is left out from step 1' in said[0]


def test_a_tracker_that_cannot_begin_is_one_line(tmp_path, monkeypatch):
  fake = types.ModuleType('wandb')
  monkeypatch.setitem(sys.modules, 'wandb', fake)  # it has no `init`
  with pytest.raises(errors.InputError, match=r"train\.log_to='wandb' could"):
    Metrics(tmp_path, 0, ('wandb',))


@pytest.mark.parametrize('flag, wanted', [(True, ['tensorboard']), (False, [])])
def test_a_run_from_before_log_to_goes_on(flag, wanted, tmp_path):
  config = copy.deepcopy(common.base().to_dict())
  del config['train']['log_to']
  config['train']['tensorboard'] = flag
  records.write_json(tmp_path / 'config.json', {'config': config})
  old = records.read_config(tmp_path)['config']
  assert old['train']['log_to'] == wanted and 'tensorboard' not in old['train']
  new = json.loads(json.dumps(common.base().to_dict()))
  new['train']['log_to'] = wanted
  records.claim(tmp_path, new)
