"""What does one training gradient of every objective cost, in plain ones?

  python -m benchmarks.objectives
  python -m benchmarks.objectives --steps 7 --points 8 --only pgd,igr

All on one small softplus CNN with random weights and images. Time: one call of
each in turn, the median of the rounds, compilation left out; ratios of one run
mean something, times of two runs do not. Work: the floating-point operations
XLA counts in the compiled program, with loops unrolled since it counts a loop's
body once. Floor: the passes that the method cannot do without, in operations of
the passes themselves, measured the same way:

  P  plain gradient in the parameters (1 by definition)   F  forward
  G  forward and gradient in the image
  D  parameter gradient of loss and a squared input gradient
  S  gradient in the image of a squared input gradient
  V  one more product with a linearised input Hessian
  T  parameter gradient of loss and a squared Hessian product

K steps of a walk, m points of a path, n of one inside a walk, C classes, N
iterations.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import losses, models, objectives, train
from implicit_attr.objectives import input_derivatives
from implicit_attr.runtime import programs

LOSS = losses.make('cross_entropy')
CLASSES = 10


def rows(steps: int, points: int, inner: int) -> list[tuple]:
  """(label, objective, options, passes, floor from the cost of each pass)."""
  k, m, n = steps, points, inner
  walk = {'steps': k}
  path = {'points': m, 'inner_points': n, **walk}
  ig = 'K n S + m D', lambda u: k * n * u['S'] + m * u['D']
  aat = 'K S + 2 D', lambda u: k * u['S'] + 2 * u['D']
  scorpio = lambda its: (
    'N G + 2 D', lambda u: its * u['G'] + 2 * u['D']
  )  # fmt: skip
  return [
    ('none', 'none', {}, 'P', lambda u: 1),
    ('mixup', 'mixup', {}, 'P', lambda u: 1),
    ('sam', 'sam', {}, '2 P', lambda u: 2),
    ('gradient_penalty', 'gradient_penalty', {}, 'D', lambda u: u['D']),
    ('gradient_alignment', 'gradient_alignment', {}, 'G + D',
     lambda u: u['G'] + u['D']),
    ('hessian_penalty', 'hessian_penalty', {}, 'T', lambda u: u['T']),
    ('hessian_penalty fd', 'hessian_penalty', {'hvp': 'fd'}, '2 D',
     lambda u: 2 * u['D']),
    ('cure fd', 'cure', {}, '2 D', lambda u: 2 * u['D']),
    ('cure exact', 'cure', {'hvp': 'exact'}, 'T', lambda u: u['T']),
    ('ssr', 'ssr', {}, 'C (G - F) + D',
     lambda u: CLASSES * (u['G'] - u['F']) + u['D']),
    *(
      (f'scorpio fd N={i}', 'scorpio', {'iterations': i}, *scorpio(i))
      for i in (1, 3)
    ),
    ('scorpio exact N=3', 'scorpio', {'hvp': 'exact'}, 'G + (N-1) V + T',
     lambda u: u['G'] + 2 * u['V'] + u['T']),
    ('llr', 'llr', walk, '(K+1) G + D + P',
     lambda u: (k + 1) * u['G'] + u['D'] + 1),
    ('fgsm', 'fgsm', {}, 'G + P', lambda u: u['G'] + 1),
    ('pgd', 'pgd', walk, 'K G + P', lambda u: k * u['G'] + 1),
    ('trades', 'trades', walk, 'K G + 2 P', lambda u: k * u['G'] + 2),
    ('igr', 'igr', {'points': m, **walk}, 'K G + 2 m D',
     lambda u: k * u['G'] + 2 * m * u['D']),
    ('art', 'art', {**walk, 'k': 100}, '2 K S + 4 D',
     lambda u: 2 * k * u['S'] + 4 * u['D']),
    ('aat', 'aat', walk, *aat),
    ('adv_aat', 'adv_aat', walk, *aat),
    ('ig_norm', 'ig_norm', path, *ig),
    ('ig_sum_norm', 'ig_sum_norm', path, *ig),
  ]  # fmt: skip


def problem(batch: int, size: int) -> tuple:
  """(apply_fn, params, batch of images) with random weights."""
  module = models.build(
    'cnn', width=8, depth=2, hidden=32, activation='softplus', beta=10.0
  )
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.uniform(0, 1, (batch, size, size, 1)), jnp.float32)
  y = jnp.asarray(rng.integers(0, CLASSES, batch), jnp.int32)
  params = jax.jit(module.init)(jax.random.key(0), x[:1])['params']
  # The logits of a fresh network are almost constant in x.
  params['logits']['kernel'] = params['logits']['kernel'] * 100
  return train.frozen(module, {}), params, {'image': x, 'label': y}


def gradient(apply_fn, name: str, options: dict) -> Callable:
  """(params, batch, key) -> parameter gradient of the mean loss."""
  weight = None if name != 'none' else 0.0
  make = objectives.make(name, LOSS, weight=weight, options=options)

  def mean(params, batch, key):
    return jnp.mean(make(apply_fn)(params, batch, key)[0])

  return jax.grad(mean)


def work(fun: Callable, *args) -> float:
  """Operations of the compiled `fun`, every loop unrolled."""
  scan = functools.partial(jax.lax.scan, unroll=True)
  unrolled = lambda f, xs: scan(lambda _, x: (None, f(x)), None, xs)[1]
  with mock.patch.multiple(jax.lax, scan=scan, map=unrolled):
    found = jax.jit(fun).lower(*args).compile().cost_analysis()
  return found['flops']


def passes(apply_fn, params, batch, key) -> dict[str, float]:
  """Operations of each pass."""
  x, y = batch['image'], batch['label']
  field = input_derivatives.field(apply_fn, LOSS, params, y)
  slope = lambda x: input_derivatives.slope(field)(x)[0]
  square = lambda x: jnp.sum(slope(x) ** 2)

  def products(count):
    def fun(x, v):
      mvp = jax.linearize(slope, x)[1]
      for _ in range(count):
        v = mvp(v)
      return v

    return work(fun, x, x)

  one = lambda name: work(gradient(apply_fn, name, {}), params, batch, key)
  return {
    'P': one('none'),
    'F': work(lambda x: field(x)[0], x),
    'G': work(slope, x),
    'D': one('gradient_penalty'),
    'S': work(jax.grad(square), x),
    'V': products(2) - products(1),
    'T': one('hessian_penalty'),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--size', type=int, default=16)
  parser.add_argument('--steps', type=int, default=3)
  parser.add_argument('--points', type=int, default=4)
  parser.add_argument('--inner', type=int, default=2)
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--only', default='')
  args = parser.parse_args()
  programs.keep_memory()  # as in a run
  print(f'jax {jax.__version__}, {os.cpu_count()} cores, load', end=' ')
  print(*(f'{load:.1f}' for load in os.getloadavg()), vars(args))
  apply_fn, params, batch = problem(args.batch, args.size)
  given = (params, batch, jax.random.key(1))
  units = passes(apply_fn, *given)
  units = {name: found / units['P'] for name, found in units.items()}
  print('passes', *(f'{name} {found:.2f}' for name, found in units.items()))
  wanted = {'none', *args.only.split(',')} if args.only else None
  table = [
    row
    for row in rows(args.steps, args.points, args.inner)
    if wanted is None or row[1] in wanted
  ]
  runs, counted = {}, {}
  for label, name, options, *_ in table:
    fun = gradient(apply_fn, name, options)
    counted[label] = work(fun, *given)
    runs[label] = jax.jit(fun).lower(*given).compile()
  times = {label: [] for label in runs}
  for turn in range(-1, args.rounds):
    for label, run in runs.items():
      start = time.perf_counter()
      jax.block_until_ready(run(*given))
      if turn >= 0:
        times[label].append(time.perf_counter() - start)
  plain = np.array(times['none'])
  print(f'plain gradient: {1e3 * np.median(plain):.2f} ms')
  print('| objective | passes | time | work | floor | work / floor |')
  print('|---|---|---|---|---|---|')
  for label, _, _, words, floor in table:
    ratio = np.median(np.array(times[label]) / plain)
    done, least = counted[label] / counted['none'], floor(units)
    print(
      f'| {label} | {words} | {ratio:.1f} | {done:.2f} | {least:.2f} '
      f'| {done / least:.2f} |'
    )


if __name__ == '__main__':
  main()
