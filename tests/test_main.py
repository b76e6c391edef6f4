"""Does the program do what its command line says, from start to report?

Everything runs as a user runs it: `python -m implicit_attr.main`, in a process
of its own, in a folder of its own.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(
  p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem != 'common'
)


def command(*args):
  return [sys.executable, '-m', 'implicit_attr.main', *map(str, args)]


def run(*args, **kwargs):
  return subprocess.run(
    command(*args), cwd=ROOT, capture_output=True, text=True, **kwargs
  )


def metrics(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def checkpoint(workdir, name='last'):
  """Every number of the newest checkpoint `name`, read by orbax itself."""
  import jax
  import orbax.checkpoint as ocp

  steps = [p for p in (workdir / 'checkpoints' / name).iterdir() if p.is_dir()]
  newest = max(steps, key=lambda p: int(p.name))
  tree = ocp.StandardCheckpointer().restore(newest / 'state')
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


OFTEN = ('digits_cnn', 'digits_mlp', 'digits_vit')  # others are run by hand


@pytest.mark.parametrize(
  'name',
  [
    name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow)
    for name in CONFIGS
  ],
)
def test_every_config_smokes_from_start_to_report(name, tmp_path):
  done = run('--config', f'configs/{name}.py:smoke', '--workdir', tmp_path)
  assert done.returncode == 0, done.stderr
  assert {p.name for p in tmp_path.iterdir()} >= {
    'config.json', 'metrics.jsonl', 'checkpoints', 'probes', 'evaluation',
    'figures', 'report.html', 'status.json',
  }  # fmt: skip
  lines = metrics(tmp_path)
  assert [line['step'] for line in lines] == [0, 5, 10, 15, 20]
  for key in (
    'eval/accuracy', 'param/lambda_max', 'param/trace_se', 'param/edge',
    'param/batch_sharpness', 'input/lambda_max', 'input_loss/grad_norm',
    'input/normalized_curvature', 'param/w1_norm', 'logit/margin',
  ):  # fmt: skip
    assert np.isfinite([line[key] for line in lines if key in line]).all()
    assert sum(key in line for line in lines) == 3, key
  found = json.loads((tmp_path / 'evaluation' / 'last.json').read_text())
  assert {row['attack'] for row in found['rows']} == {'border', 'random_sign'}
  for row in found['rows']:
    for metric in row['metrics'].values():
      assert metric['n'] == 0 or metric['low'] <= metric['mean']


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  """A finished run that others are compared with and continue from."""
  workdir = tmp_path_factory.mktemp('straight')
  done = run('--config', 'configs/digits_mlp.py:smoke', '--workdir', workdir)
  assert done.returncode == 0, done.stderr
  return workdir


def same(a, b):
  """The lines of two runs without what the clock wrote."""
  strip = lambda line: {k: v for k, v in line.items() if 'time/' not in k}
  return [strip(line) for line in a] == [strip(line) for line in b]


@pytest.mark.parametrize(
  'signum',  # test_kill kills without a warning, and more often
  [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)],
)
def test_a_killed_run_continues_to_the_same_bits_and_lines(
  signum, straight, tmp_path
):
  args = ('--config', 'configs/digits_mlp.py:smoke', '--workdir', tmp_path)
  # Slow every step down, so that the signal arrives in the middle.
  slow = f"""
import sys, time, runpy
from implicit_attr.data.source import Source
draws = Source.draws
Source.draws = lambda *a, **k: (time.sleep(0.15), draws(*a, **k))[1]
sys.argv = {command(*args)[2:]!r}
runpy.run_module('implicit_attr.main', run_name='__main__')
"""
  with subprocess.Popen(
    [sys.executable, '-c', slow], cwd=ROOT, stderr=subprocess.PIPE, text=True
  ) as child:
    file = tmp_path / 'metrics.jsonl'
    deadline = time.monotonic() + 120
    while not (file.exists() and len(file.read_text().splitlines()) >= 4):
      assert time.monotonic() < deadline
      assert child.poll() is None, child.stderr.read()
      time.sleep(0.02)
    child.send_signal(signum)
    said = child.communicate(timeout=120)[1]
  if signum == signal.SIGTERM:
    assert child.returncode == 143
    assert 'the same command goes on' in said
    assert (tmp_path / 'report.html').exists()
  done = run(*args)
  assert done.returncode == 0, done.stderr
  assert 'continuing from step' in done.stderr
  assert same(metrics(straight), metrics(tmp_path))
  for a, b in zip(checkpoint(straight), checkpoint(tmp_path), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_finished_run_is_evaluated_anew_with_other_settings(straight):
  before = json.loads((straight / 'evaluation' / 'last.json').read_text())
  done = run(
    '--mode', 'evaluate', '--workdir', straight,
    '--config', 'configs/digits_mlp.py:smoke', '--config.evaluation.eps=0',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  after = json.loads((straight / 'evaluation' / 'last.json').read_text())
  assert before['step'] == after['step'] == 20
  for row in after['rows']:  # eps = 0 is the identity
    assert all(m['mean'] == pytest.approx(1) for m in row['metrics'].values())


def test_report_mode_needs_the_files_of_a_run_and_nothing_else(straight):
  (straight / 'report.html').unlink()
  done = run('--mode', 'report', '--workdir', straight)
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == str(straight / 'report.html')
  assert (straight / 'report.html').exists()


def test_theory_mode_also_checks_the_network_of_a_run(straight, monkeypatch):
  from implicit_attr import theory
  from implicit_attr.evaluation import theory_on_run

  monkeypatch.setattr(theory, 'run', lambda workdir: 'all checks')
  text = theory_on_run.check(straight)
  assert text.startswith('all checks\n\nThe network of straight')
  assert 'FAIL' not in text and 'mean_hessian_bound' in text
  assert (straight / 'theory_network.json').exists()
  assert theory_on_run.check(None) == 'all checks'


def test_theory_is_shown_where_only_ascii_can_be(tmp_path):
  code = """
import sys
from implicit_attr import main, theory
theory.run = lambda workdir: 'λ_max ‖H‖'
sys.argv = ['main', '--mode=theory']
main._talk()
main.app.run(main._guarded, flags_parser=main._flags)
"""
  env = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, env=env, capture_output=True
  )
  assert done.returncode == 0, done.stderr
  assert rb'\u03bb_max' in done.stdout


def test_a_diverged_run_stops_says_where_and_keeps_what_is_good(tmp_path):
  done = run(
    '--config', 'configs/digits_mlp.py:smoke', '--workdir', tmp_path,
    '--config.optim.lr=1e20', '--config.loss.name=squared_error',
  )  # fmt: skip
  assert done.returncode == 3, done.stderr
  assert 'diverged at step' in done.stderr
  status = json.loads((tmp_path / 'status.json').read_text())
  assert status['status'] == 'diverged' and status['step'] <= 5
  assert all(np.isfinite(a).all() for a in checkpoint(tmp_path, 'rolling'))
  assert (tmp_path / 'report.html').exists()


SMOKE = ('--config', 'configs/digits_mlp.py:smoke')


@pytest.mark.parametrize(
  'args, said',
  [
    (('--config.optim.lrr=1',), 'did you mean "lr"'),
    (('--config.optim.lr=fast',), '--config.optim.lr=fast'),
    (('--config.optim.lr=-1',), 'optim.lr=-1'),
    (('--config.seed=-1',), 'seed=-1'),
    (('--config.data.name=digit',), "did you mean 'digits'"),
    (('--config.data.batch_size=5000',), 'data.batch_size=5000'),
    (('--config.data.data_dir=nowhere',), "data.data_dir='nowhere'"),
    (('--config.data.name=cifar10',), 'cifar10'),
    (('--config.model.name=mpl',), "did you mean 'mlp'"),
    (('--config.model.activation=rleu',), "did you mean 'relu'"),
    (('--config.model.beta=-2',), 'model.beta=-2'),
    (('--config.track.examples=100000',), 'track.examples=100000'),
    (('--config.track.draws=1',), 'track.draws=1'),
    (('--config.train.duration=long',), "train.duration='long'"),
    (('--config.evaluation.attributions=gradeint,',), "mean 'gradient'"),
    (('--config.evaluation.attributions=rollout',), 'a map of pixels'),
    (('--config.evaluation.eps=-0.1',), 'evaluation.eps=-0.1'),
    (('--config.objective.name=pdg',), "did you mean 'pgd'"),
    (('--config.loss.label_smoothing=2',), 'loss.label_smoothing=2'),
    (('--mode=trian',), "did you mean 'train'"),
    (('--flag_nobody_knows',), 'flag_nobody_knows'),
    (('--workdir=/proc/nothing/here',), '--workdir'),
    (('--config=configs/nothing.py',), 'configs/nothing.py'),
    (('--config=configs/digits_mlp.py:smok',), "'smok'"),
    (('--config=configs/digits_vit.py:smoke,attention=sofmax',), "'softmax'"),
    (('--mode=evaluate', '--workdir=nowhere'), 'config.json'),
    (('--mode=report', '--workdir=nowhere'), 'nowhere'),
  ],
  ids=lambda v: v[0] if isinstance(v, tuple) else '',
)
def test_bad_input_is_one_line_and_exit_status_2(args, said, tmp_path):
  given = SMOKE if not args[0].startswith('--config=') else ()
  if not any(a.startswith('--workdir') for a in args):
    given = (*given, '--workdir', tmp_path / 'run')
  done = run(*given, *args, env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == 2, done.stderr
  assert 'Traceback' not in done.stderr
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  assert len(lines) == 1 and said.lower() in lines[0].lower(), done.stderr
  assert not (tmp_path / 'run' / 'metrics.jsonl').exists()


def test_a_folder_of_another_config_is_refused_and_left_alone(straight):
  before = (straight / 'metrics.jsonl').read_bytes()
  done = run(*SMOKE, '--workdir', straight, '--config.optim.lr=0.7')
  assert done.returncode == 2
  assert 'optim.lr: 0.05 -> 0.7' in done.stderr
  assert (straight / 'metrics.jsonl').read_bytes() == before


def test_a_damaged_last_checkpoint_cannot_be_evaluated(straight, tmp_path):
  import shutil

  broken = tmp_path / 'broken'
  shutil.copytree(straight, broken)
  files = [p for p in (broken / 'checkpoints' / 'last').rglob('*')]
  big = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
  big.write_bytes(big.read_bytes()[:100])
  done = run('--mode', 'evaluate', '--workdir', broken)
  assert done.returncode == 2
  assert 'damaged' in done.stderr and 'Traceback' not in done.stderr
