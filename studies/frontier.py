"""What does each explicit route buy, and what does a step of it cost? Figure.

  python -m implicit_attr.main --mode sweep \
    --config configs/sweeps/explicit.py:small --workdir runs/explicit
  python studies/frontier.py runs/explicit

Reads the runs that are there; attacks their labels (PGD; APGD and Square) at
twice the radius of their map attack, and times one training step of each method
in turn with the others. Writes frontier.png, .json and .md beside this file.
"""

import argparse
import json
import os
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from companions_nets import robust

from implicit_attr import errors, keys, train
from implicit_attr.evaluation import evaluate
from implicit_attr.runs import records
from implicit_attr.runtime.cadence import clock
from implicit_attr.train import experiment

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

EXAMPLES = 64
IMPLICIT = 'none'
MARKS = 'osD^v'
MATCH = 0.1
"""Arms whose robust accuracies are at most this far apart count as matched."""


def arms(root: pathlib.Path) -> list[dict]:
  """One row for each finished run: names, config, map robustness."""
  rows = []
  for path in sorted(root.rglob('evaluation/last.json')):
    workdir = path.parent.parent
    method, level, seed = workdir.relative_to(root).parts
    found = json.loads(path.read_text())
    rows.append(
      {
        'method': method,
        'level': level,
        'seed': seed,
        'workdir': workdir,
        'config': records.read_config(workdir)['config'],
        'accuracy': found['clean']['accuracy'],
        'maps': {
          f'{row["attribution"]}/{row["attack"]}': {
            **row['metrics']['topk'],
            'kendall': row['metrics']['kendall']['mean'],
          }
          for row in found['rows']
        },
        'deletion_auc': {
          row['attribution']: row['faithfulness']['deletion_auc']['mean']
          for row in found['rows']
        },
      }
    )  # fmt: skip
  errors.require('root', str(root), rows, 'a folder with finished runs')
  return rows


def restored(
  built: experiment.Experiment, workdir: pathlib.Path
) -> train.State:
  state = evaluate.find(built, workdir, 'last')
  assert state is not None, f'{workdir} has no checkpoint'
  return state


def compiled(built: experiment.Experiment, state: train.State) -> tuple:
  """(one training step as a program, its arguments, bytes it works in)."""
  sums = train.make_sums(built.module, built.make_loss_fn)
  update = train.make_update(built.tx)

  def step(state, batch, lr, key):
    found = sums(state.params, state.model_state, batch, key)
    return update(state, found, lr)

  batch = jax.tree.map(jnp.asarray, built.train_set.batch_at(0))
  args = state, batch, jnp.float32(0.01), keys.stream(0, 'time')
  run = jax.jit(step).lower(*args).compile()
  return run, args, run.memory_analysis().temp_size_in_bytes


def measure(rows: list[dict], rounds: int) -> None:
  """Adds label robustness to every row, and cost to every method."""
  programs, started, apply_fn = {}, time.perf_counter(), None
  for i, row in enumerate(rows):
    built = experiment.build(row['config'])
    state = jax.tree.map(jnp.asarray, restored(built, row['workdir']))
    apply_fn = apply_fn or train.frozen(built.module, state.model_state)
    batch = built.test_batch(EXAMPLES)
    x, y = jnp.asarray(batch['image']), jnp.asarray(batch['label'])
    row['eps'] = 2 * row['config']['evaluation']['eps']
    right, _ = robust(apply_fn, state.params, x, y, row['eps'], square=300)
    row |= {name: float(jnp.mean(value)) for name, value in right.items()}
    if row['method'] not in programs:
      programs[row['method']] = compiled(built, state)
    spent = time.perf_counter() - started
    left = spent / (i + 1) * (len(rows) - i - 1)
    print(
      f'{i + 1}/{len(rows)} ETA {clock(left)}: {row["method"]} {row["level"]}',
      flush=True,
    )
  times = {name: [] for name in programs}
  for turn in range(-2, rounds):
    for name, (run, args, _) in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(run(*args))
      if turn >= 0:
        times[name].append(time.perf_counter() - start)
  plain = np.array(times[IMPLICIT])
  for row in rows:
    mine = np.array(times[row['method']])
    row['cost'] = float(np.median(mine / plain))
    row['seconds'] = float(np.median(mine))
    row['memory'] = programs[row['method']][2] / programs[IMPLICIT][2]


def mean_map(row: dict, attack: str = 'border') -> float:
  values = [v['mean'] for k, v in row['maps'].items() if k.endswith(attack)]
  return float(np.mean(values))


def draw(rows: list[dict], path: pathlib.Path) -> None:
  figure, axes = plt.subplots(1, 3, figsize=(12, 4.8), layout='constrained')
  methods = list(dict.fromkeys(r['method'] for r in rows))
  colours = plt.get_cmap('tab20')(np.linspace(0, 1, len(methods)))
  panels = (
    (lambda r: r['cost'], mean_map),
    (lambda r: r['cost'], lambda r: r['apgd_square']),
    (lambda r: r['apgd_square'], mean_map),
  )
  for axis, (across, up) in zip(axes, panels, strict=True):
    for i, (method, colour) in enumerate(zip(methods, colours, strict=True)):
      here = [r for r in rows if r['method'] == method]
      implicit = method == IMPLICIT
      axis.plot(
        [across(r) for r in here], [up(r) for r in here],
        '*-' if implicit else f'{MARKS[i % len(MARKS)]}-',
        color='k' if implicit else colour, markersize=9 if implicit else 4,
        linewidth=0.8, label='plain SGD, by lr' if implicit else method,
      )  # fmt: skip
    axis.spines[['top', 'right']].set_visible(False)
  handles, labels = axes[0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc='outside lower center', ncols=7, fontsize=7,
    frameon=False,
  )  # fmt: skip
  eps = rows[0]['eps']
  for axis in axes[:2]:
    axis.set(xscale='log', xlabel='seconds a step over plain SGD')
  axes[0].set_ylabel(f'top-k left under attack, ε = {eps / 2:g}, four maps')
  axes[1].set_ylabel(f'accuracy under APGD and Square, ε = {eps:g}')
  axes[2].set_xlabel(f'accuracy under APGD and Square, ε = {eps:g}')
  axes[2].set_ylabel('top-k left under attack, four maps')
  figure.savefig(path, dpi=130)


def table(rows: list[dict]) -> list[str]:
  names = sorted(rows[0]['deletion_auc'])
  head = [
    'method', 'level', 'clean', 'PGD', 'APGD + Square',
    *(f'{n}: top-k' for n in names), 'random signs', 'deletion AUC', 'time',
    'memory',
  ]  # fmt: skip
  lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
  for r in rows:
    maps = []
    for name in names:
      v = r['maps'][f'{name}/topk']
      maps.append(f'{v["mean"]:.2f} [{v["low"]:.2f}, {v["high"]:.2f}]')
    auc = np.mean(list(r['deletion_auc'].values()))
    cells = [
      r['method'], r['level'], f'{r["accuracy"]:.3f}', f'{r["pgd"]:.2f}',
      f'{r["apgd_square"]:.2f}', *maps, f'{mean_map(r, "random_sign"):.2f}',
      f'{auc:.2f}', f'{r["cost"]:.1f}', f'{r["memory"]:.1f}',
    ]  # fmt: skip
    lines.append('| ' + ' | '.join(cells) + ' |')
  return lines


def matched(rows: list[dict]) -> list[str]:
  """Pairs of the cheapest arm and the steadiest maps at equal robustness."""
  lines = ['| robust accuracy | arms | steadiest maps | cheapest |']
  lines.append('|---|---|---|---|')
  say = lambda r: (
    f'{r["method"]} {r["level"]} ({mean_map(r):.2f}, {r["cost"]:.1f}×)'
  )
  for low in np.arange(0, 1, 2 * MATCH):
    high = low + 2 * MATCH
    here = [r for r in rows if low <= r['apgd_square'] < high]
    if here:
      best, cheap = max(here, key=mean_map), min(here, key=lambda r: r['cost'])
      lines.append(
        f'| {low:.1f} to {high:.1f} | {len(here)} | {say(best)} '
        f'| {say(cheap)} |'
      )
  return lines


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('root', type=pathlib.Path)
  parser.add_argument('--rounds', type=int, default=30)
  args = parser.parse_args()
  rows = arms(args.root)
  measure(rows, args.rounds)
  where = DOCS / pathlib.Path(__file__).name
  draw(rows, where.with_suffix('.png'))
  kept = [
    {k: v for k, v in r.items() if k not in ('workdir', 'config')} for r in rows
  ]
  where.with_suffix('.json').write_text(json.dumps(kept, indent=1) + '\n')
  plain = next(r for r in rows if r['method'] == IMPLICIT)
  lines = [
    '# Explicit routes beside plain SGD: robustness and cost',
    '',
    f'Written by studies/frontier.py; {len(rows)} runs of '
    f'configs/sweeps/explicit.py, {EXAMPLES} test images for label attacks '
    f'(ε = {plain["eps"]:g}), top-k intersection under our map attack '
    f'(ε = {plain["eps"] / 2:g}) with 95 % intervals over examples. *time* and '
    '*memory* are of one training step over plain SGD '
    f'({1e3 * plain["seconds"]:.2f} ms), medians of {args.rounds} ratios on '
    f'{os.cpu_count()} cores, {platform.machine()}, load '
    f'{os.getloadavg()[0]:.1f}; an epoch is the same number of steps for all.',
    '',
    '![Robustness and cost](frontier.png)',
    '',
    *table(rows),
    '',
    '## At matched robust accuracy',
    '',
    'In brackets: mean top-k left over the maps, time.',
    '',
    *matched(rows),
    '',
  ]
  where.with_suffix('.md').write_text('\n'.join(lines))


if __name__ == '__main__':
  main()
