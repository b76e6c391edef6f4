"""Is nonsense refused in one line, and is what makes sense still taken?

A generator of bad values, field by field, file by file, flag by flag; each
knows what the right answer is: a refusal that names the field, or a value that
is documented to be allowed.
"""

import importlib
import json
import math
import pathlib
import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from implicit_attr import errors, run
from implicit_attr.configs import common, digits_cnn, digits_mlp, digits_vit
from implicit_attr.runtime import cadence, dist
from implicit_attr.sweeps import sweep
from implicit_attr.train import experiment, settings

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('*_*.py'))


def fields(config: dict, path: tuple = ()):
  """Yields the path of every leaf of a nested config."""
  for name, value in config.items():
    inside = isinstance(value, dict) and path + (name,) not in FREE
    if inside:
      yield from fields(value, (*path, name))
    else:
      yield (*path, name)


FREE = {('evaluation', 'options'), ('objective', 'options')}
"""Mappings whose keys are those of a function."""

BASE = common.base().to_dict()
FIELDS = list(fields(BASE))
BAD = {
  'None': None, 'empty': '', 'text': 'no such thing', 'nan': math.nan,
  'infinite': math.inf, 'minus one': -1, 'too large': 10**20, 'tiny': 1e-50,
  'beyond float32': 1e39, 'list': [None, 1], 'numbers': [1, 2],
  'mapping': {'a': 1}, 'flag': True,
}  # fmt: skip


def taken(path: tuple, kind: str) -> bool:
  """Whether a bad value is a good one for this field, as documented."""
  name = '.'.join(path)
  return (name, kind) in {
    ('data.data_dir', 'None'), ('data.subset', 'None'),
    ('objective.weight', 'None'),
    ('evaluation.certificates', 'flag'),
    ('evaluation.sanity', 'flag'),
    # Looked at where they are made: a path, and what a network is given.
    ('data.data_dir', 'empty'), ('data.data_dir', 'text'),
    # Pixels may lie anywhere; a large weight or bound is one's own affair.
    ('model.mean', 'minus one'), ('model.mean', 'too large'),
    ('model.mean', 'numbers'), ('model.std', 'numbers'),
    ('model.std', 'too large'), ('model.beta', 'too large'),
    ('optim.lr', 'too large'), ('optim.weight_decay', 'too large'),
    ('track.tol', 'too large'), ('track.input_tol', 'too large'),
    ('train.milestones.train_loss', 'too large'),
  }  # fmt: skip


def changed(path: tuple, value) -> dict:
  config = json.loads(json.dumps(BASE))
  section = config
  for name in path[:-1]:
    section = section[name]
  section[path[-1]] = value
  return config


def refused(fun, *said: str) -> str:
  """The one line of the refusal, which names all that is `said`."""
  with pytest.raises(errors.InputError) as e:
    fun()
  text = str(e.value)
  assert '\n' not in text and len(text) < 1000
  for part in said:
    assert part in text, text
  return text


def build(config: dict) -> None:
  """All of a config that is looked at before there is data or a network."""
  read = settings.read(config)
  experiment.parts(read, num_classes=10)
  total = cadence.steps('train.duration', read.train.duration, per_epoch=22)
  for section, name in (
    ('optim', 'warmup'), ('train', 'log_every'), ('train', 'eval_every'),
    ('track', 'every'), ('track', 'cheap_every'), ('checkpoint', 'every'),
  ):  # fmt: skip
    words = getattr(getattr(read, section), name)
    cadence.steps(f'{section}.{name}', words, per_epoch=22, total=total)


@pytest.mark.parametrize('kind', BAD)
@pytest.mark.parametrize('path', FIELDS, ids='.'.join)
def test_a_bad_value_of_any_field_is_refused_by_name(path, kind):
  config = changed(path, BAD[kind])
  if taken(path, kind):
    build(config)
    return
  look = build
  if path == ('data', 'name') and kind in ('text', 'empty'):
    look = experiment.build  # data.load knows the names
  refused(lambda: look(config), path[-1] if path not in FREE else path[0])


@pytest.mark.parametrize(
  'section', [k for k, v in BASE.items() if isinstance(v, dict)]
)
@pytest.mark.parametrize('value', [None, '', 'text', 5, [], {}, [1]], ids=repr)
def test_a_section_that_is_none_is_refused(section, value):
  if section in ('objective', 'loss') and value == {}:
    said = f'{section}.'
  else:
    said = section
  refused(lambda: build({**BASE, section: value}), said)


@pytest.mark.parametrize('section', [None, *BASE])
def test_unknown_keys_and_missing_ones_are_refused(section):
  config = json.loads(json.dumps(BASE))
  where = config if section is None else config[section]
  if not isinstance(where, dict):
    del config[section]
    refused(lambda: build(config), section)
    return
  where['exmaples'] = 1
  text = refused(lambda: experiment.build(config), 'exmaples')
  if section in ('track', 'evaluation'):
    assert "did you mean 'examples'" in text
  where.pop('exmaples')
  record = getattr(settings, (section or 'settings').capitalize())
  for name in list(where):
    value = where.pop(name)
    # A network takes its own defaults, and later options have one.
    later = hasattr(record, name)
    if not later and (section != 'model' or name == 'name'):
      refused(lambda: build(config), name)
    where[name] = value


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_taken_and_read_back_from_its_json(name):
  module = importlib.import_module(f'implicit_attr.configs.{name}')
  for argument in (None, 'smoke'):
    config = module.get_config(argument).to_dict()
    read = settings.read(config)
    assert read == settings.read(json.loads(json.dumps(config)))
    experiment.parts(read, num_classes=10)


@pytest.mark.parametrize(
  'options, said',
  [
    ({'gradeint': {}}, "did you mean 'gradient'"),
    ({'smoothgrad': {'sigmas': 1}}, "did you mean 'sigma'"),
    ({'smoothgrad': {'key': 1}}, 'key'),
    ({'smoothgrad': 3}, 'smoothgrad'),
    ({'smoothgrad': None}, 'smoothgrad'),
  ],
)
def test_options_of_maps_are_those_of_the_map(options, said):
  config = changed(('evaluation', 'options'), options)
  refused(lambda: build(config), 'evaluation.options', said)


@pytest.mark.parametrize(
  'module, change, said',
  [
    (digits_mlp, {'evaluation.attributions': ('grad_cam',)}, 'grad_cam'),
    (digits_vit, {'evaluation.attributions': ('grad_cam',)}, 'grad_cam'),
    (digits_cnn, {'evaluation.attributions': ('deeplift',)}, 'deeplift'),
    (digits_cnn, {'evaluation.attributions': ('rollout',)}, 'attention'),
    (digits_mlp, {'evaluation.attributions': ('smoothgrad',),
                  'evaluation.options': {'smoothgrad': {'sigma': -1.0}}},
     'sigma'),
    (digits_mlp, {'evaluation.attributions': ('integrated_gradients',),
                  'evaluation.options': {'integrated_gradients': {'steps': 0}}},
     'steps'),
    (digits_mlp, {'model.mean': (0.1, 0.2, 0.3)}, 'model.mean'),
    (digits_mlp, {'model.mean': ()}, 'model.mean'),
    (digits_mlp, {'data.batch_size': 5000}, 'data.batch_size'),
    (digits_mlp, {'track.examples': 5000}, 'track.examples'),
    (digits_mlp, {'evaluation.eps': 8.0}, '8/255'),
  ],
  ids=str,
)  # fmt: skip
def test_what_the_network_cannot_do_is_refused_before_there_is_a_folder(
  module, change, said
):
  config = module.get_config('smoke').to_dict()
  for field, value in change.items():
    section, name = field.split('.')
    config[section][name] = value
  refused(lambda: run.build([config]), said)


@pytest.mark.parametrize(
  'words',
  ['', 'long', '5', '5 step', '-5 steps', '0 steps', 'never', '٥ steps',
   'nan steps', '1e3 steps', f'1{"0" * 400} steps', '100000000000000 epochs',
   '101%', 5, None, '5 steps 5', '２ epochs', 'inf epochs'],
)  # fmt: skip
def test_a_duration_is_a_number_of_updates_that_can_be_counted(words):
  fits = words in ('5 step',)
  steps = lambda: cadence.steps('train.duration', words, per_epoch=22)
  if fits:
    assert steps() == 5
  else:
    refused(steps, 'train.duration')


def test_numbers_of_numpy_are_numbers():
  errors.number('n', np.int64(3), 1, integer=True)
  errors.number('x', np.float32(0.1), 0, 1)
  for bad in (np.bool_(True), True, np.float64('nan'), '3', None, 3 + 0j):
    refused(lambda: errors.number('x', bad), 'x=')
  refused(lambda: errors.number('n', np.float32(3), integer=True), 'n=')


MLP = f'--config={ROOT}/configs/digits_mlp.py:smoke'
SWEEP = f'--config={ROOT}/configs/sweeps/lr_batch.py:small'


SERVER = """
import json, os, sys
from implicit_attr import main
for line in sys.stdin:
  if not os.fork():
    try:
      sys.argv = ['main', *json.loads(line)]
      main.parse(sys.argv)
      config = main._CONFIG.value
      said = {'config': config and config.to_dict()}
    except Exception as e:
      said = {'error': type(e).__name__, 'text': str(e)}
    print(json.dumps(said, default=str), flush=True)
    os._exit(0)
  os.wait()
"""


@pytest.fixture(scope='module')
def parse():
  """(*flags) -> the config, in a process of their own, for flags are global."""
  server = subprocess.Popen(
    [sys.executable, '-c', SERVER],
    cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  )  # fmt: skip

  def ask(*args: str):
    server.stdin.write(json.dumps(args) + '\n')
    server.stdin.flush()
    said = json.loads(server.stdout.readline())
    if 'error' in said:
      assert said['error'] == 'InputError', said
      raise errors.InputError(said['text'])
    return said['config']

  yield ask
  server.stdin.close()
  server.stdout.close()
  server.wait()


@pytest.mark.parametrize(
  'args, said',
  [
    ((MLP, '--lanes=0'), '--lanes'),
    ((MLP, '--lanes=3'), '--lanes'),
    ((SWEEP, '--mode=sweep', '--lanes=0'), '--lanes'),
    ((SWEEP, '--mode=sweep', '--lanes=-2'), '--lanes'),
    ((SWEEP, '--mode=sweep', '--lanes=many'), 'lanes'),
    ((MLP, '--shard=0/2'), '--shard'),
    ((MLP, '--shard=x/y'), '--shard'),
    ((MLP, '--process=0'), '--process'),
    ((MLP, '--processes=2'), '--processes'),
    ((MLP, '--coordinator=a:1'), '--coordinator'),
    ((MLP, '--patience=5'), '--patience'),
    ((SWEEP, '--mode=sweep', '--distributed'), '--distributed'),
    ((MLP, 'digits'), 'digits'),
    ((MLP, '--mode=trian'), "did you mean 'train'"),
    ((MLP, '--config.optim.lrr=0.1'), 'lrr'),
    ((MLP, '--config.optim.lrr=None'), 'lrr'),
    ((MLP, '--config.optim.lr=fast'), 'fast'),
    (('--config=nowhere.py',), 'nowhere.py'),
    ((), '--config'),
    (('--mode=sweep',), '--config'),
  ],
  ids=str,
)
def test_a_flag_that_means_nothing_here_is_refused(args, said, parse):
  refused(lambda: parse(*args), said)


@pytest.mark.parametrize(
  'body, said',
  [
    ('return nothing', 'nothing'),
    ('return 1 / 0', 'division'),
    ('return None', 'ConfigDict'),
    ("return {'seed': 0}", 'ConfigDict'),
    ('import sys; sys.exit(0)', 'leave'),
    ("raise ValueError('no\\nway')", 'way'),
    ('return (', '('),
    ('import nothing_of_the_kind', 'nothing_of_the_kind'),
  ],
)
def test_a_config_file_that_fails_is_one_line(body, said, tmp_path, parse):
  file = tmp_path / 'config.py'
  file.write_text(f'def get_config(arg=None):\n  {body}\n')
  refused(lambda: parse(f'--config={file}'), said)


@pytest.mark.parametrize(
  'field', ['objective.weight', 'data.subset', 'data.data_dir']
)
def test_none_can_be_written_where_it_is_the_default(field, parse):
  config = parse(MLP, f'--config.{field}=None')
  section, name = field.split('.')
  assert config[section][name] is None


def good(name='a', **changes) -> dict:
  base = ml_collections.ConfigDict({'optim': {'lr': 0.1}, 'seed': 0})
  return {'name': name, 'base': base, 'overrides': {'seed': 1}} | changes


@pytest.mark.parametrize(
  'arms',
  [
    None, {}, 'arms', 5, [], [None], ['a'], [5], [{}], [[]],
    [{'name': 'a'}], [good() | {'more': 1}],
    [{k: v for k, v in good().items() if k != 'base'}],
    *([good(name)] for name in (
      5, None, ('a',), '', '.', '..', 'a/./b', 'a/../b', '/a', 'a/', 'a b',
      'ü' * 3, 'a' * 256, '.lock', 'summary.json', 'report.html', 'figures',
      'x/checkpoints', 'evaluation/a', 'config.json', 'a\n',
    )),
    [good(), good()], [good('a'), good('a/b')], [good('a/b/c'), good('a/b')],
    [good(base={'seed': 0})], [good(base=None)], [good(base='digits')],
    [good(overrides=None)], [good(overrides=[1])], [good(overrides='x')],
    [good(overrides={'optim': {'lr': 1.0}})],
    [good(overrides={'optim.rate': 1.0})], [good(overrides={'seed': 'one'})],
    [good(overrides={5: 1})],
  ],
  ids=lambda arms: str(arms)[:60],
)  # fmt: skip
def test_arms_that_are_none_are_refused(arms):
  given = {'arms': arms}
  refused(lambda: sweep.arms(given))


def test_names_that_are_plain_are_taken():
  names = ['a', 'b/c', 'b/d', 'lr=0.1,batch=8/seed_0', 'ab']
  found = sweep.arms({'arms': [good(name) for name in names]})
  assert [arm.name for arm in found] == names


def test_a_sweep_does_not_go_into_the_folder_of_a_run(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  refused(lambda: sweep.run([], tmp_path, None), '--workdir')


@pytest.mark.parametrize(
  'address, said',
  [('nosuchhost', 'host:port'), ('host:', 'host:port'), (':80:', 'host:port'),
   ('127.0.0.1:1', '--patience=1')],
)  # fmt: skip
def test_a_coordinator_that_is_none_is_refused_in_time(address, said):
  join = lambda: dist.initialize(address, processes=2, process=1, patience=1)
  refused(join, '--coordinator', said)
