"""Do two processes train, lose one, start again, and end as one would?"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.test_dist import free_port

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 60


def start(workdir, process=None, port=None):
  """One process of two with four devices each; or one with all eight."""
  args = [
    sys.executable, '-m', 'implicit_attr.main',
    '--config=configs/digits_mlp.py:smoke', f'--workdir={workdir}',
    '--compilation_cache=', '--config.model.widths=(8,)',
    f'--config.train.duration={STEPS} steps',
    '--config.train.log_every=1 steps', '--config.train.eval_every=20 steps',
    '--config.track.every=30 steps', '--config.checkpoint.every=5 steps',
    "--config.evaluation.attributions=('gradient',)",
    '--config.evaluation.steps=1',
  ]  # fmt: skip
  if port:
    args += [
      '--distributed', f'--coordinator=127.0.0.1:{port}', '--processes=2',
      f'--process={process}',
    ]  # fmt: skip
  env = {**os.environ, 'JAX_NUM_CPU_DEVICES': '4' if port else '8'}
  with open(f'{workdir}-{process}', 'w') as said:
    return subprocess.Popen(args, cwd=ROOT, env=env, stderr=said, stdout=said)


def both(workdir):
  port = free_port()
  return [start(workdir, i, port) for i in range(2)]


def lines(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def reach(workdir, step, children):
  limit = time.monotonic() + 150
  file = workdir / 'metrics.jsonl'
  while not file.exists() or len(lines(workdir)) <= step:
    assert time.monotonic() < limit
    assert [c.poll() for c in children] == [None] * len(children)
    time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_killed_and_stopped_end_as_one(tmp_path):
  two, one = tmp_path / 'two', tmp_path / 'one'
  children = both(two)
  reach(two, 12, children)
  children[1].send_signal(signal.SIGKILL)
  children[1].wait()
  children[0].send_signal(signal.SIGKILL)  # the first waits for it in vain
  children[0].wait()
  children = both(two)
  reach(two, 30, children)
  children[1].send_signal(signal.SIGTERM)  # one is told, both stop
  assert [c.wait(timeout=150) for c in children] == [143, 143]
  assert 'continuing from step' in (tmp_path / 'two-0').read_text()
  assert [c.wait(timeout=150) for c in both(two)] == [0, 0]
  assert 'continuing from step' in (tmp_path / 'two-0').read_text()
  # Nothing but warnings from the second: the first says and writes it all.
  said = (tmp_path / 'two-1').read_text()
  assert 'first step' not in said and 'report.html' not in said
  assert start(one).wait() == 0
  assert [line['step'] for line in lines(two)] == list(range(STEPS + 1))
  for a, b in zip(lines(one), lines(two), strict=True):
    assert set(a) == set(b)
    for name in a:
      if not name.startswith('time/'):
        assert b[name] == pytest.approx(a[name], rel=2e-3, abs=1e-4), name
  read = lambda w: json.loads((w / 'evaluation' / 'last.json').read_text())
  assert read(one)['clean']['n'] == read(two)['clean']['n']
  for name in ('probes/00000030.npz', 'report.html', 'status.json'):
    assert (two / name).exists()
