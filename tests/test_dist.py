"""Is a step on eight devices, or in two processes, the step on one?

Every variant is a process (or two) of its own that writes down what it found:
training, Hessian products, λ_max, trace, input curvature and an attack, all of
them in float64, where rounding cannot hide a sum that is missing or doubled.
"""

import json
import os
import pathlib
import random
import socket
import subprocess
import sys

import numpy as np
import pytest

from implicit_attr import errors
from implicit_attr.runtime import dist

ROOT = pathlib.Path(__file__).parent.parent
CODE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
devices, mode, address, processes, process = sys.argv[1:]
jax.config.update('jax_num_cpu_devices', int(devices))
from implicit_attr.runtime import dist
if address == 'SLURM':
  dist.initialize()
elif address:
  dist.initialize(address, int(processes), int(process))
from implicit_attr.configs import digits_mlp
from implicit_attr import attacks, attribution, curvature, data, keys, probes
from implicit_attr import train
from implicit_attr.runtime import programs
from implicit_attr.train import advance, experiment, loop

programs.set_effort('quick')
config = digits_mlp.get_config('smoke')
config.parallel = mode
config.model.widths = (8,)
config.optim.momentum = 0.9
e = experiment.build(config.to_dict())
source = data.load('digits', 'train', batch_size=16, shard=e.mesh.shard)
assert len(source.batch_at(0)['label']) * e.mesh.shard[1] == 16
found = {'devices': jax.device_count()}

def training(dtype):
  cast = lambda t: jax.tree.map(
    lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a,
    jax.device_get(t),
  )
  state = e.mesh.replicate(cast(e.init()))
  step, losses = advance.make_train_step(e), []
  if mode == 'jit':
    step = jax.jit(step, out_shardings=e.mesh.whole)
  for i in range(5):
    batch = e.mesh.join(cast(source.batch_at(i)))
    state, sums = step(state, batch, e.learning_rates[i], np.uint32(0))
    losses.append(float(sums['loss']))
  return losses, state, cast

losses, _, _ = training(np.float32)
found['float32'] = losses
jax.config.update('jax_enable_x64', True)
losses, state, cast = training(np.float64)
found['loss'] = losses
found['params'] = [
  np.asarray(jax.device_get(p)).ravel().tolist()
  for p in jax.tree.leaves(state.params)
]

def measure(params, batch):
  apply_fn = train.frozen(e.module, {})
  x, y = batch['image'], batch['label']
  mean = lambda p: jnp.mean(e.loss(apply_fn(p, x)[0], y))
  start = jax.tree.map(jnp.cos, params)
  key = keys.stream(0, 'test')
  curved, _ = probes.parameter_curvature(
    apply_fn, e.loss, params, batch, start, key, order=4, tol=0.0, draws=2
  )
  inputs, _ = probes.input_curvature(
    apply_fn, e.loss, params, batch, key, order=4, tol=0.0
  )
  attack = attacks.attack_attribution(
    key, lambda x, y: attribution.METHODS['gradient'](apply_fn, params, x, y),
    lambda x: apply_fn(params, x)[0], x, y, eps=0.05, k=0.1, steps=4,
    restarts=1,
  )
  return {
    'grad': jax.grad(mean)(params),
    'hvp': curvature.hvp(mean, params, start),
    'lambda_max': curved['param/lambda_max'],
    'trace': curved['param/trace'],
    'input_lambda': inputs['input/lambda_max'],
    'x_adv': attack.x_adv,
  }

if mode == 'jit':
  batch = e.mesh.split(cast(e.probe_batch(32)))
  for name, value in e.mesh.fetch(
    jax.jit(measure)(state.params, batch)
  ).items():
    flat = [np.ravel(a) for a in jax.tree.leaves(value)]
    found[name] = np.concatenate(flat).tolist()
if e.mesh.shard[0] == 0:
  print(json.dumps(found))
"""


def free_port(port: int = 0) -> int:
  """`port`, or one after it, that nobody listens on; 0 is any."""
  with socket.socket() as s:
    try:
      s.bind(('127.0.0.1', port))
    except OSError:
      return free_port(port + 1)
    return s.getsockname()[1]


def slurm(processes: int) -> list[dict[str, str]]:
  """The variables of a job step here; JAX makes a port of the job's number."""
  port = free_port(random.randrange(65536 - 4096, 65536))
  return [
    {
      'SLURM_JOB_ID': str(port - (65536 - 4096)),
      'SLURM_STEP_NODELIST': 'localhost',
      'SLURM_NTASKS': str(processes),
      'SLURM_PROCID': str(i),
      'SLURM_LOCALID': str(i),
    }
    for i in range(processes)
  ]


def run(devices: int, mode: str = 'jit', processes: int = 1):
  """What process 0 of a run on processes × devices found."""
  address = 'SLURM' if processes > 1 else ''
  variables = slurm(processes) if address else [{}]
  children = [
    subprocess.Popen(
      [sys.executable, '-W', 'error', '-c', CODE]
      + [str(a) for a in (devices, mode, address, processes, i)],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      env={**os.environ, **variables[i]},
    )
    for i in range(processes)
  ]  # fmt: skip
  said = [child.communicate(timeout=400) for child in children]
  assert [c.returncode for c in children] == [0] * processes, said[0][1]
  return json.loads(said[0][0].splitlines()[-1])


@pytest.fixture(scope='module')
def one():
  return run(1)


@pytest.mark.parametrize(
  'devices, mode, processes',
  [(8, 'jit', 1), (8, 'pmap', 1), (4, 'jit', 2)],
  ids=['8 devices', 'pmap', '2 processes'],
)
def test_many_devices_are_one(devices, mode, processes, one):
  many = run(devices, mode, processes)
  assert many.pop('devices') == 8
  assert set(many) >= {'float32', 'loss', 'params'}
  if mode == 'jit':
    assert set(many) == set(one) - {'devices'}
  np.testing.assert_allclose(
    many.pop('float32'), one['float32'], rtol=1e-5, err_msg='float32'
  )
  for name, value in many.items():
    value = [value] if name != 'params' else value
    wanted = [one[name]] if name != 'params' else one[name]
    for a, b in zip(value, wanted, strict=True):
      scale = np.max(np.abs(b))
      np.testing.assert_allclose(
        a, b, rtol=1e-12, atol=1e-12 * scale, err_msg=name
      )


def test_a_whole_run_with_pmap_is_that_with_jit(tmp_path):
  losses = {}
  for mode in ('jit', 'pmap'):
    args = [
      sys.executable, '-m', 'implicit_attr.main',
      '--config=configs/digits_mlp.py:smoke', f'--workdir={tmp_path / mode}',
      f'--config.parallel={mode}', '--config.track.every=never',
    ]  # fmt: skip
    env = {**os.environ, 'JAX_NUM_CPU_DEVICES': '4'}
    done = subprocess.run(args, cwd=ROOT, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / mode / 'metrics.jsonl').read_text()
    lines = map(json.loads, text.splitlines())
    losses[mode] = [line['train/loss'] for line in lines if line['step']]
  assert len(losses['jit']) == 4
  np.testing.assert_allclose(losses['pmap'], losses['jit'], rtol=1e-5)


def test_several_processes_take_jit_only(monkeypatch):
  monkeypatch.setattr(dist.jax, 'process_count', lambda: 2)
  with pytest.raises(errors.InputError, match="parallel='pmap'"):
    dist.mesh('pmap')


def test_half_of_an_address_is_refused_in_one_line():
  with pytest.raises(errors.InputError, match='--processes, --process') as e:
    dist.initialize('127.0.0.1:1')
  assert '\n' not in str(e.value)


def test_no_cluster_is_one_line():
  code = 'from implicit_attr.runtime import dist; dist.initialize()'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  last = done.stderr.strip().splitlines()[-1]
  assert 'InputError: --distributed found no run to join' in last
