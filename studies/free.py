"""What is free and makes gradient maps robust: the table of docs/study.md.

  python -m implicit_attr.main --mode sweep --lanes 3 \
    --config sweeps/free:small --workdir runs/free
  python studies/free.py runs/free

Each route beside the base of the same seed, at the first state that came to
the sweep's test accuracy and at the end: the gain in log2 ε50 with a 95 % t
interval over seeds, and means of accuracy, ε50 (1/255), share above the radii,
deletion AUC and normalised input curvature. Prints a table in Markdown.
"""

import pathlib
import sys

import numpy as np
from scipy import stats

from implicit_attr.runs import reading

COLUMNS = ('accuracy', 'ε50', 'above', 'deletion AUC', '‖H_x‖/‖g_x‖')


def numbers(run: reading.Run, rule: str) -> list[float]:
  """[log2 ε50, *COLUMNS] of the attacked gradient map; NaN if not reached."""
  at = run.evaluations.get(rule)
  if at is None:
    return [np.nan] * (1 + len(COLUMNS))
  (row,) = (r for r in at.rows if r['attack'] == 'border')
  radius = row['metrics']['log2_eps50']['mean']
  name = 'input/normalized_curvature'
  tracked = (line for line in run.lines if line['step'] == at.step)
  return [
    radius, at.clean['accuracy'], 255 * 2**radius, row['censored']['above'],
    row['faithfulness']['deletion_auc']['mean'],
    next((line[name] for line in tracked if name in line), np.nan),
  ]  # fmt: skip


def main(root: pathlib.Path) -> None:
  names = sorted(p.name for p in root.iterdir() if list(p.glob('seed_*')))
  for rule in ('test_accuracy', 'last'):
    found = {
      name: np.array([
        numbers(reading.load(folder, arrays=lambda name: False), rule)
        for folder in sorted((root / name).glob('seed_*'))
      ])
      for name in names
    }  # fmt: skip
    print(f'\n| {rule} | gain in log2 ε50 |', ' | '.join(COLUMNS), '|')
    print('|---' * (2 + len(COLUMNS)) + '|')
    gains = {n: a[:, 0] - found['base'][:, 0] for n, a in found.items()}
    for name in sorted(names, key=lambda n: -gains[n].mean()):
      gain, means = gains[name], found[name][:, 1:].mean(0)
      width = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
      shown = f'{gain.mean():+.2f} ± {width:.2f}' if name != 'base' else '–'
      print(
        f'| {name.replace("_", " ")} | {shown} | {means[0]:.3f} |',
        f'{means[1]:.1f} | {means[2]:.2f} | {means[3]:.3f} | {means[4]:.2f} |',
      )


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
