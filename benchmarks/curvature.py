"""What does a curvature cost, here and in the libraries that also give it?

  python -m benchmarks.curvature --network cnn --jobs product lambda_max
  python -m benchmarks.curvature --network mlp --memory
  python -m benchmarks.curvature --loops

All work on the same weights and the same batch, one call of each in turn, so
that the load of the machine slows all of them. Compilation is left out. An
eigenvalue is right at a relative error of 1e-3 from every start that is timed:
each entry has a list of settings, cheapest first, and runs with the first that
is right. JAX's libraries get our network and one linearisation, the best that
their users can do. Ratios of one run mean something, times of two runs do not.

--memory adds the peak of each entry in its own process. --loops shows the fall
that our convolution avoids. All else needs torch, and takes pyhessian, matfree,
traceax, hessian-eigenthings and curvlinops-for-pytorch where they are.

'ours, coarse' is λ_max from a start that a quarter of the batch gives, six
products on it: a few lines of a user's, for six quarters of a product.
"""

import argparse
import ast
import ctypes
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import curvature_jax
from implicit_attr import curvature, models
from implicit_attr.models import conv
from implicit_attr.runtime import programs

NETWORKS = {  # name: (options, examples)
  'cnn': ({}, 256),
  'mlp': ({}, 256),
  'resnet8': ({'width': 8}, 128),
  'vit': ({'patch': 4, 'width': 64, 'depth': 2, 'heads': 4}, 64),
}
JOBS = ('gradient', 'product', 'shared', 'lambda_max', 'trace', 'input')
RIGHT, DRAWS, IMAGES, MANY, ORDER, PATIENCE = 1e-3, 30, 64, 11, 20, 60.0


def problem(
  network: str, batch: int, options: dict | None = None
) -> tuple[Callable, tuple]:
  """(losses(params, x, y) -> [B], (params, x, y)).

  Ten noisy patterns are learned for a few steps: at the start there is hardly
  a spectrum to see. The network has the options of `NETWORKS` or these.
  """
  if options is None:
    options = NETWORKS[network][0]
  module = models.build(network, **options)
  rng = np.random.default_rng(0)
  y = rng.integers(10, size=batch)
  x = 0.5 + 0.1 * rng.normal(size=(10, 32, 32, 3))[y]
  x = np.clip(x + 0.2 * rng.normal(size=x.shape), 0, 1).astype(np.float32)

  def losses(params, x, y):
    logits, _ = module.apply({'params': params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)

  @jax.jit
  def start(key, x, y):
    params = module.init(key, x)['params']
    grad = jax.grad(lambda p: losses(p, x, y).mean())
    step = lambda _, p: jax.tree.map(lambda p, g: p - 0.02 * g, p, grad(p))
    return lax.fori_loop(0, 30, step, params)

  return losses, (start(jax.random.key(0), x, y), jnp.array(x), jnp.array(y))


def compiled(fun: Callable, args: tuple) -> Callable:
  """(setting, seed) -> fun(key, setting, *args), compiled in the first call."""
  jitted = jax.jit(fun)

  def run(setting, seed):
    setting = np.float32(0 if setting is None else setting)
    out = jitted(jax.random.key(seed), setting, *args)
    return jax.block_until_ready(out)

  return run


def unset(fun: Callable) -> Callable:
  """fun(key, *args) as `compiled` wants it: without a setting to look at."""
  return lambda key, _, *args: fun(key, *args)


def by_steps(make: Callable, args: tuple) -> Callable:
  """run(steps, seed) of make(steps), each compiled once."""
  runs = {}

  def run(steps, seed):
    if steps not in runs:
      runs[steps] = compiled(unset(make(steps)), args)
    return runs[steps](None, seed)

  return run


def ours(job: str, losses: Callable) -> tuple[Callable, tuple]:
  """(fun(key, setting, params, x, y), the settings from cheap to dear).

  A product also takes the direction. A λ_max comes with the products that it
  took, the trace with its standard error.
  """

  def at(x, y):
    return lambda params: losses(params, x, y).mean()

  def gradient(key, setting, params, x, y):
    return jax.grad(at(x, y))(params)

  def product(key, setting, params, x, y, v):
    # `v` are the parameters again, but XLA must not know: for that direction a
    # product has twins, and it leaves out up to a third of the work.
    return curvature.hvp(at(x, y), params, v)

  def shared(key, setting, params, x, y):
    mvp = curvature.linearize_hvp(at(x, y), params)
    body = lambda _, v: optax.tree.scale(1 / optax.tree.norm(v), mvp(v))
    return lax.fori_loop(0, setting.astype(int), body, params)

  def lambda_max(key, tol, params, x, y):
    grad, mvp = curvature.grad_and_hvp(at(x, y), params)
    pairs = curvature.eigenpairs(mvp, grad, order=ORDER, tol=tol)
    return pairs.values[0], pairs.products

  def coarse(key, tol, params, x, y):
    grad, quarter = curvature.grad_and_hvp(at(x[::4], y[::4]), params)
    near = curvature.top_eigenpairs(quarter, grad, order=6)[1]
    v0 = jax.tree.map(lambda leaf: leaf[0], near)
    mvp = curvature.linearize_hvp(at(x, y), params)
    pairs = curvature.eigenpairs(mvp, v0, order=ORDER, tol=tol)
    return pairs.values[0], pairs.products

  def trace(key, setting, params, x, y):
    return curvature.hessian_trace(at(x, y), params, key, draws=DRAWS)

  def input_lambda(key, tol, params, x, y):
    _, mvp = curvature.per_example(lambda x: losses(params, x, y), x)
    v0 = jax.random.normal(key, x.shape)
    pairs = curvature.per_example_eigenpairs(mvp, v0, order=ORDER, tol=tol)
    return pairs.values, pairs.products

  fun = {'input': input_lambda}.get(job) or locals()[job]
  tols = (0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 3e-3, 1e-3)
  settings = tols if job in ('lambda_max', 'coarse', 'input') else (None,)
  return fun, settings


def entries(job: str, losses: Callable, args: tuple, t: Any) -> dict:
  """{library: (run(setting, seed), settings)}, ours first."""
  from benchmarks import curvature_peers as peers

  def own(job):
    fun, settings = ours(job, losses)
    given = args
    if job == 'input':
      given = args[0], *(a[:IMAGES] for a in args[1:])
    elif job == 'product':
      given = *args, args[0]
    run = compiled(fun, given)
    if job in ('lambda_max', 'coarse', 'trace', 'input'):
      return lambda setting, seed: run(setting, seed)[0], settings
    return run, settings

  mean, runs = lambda *a: losses(*a).mean(), {'ours': own(job)}
  if job in ('product', 'shared'):
    runs['our gradient'] = own('gradient')
  if job in ('gradient', 'product', 'shared'):
    return runs | getattr(peers, job)(t)
  if job == 'lambda_max':
    runs['ours, coarse'] = own('coarse')
    runs |= peers.lambda_max(t)
    for name, make in curvature_jax.lambda_max(mean).items():
      runs[name] = by_steps(make, args), curvature_jax.STEPS
    return runs
  if job == 'trace':
    runs |= peers.trace(t, DRAWS)
    for name, fun in curvature_jax.trace(mean, DRAWS).items():
      runs[name] = compiled(unset(fun), args), (None,)
    return runs
  return runs | peers.input_lambda(t, IMAGES)


def reference(job: str, t: Any) -> np.ndarray | None:
  """The converged value, from PyTorch's products."""
  from benchmarks import curvature_peers as peers

  if job == 'lambda_max':
    return peers.scipy_top(t.retained(), t.size, 20, 1e-6, 99)
  if job == 'input':
    return peers.input_lambda(t, IMAGES)['torch'].run(40, 99)
  return None


def error(value: Any, wanted: Any) -> float:
  """Largest relative difference; 0 where nothing is wanted."""
  if wanted is None:
    return 0.0
  return float(np.max(np.abs(np.asarray(value) / wanted - 1)))


def settle(run: Callable, settings: tuple, wanted: Any, seeds: range) -> Any:
  """The first setting that is right from every start.

  Where none is, or none was found in `PATIENCE` seconds, the last one tried.
  """
  end = time.perf_counter() + PATIENCE
  for setting in settings:
    right = all(error(run(setting, s), wanted) <= RIGHT for s in seeds)
    if right or time.perf_counter() > end:
      break
  return setting


def timed(run: Callable, setting: Any, seed: int) -> tuple:
  """(CPU and wall seconds, what came out)."""
  time.sleep(0.02)  # lets the other library's idle threads go to sleep
  wall, cpu = time.perf_counter(), time.process_time()
  value = run(setting, seed)
  return time.process_time() - cpu, time.perf_counter() - wall, value


def table(job: str, losses: Callable, args: tuple, t: Any, rounds: int) -> dict:
  """Prints one job's table; {library: the setting it ran with}."""
  wanted, seeds = reference(job, t), range(rounds)
  runs = entries(job, losses, args, t)
  if job == 'shared':
    runs = {name: (run, (MANY,)) for name, (run, _) in runs.items()}
  chosen = {
    name: settle(run, settings, wanted, seeds[:1] if wanted is None else seeds)
    for name, (run, settings) in runs.items()
  }
  spent, values = {}, {}
  for seed in seeds:
    for name, (run, _) in runs.items():
      cpu, wall, value = timed(run, chosen[name], seed)
      if job == 'shared' and 'gradient' not in name:
        first = timed(run, 1, seed)
        cpu = (cpu - first[0]) / (MANY - 1)
        wall = (wall - first[1]) / (MANY - 1)
      spent.setdefault(name, []).append((cpu, wall))
      values.setdefault(name, []).append(value)
  times = {name: np.median(s, 0) for name, s in spent.items()}
  theirs = [v for k, v in times.items() if not k.startswith('our')]
  best = np.min(theirs, 0)
  if job == 'trace':
    wanted = np.mean(list(values.values()))
  print(f'\n{job:20s} setting  CPU ms (best/it)  wall ms (best/it)  error')
  for name, (cpu, wall) in times.items():
    off = max(error(value, wanted) for value in values[name])
    print(
      f'{name:20s} {chosen[name]!s:7s} {cpu * 1e3:8.1f} ({best[0] / cpu:5.2f})'
      f' {wall * 1e3:9.1f} ({best[1] / wall:5.2f})   {off:.0e}'
      + ('  WRONG' if job != 'trace' and off > RIGHT else '')
    )
  if 'our gradient' in times:
    cpu, wall = times['ours'] / times['our gradient']
    print(f'ours in gradients: CPU {cpu:.2f}, wall {wall:.2f}')
  return chosen


def peak(run: Callable, setting: Any) -> float:
  """MB by which one warm run raises this process's memory at its height."""

  def status(field: str) -> float:
    text = pathlib.Path('/proc/self/status').read_text()
    return float(text.split(field + ':')[1].split()[0]) / 1e3

  run(setting, 0)
  ctypes.CDLL(None).malloc_trim(0)
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # resets the height
  before = status('VmRSS')
  run(setting, 1)
  return status('VmHWM') - before


def loops(batch: int) -> None:
  """Ten Lanczos steps with our convolution and with JAX's."""
  losses, args = problem('cnn', batch)

  def steps(key, _, params, x, y):
    grad, mvp = curvature.grad_and_hvp(lambda p: losses(p, x, y).mean(), params)
    return curvature.lanczos(mvp, grad, 10)[0]

  def plain(x, w, stride=1):
    return lax.conv_general_dilated(
      x, w, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  runs = {'conv2d': compiled(steps, args)}
  runs['conv2d'](None, 0)
  with mock.patch.object(conv, 'conv2d', plain):  # while it is traced
    runs['lax.conv'] = compiled(lambda *a: steps(*a), args)
    runs['lax.conv'](None, 0)
  for name, run in runs.items():
    cpu, wall, _ = timed(run, None, 0)
    print(f'{name:10s} CPU {cpu:6.2f} s, wall {wall:6.2f} s')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--network', choices=NETWORKS, default='cnn')
  parser.add_argument('--jobs', choices=JOBS, nargs='+', default=JOBS)
  parser.add_argument('--batch', type=int)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--loops', action='store_true')
  parser.add_argument('--memory', action='store_true')
  parser.add_argument('--peak', nargs=2, help='library and setting, of one job')
  args = parser.parse_args()
  sys.stdout.reconfigure(line_buffering=True)
  batch = args.batch or NETWORKS[args.network][1]
  if not args.peak:
    programs.keep_memory()  # as in a run
    print(f'jax {jax.__version__}, {os.cpu_count()} cores, load', end=' ')
    print(*(f'{load:.1f}' for load in os.getloadavg()), vars(args))
  if args.loops:
    return loops(batch)
  import torch

  from benchmarks import torch_twin

  torch.set_num_threads(os.cpu_count())
  losses, at = problem(args.network, batch)
  twin = torch_twin.Twin(args.network, at[0], NETWORKS[args.network][0])
  t = torch_twin.Torch(twin, *torch_twin.data(args.network, *at[1:]))
  gap = error(t.loss(*t.params).item(), losses(*at).mean())
  assert gap <= 1e-5, f'the two networks differ by {gap:.1e}'
  if args.peak:
    name, setting = args.peak
    run, _ = entries(args.jobs[0], losses, at, t)[name]
    return print(peak(run, ast.literal_eval(setting)))
  print('not installed:', *curvature_jax.missing() or ['nothing'])
  print(f'{t.size} parameters, {batch} images, losses agree to {gap:.0e}')
  for job in args.jobs:
    chosen = table(job, losses, at, t, args.rounds)
    for name, setting in chosen.items() if args.memory else ():
      out = subprocess.run(
        [sys.executable, '-m', 'benchmarks.curvature', '--jobs', job]
        + ['--network', args.network, '--batch', str(batch)]
        + ['--peak', name, str(setting)],
        capture_output=True, text=True, check=True,
      )  # fmt: skip
      print(f'{name:20s} peak {float(out.stdout.split()[-1]):7.0f} MB')


if __name__ == '__main__':
  main()
