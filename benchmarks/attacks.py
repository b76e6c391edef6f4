"""What does an attack on maps cost, here and as a loop in PyTorch?

  python -m benchmarks.attacks --network cnn --method gradient --memory
  python -m benchmarks.attacks --network cnn --scaling
  python -m benchmarks.attacks --network cnn --points

All take the same signed steps down the top-k mass of a softplus surrogate
(β from 10 to 100; the network itself where it is smooth), judge every image by
map and label on the true network and keep the best. In PyTorch: 'loop', double
backward with create_graph=True on the whole batch, and 'func', torch.func.grad
of one image under vmap; integrated gradients take all points as one batch.
Before timing, a run in float64 must end at the same images. One call of each
in turn; compilation is left out. Ratios of one run mean something, times of two
runs do not.

On a busy machine --threads 1 is the fairer race: threads that wait spin, and
CPU seconds count that.

--memory adds the peak of each in its own process. --scaling and --points are
about ours alone: images a second against batch and image size, and memory
against the points of the path. The first needs torch and torch_twin's imports.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import turns
from benchmarks.curvature import NETWORKS, peak
from implicit_attr import attacks, attribution, models
from implicit_attr.attacks import balls
from implicit_attr.runtime import programs

EPS, K, BETAS = 8 / 255, 0.1, (10.0, 100.0)
SEED = 1


def module_of(args: argparse.Namespace):
  return models.build(args.network, **args.options)


def problem(args: argparse.Namespace) -> tuple:
  """(params, x [B, H, W, 3], predicted labels); random weights and images."""
  rng = np.random.default_rng(0)
  # Off the box: at a pixel of 0 the map of a path has a kink, and rounding
  # decides on which side of it a step begins.
  shape = args.images, args.size, args.size, 3
  x = jnp.asarray(rng.uniform(0.1, 0.9, shape), jnp.float32)
  module = module_of(args)
  params = jax.jit(module.init)(jax.random.key(0), x[:1])['params']
  # The logits of a fresh network are almost constant in x.
  params['logits']['kernel'] = params['logits']['kernel'] * 100
  predict = jax.jit(lambda x: module.apply({'params': params}, x)[0])
  return params, x, jnp.argmax(predict(x), -1)


def ours(args: argparse.Namespace) -> Callable:
  """(params, x, y) -> AttackResult, jitted."""
  module = module_of(args)
  rectified = getattr(module, 'activation', None) == 'relu'
  soft = module.clone(activation='softplus') if rectified else None
  method = attribution.METHODS[args.method]
  options = {}
  if args.method == 'integrated_gradients':
    options = {'steps': args.path, 'chunk': args.chunk}

  @jax.jit
  def run(params, x, y):
    apply_fn = lambda p, x: module.apply({'params': p}, x)

    def surrogate(x, y, beta):
      smooth = lambda p, x: soft.apply({'params': p}, x, beta=beta)
      return method(smooth, params, x, y, **options)

    return attacks.attack_attribution(
      jax.random.key(SEED),
      lambda x, y: method(apply_fn, params, x, y, **options),
      lambda x: apply_fn(params, x)[0], x, y, eps=EPS, k=K, steps=args.steps,
      objective='topk', rule='sign', restarts=1,
      surrogate=surrogate if soft else None, betas=BETAS,
    )  # fmt: skip

  return run


def start_of(x: jax.Array) -> np.ndarray:
  """Where ours begins: near x, see `attacks.search.descend`."""
  space = balls.ball(x, eps=EPS)
  key = jax.random.fold_in(jax.random.split(jax.random.key(SEED))[1], 0)
  far = balls.random_start(key, space)
  return np.asarray(balls.project(space, x + 0.01 * (far - x)))


def theirs(args: argparse.Namespace, *problem) -> dict[str, Callable]:
  """`attacks_torch.runs` on this machine's CPU."""
  import torch

  from benchmarks import attacks_torch

  torch.set_num_threads(args.threads)
  return attacks_torch.runs(args, *problem, start_of(problem[1]))


def agreement(args: argparse.Namespace) -> None:
  """Both end at the same images in float64, or this raises."""
  args = argparse.Namespace(**{**vars(args), 'images': 4, 'steps': 5})
  with jax.enable_x64(True):
    params, x, y = jax.tree.map(
      lambda a: a.astype(float) if a.dtype == jnp.float32 else a,
      problem(args),
    )
    result = ours(args)(params, x, y)
    from benchmarks import torch_twin

    want, _ = torch_twin.data(args.network, result.x_adv, y)
    for name, run in theirs(args, params, x, y).items():
      x_adv, score = run()
      np.testing.assert_allclose(score, result.score, atol=1e-6)
      # The sign of a gradient that is zero but for rounding is anyone's guess.
      share = float((abs(x_adv - want) > 1e-9).double().mean())
      assert share < 1e-3, (name, share)
      print(f'{name}: float64 scores equal, {share:.1e} of the pixels differ')


def child(args: argparse.Namespace, **changed) -> float:
  """Peak memory of one warm attack in a process of its own, MB."""
  options = {**vars(args), **changed}
  words = ('network', 'method', 'images', 'size', 'steps', 'path', 'chunk')
  words += ('threads',)
  command = [sys.executable, '-m', 'benchmarks.attacks']
  command += ['--peak', options['peak']]
  for word in words:
    if options[word] is not None:
      command += [f'--{word}', str(options[word])]
  out = subprocess.run(command, capture_output=True, text=True, check=True)
  return float(out.stdout.split()[-1])


def runner(args: argparse.Namespace, name: str) -> Callable[[], object]:
  params, x, y = problem(args)
  if name != 'ours':
    return theirs(args, params, x, y)[name]
  attack = ours(args)
  return lambda: jax.block_until_ready(attack(params, x, y))


def timed(args: argparse.Namespace, **changed) -> float:
  """Seconds of one warm attack of ours, the median of the rounds."""
  args = argparse.Namespace(**{**vars(args), **changed})
  run = runner(args, 'ours')
  run()
  times = turns.interleave({'ours': run}, args.rounds)
  return float(np.median(times['ours'][0]))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--network', choices=NETWORKS, default='cnn')
  parser.add_argument(
    '--method', default='gradient',
    choices=('gradient', 'integrated_gradients'),
  )  # fmt: skip
  parser.add_argument('--images', type=int, default=64)
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--steps', type=int, default=50)
  parser.add_argument('--path', type=int, default=16)
  parser.add_argument('--chunk', type=int)
  parser.add_argument('--threads', type=int, default=os.cpu_count())
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--memory', action='store_true')
  parser.add_argument('--scaling', action='store_true')
  parser.add_argument('--points', action='store_true')
  parser.add_argument('--peak', choices=('ours', 'loop', 'func'))
  args = parser.parse_args()
  args.options = NETWORKS[args.network][0]
  sys.stdout.reconfigure(line_buffering=True)
  if args.threads == 1:  # before jax looks
    os.environ['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false'
  if args.peak:
    run = runner(args, args.peak)
    return print(peak(lambda setting, seed: run(), None))
  programs.keep_memory()  # as in a run
  print(f'jax {jax.__version__}, {os.cpu_count()} cores, load', end=' ')
  print(*(f'{load:.1f}' for load in os.getloadavg()), vars(args))
  if args.scaling:
    for images, size in ((16, 32), (64, 32), (256, 32), (64, 16), (64, 64)):
      rate = images / timed(args, images=images, size=size)
      print(f'{images:4d} images of {size}²: {rate:6.1f} images/s')
    return None
  if args.points:
    for points in (16, 64, 256):
      found = child(
        args, peak='ours', method='integrated_gradients', path=points
      )
      print(f'{points:3d} points: peak {found:6.0f} MB')
    return None
  agreement(args)
  names = ('ours', 'loop', 'func')
  runs = {name: runner(args, name) for name in names}
  for run in runs.values():
    run()
  times = turns.interleave(runs, args.rounds)
  for name in names:
    wall, cpu = np.median(times[name], 1)
    more = np.median(times[name] / times['ours'], 1)
    text = f'{name:5s} wall {wall:7.3f} s ({more[0]:.2f}), CPU {cpu:7.3f} s'
    text += f' ({more[1]:.2f})'
    if args.memory:
      text += f', peak {child(args, peak=name):6.0f} MB'
    print(text)
  return None


if __name__ == '__main__':
  main()
