"""Is a step on eight devices the step on one, by jit and by pmap?"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
CODE = """
import sys, json
import jax, numpy as np
jax.config.update('jax_num_cpu_devices', int(sys.argv[1]))
from configs import digits_mlp
from implicit_attr import evaluation, experiment, loop, scoring, tracking
import pathlib, tempfile
config = digits_mlp.get_config('smoke')
config.data.batch_size = 16
config.parallel = sys.argv[2]
config.optim.momentum = 0.9
config.evaluation.attributions = ('gradient',)
e = experiment.build(config.to_dict())
state = e.mesh.replicate(e.init())
step = loop.make_train_step(e)
losses = []
for i in range(5):
  batch = e.mesh.split(e.train_set.batch_at(i))
  state, found = step(state, batch, e.learning_rates[i], np.uint32(0))
  losses.append(float(found['loss']))
scores = scoring.Scorer(e)(state)
tracker = tracking.Tracker(e, pathlib.Path(tempfile.mkdtemp()))
record, _ = tracker(0, state, e.mesh.replicate(tracker.memory(state.params)))
attack = evaluation.make_robustness(e)((state.params, state.model_state))
rows = [row for rows, _ in attack for row in rows]
print(json.dumps({
  'devices': jax.device_count(), 'losses': losses, 'scores': scores,
  'record': record,
  'attacked': {
    f'{row["attack"]}/{metric}': value['mean']
    for row in rows for metric, value in row['metrics'].items()
  },
  'params': [float(abs(p).sum()) for p in jax.tree.leaves(state.params)],
}))
"""


def run(devices, mode):
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', CODE, str(devices), mode],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def one():
  return run(1, 'jit')


@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_eight_devices_are_one(mode, one):
  eight = run(8, mode)
  assert eight['devices'] == 8
  for part in ('losses', 'params'):
    np.testing.assert_allclose(eight[part], one[part], rtol=2e-5)
  for part in ('scores', 'record', 'attacked'):
    for name, value in one[part].items():
      np.testing.assert_allclose(
        eight[part][name], value, rtol=2e-2, atol=1e-4, err_msg=name
      )
