"""What is free and makes gradient maps robust: tables of docs/study_numbers.md.

  python -m implicit_attr.main --mode sweep --lanes 3 \
    --config sweeps/free:small --workdir runs/free
  python studies/free.py runs/free

Each route beside the base of the same seed, at the first state that came to
the sweep's test accuracy and at the end: the gain in log2 ε50 with a 95 % t
interval over seeds, and means of accuracy, ε50 (1/255), share above the radii,
deletion AUC and normalised input curvature. 'a,b' is beside 'a' where that is
another network ('residual'). Then what stopping early would have brought: the
gain of the earlier state over the end of the same run, and where in a run, of
what was tracked after it, normalised input curvature was least. Prints tables
in Markdown.
"""

import pathlib
import sys

import numpy as np
from scipy import stats

from implicit_attr.runs import reading

COLUMNS = ('accuracy', 'ε50', 'above', 'deletion AUC', '‖H_x‖/‖g_x‖')
CURVATURE = 'input/normalized_curvature'


def numbers(run: reading.Run, rule: str) -> list[float]:
  """[log2 ε50, *COLUMNS] of the attacked gradient map; NaN if not reached."""
  at = run.evaluations.get(rule)
  if at is None:
    return [np.nan] * (1 + len(COLUMNS))
  (row,) = (r for r in at.rows if r['attack'] == 'border')
  radius = row['metrics']['log2_eps50']['mean']
  tracked = (line for line in run.lines if line['step'] == at.step)
  return [
    radius, at.clean['accuracy'], 255 * 2**radius, row['censored']['above'],
    row['faithfulness']['deletion_auc']['mean'],
    next((line[CURVATURE] for line in tracked if CURVATURE in line), np.nan),
  ]  # fmt: skip


def interval(gain: np.ndarray) -> str:
  """Mean and half of the 95 % t interval over seeds."""
  width = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
  return f'{gain.mean():+.2f} ± {width:.2f}'


def least(run: reading.Run) -> float:
  """Where normalised input curvature was least, of the states that were as
  accurate as asked: 0 is the first of them, 1 the end; NaN if none was."""
  if 'test_accuracy' not in run.evaluations:
    return np.nan
  first = run.evaluations['test_accuracy'].step
  tracked = [line for line in run.lines if CURVATURE in line]
  after = [line for line in tracked if line['step'] >= first]
  step = min(after, key=lambda line: line[CURVATURE])['step']
  return (step - first) / (after[-1]['step'] - first)


def main(root: pathlib.Path) -> None:
  load = lambda folder: reading.load(folder, arrays=lambda name: False)
  runs = {
    p.name: [load(folder) for folder in sorted(p.glob('seed_*'))]
    for p in sorted(root.iterdir())
    if list(p.glob('seed_*'))
  }
  found = {
    rule: {n: np.array([numbers(r, rule) for r in runs[n]]) for n in runs}
    for rule in ('test_accuracy', 'last')
  }
  for rule, tables in found.items():
    print(f'\n| {rule} | gain in log2 ε50 |', ' | '.join(COLUMNS), '|')
    print('|---' * (2 + len(COLUMNS)) + '|')
    gains = {
      name: table[:, 0] - tables[reference(name)][:, 0]
      for name, table in tables.items()
    }
    for name in sorted(gains, key=lambda name: -gains[name].mean()):
      means = tables[name][:, 1:].mean(0)
      shown = interval(gains[name]) if reference(name) != name else '–'
      print(
        f'| {name.replace("_", " ")} | {shown} | {means[0]:.3f} |',
        f'{means[1]:.1f} | {means[2]:.2f} | {means[3]:.3f} | {means[4]:.2f} |',
      )
  print('\n| stopped early | gain in log2 ε50 | accuracy | least at |')
  print('|---' * 4 + '|')
  for name in runs:
    early, late = (found[rule][name] for rule in ('test_accuracy', 'last'))
    change = (early - late).mean(0)
    where = ', '.join(f'{least(run):.2f}' for run in runs[name])
    print(
      f'| {name.replace("_", " ")} | {interval(early[:, 0] - late[:, 0])} |',
      f'{change[1]:+.3f} | {where} |',
    )


def reference(name: str) -> str:
  """What a route is compared with."""
  return 'residual' if name.startswith('residual') else 'base'


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
