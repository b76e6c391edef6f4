"""What do defences at explanation time buy on networks trained by plain SGD?

  python studies/posthoc.py runs/explicit

Takes the finished runs under `none` of configs/sweeps/explicit.py. The network
predicts as it was trained; only its map is made otherwise: averaged over noise
(SmoothGrad), or as the gradient of the same parameters under a smoother
softplus (Dombrowski et al., arXiv 1906.07983). Each map is attacked as what it
is, so the adversary knows of the defence, and once more with the images that
were made against the undefended gradient. Writes posthoc.md beside this file.
"""

import argparse
import functools
import os
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
from frontier import IMPLICIT, arms, restored

from implicit_attr import attacks, attribution, keys, train
from implicit_attr.runtime.cadence import clock
from implicit_attr.similarity import magnitude, topk_intersection
from implicit_attr.train import experiment

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

EXAMPLES = 128
STEPS = 50
UNDEFENDED = 'gradient'


def explanations(module, variables) -> dict[str, tuple]:
  """Name -> (method, the network that is explained), cheapest first."""
  soft = lambda beta: train.frozen(module.clone(beta=beta), variables)
  own = train.frozen(module, variables)
  smoothgrad = functools.partial(
    attribution.METHODS['smoothgrad'], key=keys.stream(0, 'map')
  )
  gradient = attribution.METHODS['gradient']
  return {
    UNDEFENDED: (gradient, own),
    'softplus, β = 3': (gradient, soft(3.0)),
    'softplus, β = 1': (gradient, soft(1.0)),
    'SmoothGrad, σ = 0.15': (functools.partial(smoothgrad, sigma=0.15), own),
    'SmoothGrad, σ = 0.5': (functools.partial(smoothgrad, sigma=0.5), own),
  }


def measure(row: dict, rounds: int) -> list[dict]:
  """One record for each explanation of one run."""
  built = experiment.build(row['config'])
  state = jax.tree.map(jnp.asarray, restored(built, row['workdir']))
  batch, settings = built.test_batch(EXAMPLES), row['config']['evaluation']
  x, label = jnp.asarray(batch['image']), jnp.asarray(batch['label'])
  apply_fn = train.frozen(built.module, state.model_state)
  predict = lambda x: apply_fn(state.params, x)[0]
  ball = {'eps': settings['eps'], 'k': settings['k']}
  y = jnp.argmax(jax.jit(predict)(x), -1)
  right = np.asarray(y == label)
  seen, times, naive = [], {}, None
  for name, (method, network) in explanations(
    built.module, state.model_state
  ).items():
    explain = functools.partial(method, network, state.params)

    @jax.jit
    def attacked(x, y, explain=explain):
      found = attacks.attack_attribution(
        keys.stream(0, 'attack'), explain, predict, x, y, steps=STEPS,
        objective='topk', rule='sign', restarts=1, **ball,
      )  # fmt: skip
      noise = attacks.random_sign(
        keys.stream(0, 'noise'), explain, predict, x, y, **ball
      )
      auc = attribution.deletion_auc(
        apply_fn, state.params, x, y, explain(x, y)
      )
      return found.x_adv, noise.x_adv, auc

    @jax.jit
    def kept(x, other, y, explain=explain):
      maps = magnitude(explain(x, y)), magnitude(explain(other, y))
      return topk_intersection(*maps, settings['k'])

    x_adv, noisy, auc = attacked(x, y)
    naive = x_adv if name == UNDEFENDED else naive
    change = {'adaptive': x_adv, 'naive': naive, 'random': noisy}
    seen.append(
      {
        'name': name,
        'deletion_auc': np.asarray(auc)[right].mean(),
        **{k: np.asarray(kept(x, z, y))[right] for k, z in change.items()},
      }
    )
    times[name] = jax.jit(explain), []
    jax.block_until_ready(times[name][0](x, y))
  for _ in range(rounds):
    for run, spent in times.values():
      start = time.perf_counter()
      jax.block_until_ready(run(x, y))
      spent.append(time.perf_counter() - start)
  plain = np.array(times[UNDEFENDED][1])
  for record in seen:
    spent = np.array(times[record['name']][1])
    record['cost'] = float(np.median(spent / plain))
  return seen


def interval(values: np.ndarray) -> str:
  """Mean and the half width of its 95 % interval over examples."""
  half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
  return f'{values.mean():.2f} ± {half:.2f}'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('root', type=pathlib.Path)
  parser.add_argument('--rounds', type=int, default=30)
  args = parser.parse_args()
  rows = [row for row in arms(args.root) if row['method'] == IMPLICIT]
  lines = [
    '| network | explanation | attacked as it is | attacked without it | '
    'random signs | deletion AUC | time |',
    '|---' * 7 + '|',
  ]
  started = time.perf_counter()
  for done, row in enumerate(rows, 1):
    for found in measure(row, args.rounds):
      cells = [
        f'SGD, {row["level"]}', found['name'], interval(found['adaptive']),
        interval(found['naive']), f'{found["random"].mean():.2f}',
        f'{found["deletion_auc"]:.2f}', f'{found["cost"]:.1f}',
      ]  # fmt: skip
      lines.append('| ' + ' | '.join(cells) + ' |')
    left = (time.perf_counter() - started) / done * (len(rows) - done)
    print(f'{done}/{len(rows)} ETA {clock(left)}', flush=True)
  settings = rows[0]['config']['evaluation']
  path = DOCS / f'{pathlib.Path(__file__).stem}.md'
  before, _, rest = path.read_text().partition('<!-- table -->\n')
  after = rest.partition('<!-- end -->')[2]
  lines += [
    '',
    f'Those of {EXAMPLES} test images that the network gets right; ε = '
    f'{settings["eps"]:g} in ℓ∞, {STEPS} steps, one start; 95 % intervals over '
    'images. *time* is that of the map over the gradient, the median of '
    f'{args.rounds} ratios on {os.cpu_count()} cores, {platform.machine()}, '
    f'load {os.getloadavg()[0]:.1f}, jax {jax.__version__}.',
  ]
  text = '\n'.join(['<!-- table -->', *lines, '<!-- end -->'])
  path.write_text(before + text + after)


if __name__ == '__main__':
  main()
