"""Does a run that is killed again and again end as if it never had been?

Real runs of the program, each a process of its own that gets kill -9 at a
random time, every other one inside a save. The processes are forked from one
that has done the imports, which are most of a short run.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = pathlib.Path(__file__).parent.parent

SERVER = """
import json, os, runpy, sys, warnings
warnings.simplefilter('ignore')  # JAX warns of forks; no backend is up yet
from ml_collections import config_flags
from implicit_attr.configs import digits_mlp
from implicit_attr import report, run
import sklearn.datasets, matplotlib.figure
for line in sys.stdin:
  if not (child := os.fork()):
    sys.argv = ['main', *json.loads(line)]
    os.dup2(2, 1)
    try:
      runpy.run_module('implicit_attr.main', run_name='__main__')
    except SystemExit as e:
      os._exit(e.code or 0)
    os._exit(1)
  print(child, flush=True)
  print(os.waitpid(child, 0)[1], flush=True)
"""


class Runs:
  """Starts runs of a tiny network in folders of their own."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    self._said = (root / 'said').open('w')
    self._server = subprocess.Popen(
      [sys.executable, '-c', SERVER],
      cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
      stderr=self._said,
    )  # fmt: skip

  def start(self, name: str) -> int:
    """Starts or continues the run `name`; its process id."""
    args = [
      '--config=configs/digits_mlp.py:smoke',
      f'--workdir={self.root / name}',
      f'--compilation_cache={self.root / "compiled"}',
      '--config.train.duration=40 steps',
      '--config.train.log_every=1 steps',
      '--config.train.eval_every=15 steps',
      '--config.track.every=never',
      '--config.track.cheap_every=15 steps',
      '--config.track.order=2',
      '--config.checkpoint.every=2 steps',
      "--config.evaluation.attributions=('gradient',)",
      '--config.evaluation.steps=1',
      '--config.model.widths=(16,)',
      '--config.optim.average=0.9',
    ]
    self._server.stdin.write(json.dumps(args) + '\n')
    self._server.stdin.flush()
    return int(self._server.stdout.readline())

  def wait(self) -> int:
    """The wait status of what was started last."""
    return int(self._server.stdout.readline())

  def close(self) -> None:
    self._server.stdin.close()
    self._server.stdout.close()
    self._server.wait()
    self._said.close()


def saving(workdir: pathlib.Path) -> bool:
  """True if a save of a checkpoint is going on, or was cut off."""
  folder = workdir / 'checkpoints' / 'rolling'
  return any(folder.glob('*orbax-checkpoint-tmp*'))


def lines(workdir: pathlib.Path) -> list[dict]:
  """metrics.jsonl without what the clock wrote."""
  text = (workdir / 'metrics.jsonl').read_text()
  found = [json.loads(line) for line in text.splitlines()]
  return [
    {k: v for k, v in line.items() if not k.startswith('time/')}
    for line in found
  ]


def last(workdir: pathlib.Path) -> list[np.ndarray]:
  """Every number of the last checkpoint, read by orbax itself."""
  folder = workdir / 'checkpoints' / 'last' / '40' / 'state'
  tree = ocp.StandardCheckpointer().restore(folder)
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def kill_until_done(runs: Runs, kills: int, draw: random.Random) -> int:
  """Kills the run 'killed' `kills` times; how often inside a save."""
  workdir, inside, killed = runs.root / 'killed', 0, 0
  for turn in range(kills):
    child = runs.start('killed')
    file = workdir / 'metrics.jsonl'
    before = file.stat().st_size if file.exists() else 0
    # Some are killed while they start, most once they have gone on a little.
    patience = time.monotonic() + draw.choice([0.3, 60, 60, 60])
    while time.monotonic() < patience:
      if file.exists() and file.stat().st_size not in (0, before):
        break
      time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.2))
    if turn % 2:
      limit = time.monotonic() + 5
      while not saving(workdir) and time.monotonic() < limit:
        time.sleep(0.0005)
    # On a fast machine a run may end before its kill, and is done again.
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, signal.SIGKILL)
    status = runs.wait()
    assert status in (0, signal.SIGKILL), (runs.root / 'said').read_text()
    killed += status == signal.SIGKILL
    inside += saving(workdir)
  assert killed >= 2, 'the runs ended before they were killed'
  runs.start('killed')
  assert runs.wait() == 0, (runs.root / 'said').read_text()[-2000:]
  return inside


@pytest.mark.parametrize('kills', [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bits_and_every_line(kills, tmp_path):
  runs = Runs(tmp_path)
  try:
    runs.start('straight')
    assert runs.wait() == 0, (tmp_path / 'said').read_text()[-2000:]
    inside = kill_until_done(runs, kills, random.Random(kills))
  finally:
    runs.close()
  assert inside >= kills // 5
  straight, killed = tmp_path / 'straight', tmp_path / 'killed'
  assert [line['step'] for line in lines(killed)] == list(range(41))
  assert lines(killed) == lines(straight)
  for a, b in zip(last(straight), last(killed), strict=True):
    np.testing.assert_array_equal(a, b)
  for name in ('evaluation/last.json', 'status.json'):
    assert (killed / name).read_text() == (straight / name).read_text()
