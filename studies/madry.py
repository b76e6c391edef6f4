"""Do the published numbers of map robustness on MNIST come back here?

  TFDS_DATA_DIR=… python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/explicit.py:madry_small --workdir runs/madry
  TFDS_DATA_DIR=… python studies/madry.py runs/madry

Reads the runs that are there and attacks labels and maps of each at the radius
of its evaluation: by the released protocol of the published table and by our
attack, both on the same map. Goes on where madry.json beside this file ends,
and writes the tables of madry.md.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from frontier import arms, compiled, restored
from legacy_attacks import KEY, OBJECTIVE, load

from implicit_attr import attacks, attribution, errors
from implicit_attr.attacks import legacy
from implicit_attr.runtime.cadence import clock
from implicit_attr.train import experiment
from implicit_attr.types import Array, Params

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

K = 100
PUBLISHED = {
  'none': ('NATURAL', (0.9917, 0.0, 0.4661, 0.1758)),
  'pgd': ('Madry', (0.9840, 0.9247, 0.6256, 0.2422)),
  'ig_norm': ('IG-NORM', (0.9874, 0.8143, 0.7136, 0.2841)),
  'ig_sum_norm': ('IG-SUM-NORM', (0.9834, 0.8817, 0.7245, 0.3111)),
  'trades': None,
  'scorpio': None,
}
"""Chen et al. (arXiv 1905.09957), MNIST, ε = 0.3: natural accuracy, accuracy
under PGD, top-k intersection and Kendall's tau of integrated gradients. From
notes on the paper, not read again for this page."""

SETTINGS = ('examples', 'images', 'points', 'path', 'restarts')
COLUMNS = ('natural', 'pgd', 'legacy_topk', 'legacy_kendall')


def programs(
  net: legacy.Network, eps: float, args: argparse.Namespace
) -> dict[str, Callable]:
  """Name -> function of (params, x, y), compiled once for all networks."""
  with_params = lambda params: net._replace(params=params)
  method = 'integrated_gradients', 'logit'
  whole = *method, {'rule': 'right', 'steps': args.points}
  short = *method, {'rule': 'gauss_legendre', 'steps': args.path}
  last = functools.partial(legacy.compare, k=K, last=True)

  def judged(here: legacy.Network, x: Array, z: Array, y: Array) -> dict:
    explain = here.explain(*whole)
    topk, kendall = last(explain(x, y), explain(z, y))
    return {'topk': topk, 'kendall': kendall}

  def released(params: Params, x: Array, y: Array) -> dict:
    found = legacy.rar_mnist(
      KEY, with_params(params), x, y,
      eps=eps, points=args.points, attempts=1,
    )  # fmt: skip
    return {'legacy_topk': found.topk, 'legacy_kendall': found.kendall}

  def ours(select: str, params: Params, x: Array, y: Array) -> dict:
    here = with_params(params)
    smooth = lambda x, y, beta: here.explain(*short, beta)(x, y)
    found = attacks.attack_attribution(
      KEY, here.explain(*short), here.predict, x, y,
      eps=eps, k=K, select=select, objective=OBJECTIVE[select],
      rule='sign', steps=50, restarts=args.restarts,
      surrogate=smooth if net.smooth_fn else None,
    )  # fmt: skip
    value = judged(here, x, found.x_adv, y)[select]
    # What was found on few points need not be worse on all of them.
    return {f'ours_{select}': jnp.where(found.kept, value, 1)}

  def noise(params: Params, x: Array, y: Array) -> dict:
    here = with_params(params)
    explain = here.explain(*short)
    found = attacks.random_sign(KEY, explain, here.predict, x, y, eps=eps, k=K)
    auc = attribution.deletion_auc(here.apply_fn, params, x, y, explain(x, y))
    value = judged(here, x, found.x_adv, y)
    return {
      'noise_topk': value['topk'],
      'noise_kendall': value['kendall'],
      'deletion_auc': auc,
    }

  def labels(params: Params, x: Array, y: Array) -> dict:
    predict = with_params(params).predict
    found = attacks.pgd(KEY, predict, x, y, eps=eps, steps=40)
    return {'pgd': ~found.fooled}

  named = {
    'released': released,
    'topk': functools.partial(ours, 'topk'),
    'kendall': functools.partial(ours, 'kendall'),
    'noise': noise,
    'labels': labels,
  }
  return {name: jax.jit(fun) for name, fun in named.items()}


def measure(row: dict, run: dict, args: argparse.Namespace) -> dict:
  """One network: means over the images that it gets right; PGD over all."""
  net, x, y = load(row['workdir'], args.examples)
  _, *many = load(row['workdir'], args.images)
  right = np.asarray(net.label(x) == y)
  found = {'natural': row['accuracy'], 'n': int(right.sum()), 'seconds': {}}
  for name, fun in run.items():
    begin = time.perf_counter()
    values = fun(net.params, *(many if name == 'labels' else (x, y)))
    for key, value in jax.device_get(values).items():
      found[key] = float(np.mean(value if name == 'labels' else value[right]))
    found['seconds'][name] = round(time.perf_counter() - begin, 1)
  return found


def timed(rows: list[dict], rounds: int) -> dict[str, float]:
  """Method -> CPU seconds of one training step, taken in turn; medians."""
  runs = {}
  for row in rows:
    if row['method'] not in runs:
      built = experiment.build(row['config'])
      state = jax.tree.map(jnp.asarray, restored(built, row['workdir']))
      runs[row['method']] = compiled(built, state)[:2]
  times = {name: [] for name in runs}
  for turn in range(-1, rounds):
    for name, (run, given) in runs.items():
      begin = time.process_time()
      jax.block_until_ready(run(*given))
      if turn >= 0:
        times[name].append(time.process_time() - begin)
  return {name: float(np.median(found)) for name, found in times.items()}


def said(values: list[float], digits: int = 3) -> str:
  """Mean and range over seeds."""
  text = f'{np.mean(values):.{digits}f}'
  if len(values) > 1:
    text += f' [{min(values):.{digits}f}, {max(values):.{digits}f}]'
  return text


def tables(networks: list[dict], seconds: dict[str, float]) -> Iterator[str]:
  by_method = {
    name: found
    for name in PUBLISHED
    if (found := [n for n in networks if n['method'] == name])
  }
  head = (
    'method', 'seeds', 'natural', 'PGD', 'top-k, released', 'top-k, ours',
    'τ, released', 'τ, ours', 'random signs: top-k', 'τ', 'deletion AUC',
    'CPU s a step', '× natural',
  )  # fmt: skip
  yield '| ' + ' | '.join(head) + ' |'
  yield '|---' * len(head) + '|'
  keys = (
    'natural', 'pgd', 'legacy_topk', 'ours_topk', 'legacy_kendall',
    'ours_kendall', 'noise_topk', 'noise_kendall', 'deletion_auc',
  )  # fmt: skip
  for name, found in by_method.items():
    cells = [said([n[key] for n in found]) for key in keys]
    cost = seconds[name] / seconds['none']
    cells = [
      f'`{name}`', str(len(found)), *cells, f'{seconds[name]:.3f}',
      f'{cost:.1f}',
    ]  # fmt: skip
    yield '| ' + ' | '.join(cells) + ' |'
  yield ''
  yield '| row | natural | PGD | top-k | τ |'
  yield '|---|---|---|---|---|'
  for name, found in by_method.items():
    if PUBLISHED[name]:
      title, values = PUBLISHED[name]
      cells = [f'{value:.4f}' for value in values]
      yield f'| {title}, published | ' + ' | '.join(cells) + ' |'
      cells = [said([n[key] for n in found]) for key in COLUMNS]
      yield f'| `{name}`, here | ' + ' | '.join(cells) + ' |'


def ink(config: dict) -> str:
  """How many pixels of a digit are not black: why k = 200 is degenerate."""
  test = experiment.build(config).test_set
  image = test.examples(np.arange(len(test)))['image']
  count = (np.asarray(image) > 0).sum((1, 2, 3))
  return (
    f'Of the {len(test)} test images {np.mean(count < 200):.1%} have fewer '
    f'than 200 pixels that are not black and {np.mean(count < 100):.1%} fewer '
    f'than 100; the mean is {count.mean():.0f} of {image[0].size}.'
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('root', type=pathlib.Path)
  parser.add_argument('--examples', type=int, default=16, help='for maps')
  parser.add_argument('--images', type=int, default=500, help='for labels')
  parser.add_argument('--points', type=int, default=100, help='of the map')
  parser.add_argument('--path', type=int, default=16, help='that ours follows')
  parser.add_argument('--restarts', type=int, default=3, help='of ours')
  parser.add_argument('--rounds', type=int, default=5, help='of the clock')
  parser.add_argument('--tables', action='store_true', help='attack nothing')
  args = parser.parse_args()
  rows = [row for row in arms(args.root) if row['method'] in PUBLISHED]
  errors.require('root', str(args.root), rows, 'a folder with runs of :madry')
  (eps,) = {row['config']['evaluation']['eps'] for row in rows}
  settings = {k: getattr(args, k) for k in SETTINGS} | {'eps': eps}
  where = DOCS / f'{pathlib.Path(__file__).stem}.json'
  kept = json.loads(where.read_text()) if where.exists() else {}
  if kept.get('settings') != settings:
    kept = {'settings': settings, 'networks': []}
  name_of = lambda row: (row['method'], row['seed'])
  done = {name_of(found) for found in kept['networks']}
  due = sorted(
    (r for r in rows if name_of(r) not in done and not args.tables),
    key=lambda row: row['seed'],
  )
  run = programs(load(rows[0]['workdir'], 1)[0], eps, args)
  begin = time.perf_counter()
  for i, row in enumerate(due):
    names = {'method': row['method'], 'seed': row['seed']}
    kept['networks'].append(names | measure(row, run, args))
    where.write_text(json.dumps(kept, indent=1) + '\n')
    left = (time.perf_counter() - begin) / (i + 1) * (len(due) - i - 1)
    print(f'{i + 1}/{len(due)} ETA {clock(left)}', kept['networks'][-1])
  errors.require('madry.json', [], kept['networks'], 'networks measured so')
  seconds = timed(rows, args.rounds)
  text = [
    *tables(kept['networks'], seconds), '', ink(rows[0]['config']), '',
    f'{args.examples} test images for maps and {args.images} for labels, '
    f'ε = {eps}; medians of {args.rounds} steps taken in turn, '
    f'{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores '
    f'({platform.machine()}), load {os.getloadavg()[0]:.1f}, '
    f'jax {jax.__version__}.',
  ]  # fmt: skip
  page = where.with_suffix('.md')
  before, _, after = page.read_text().partition('<!-- table -->\n')
  _, _, after = after.partition('<!-- end -->\n')
  marked = '<!-- table -->\n' + '\n'.join(text) + '\n<!-- end -->\n'
  page.write_text(before + marked + after)
  print(*text, sep='\n')


if __name__ == '__main__':
  main()
