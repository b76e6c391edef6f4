"""Which detail of training does the effect of the learning rate hinge on?

  python studies/study_ablations.py runs/ablations runs/cost

The tables of study_ablations.md and its figure, from folders that were filled
by configs/sweeps/ablations.py and configs/sweeps/cost.py. Intervals are those
of `claims`: seeds and examples resampled at once, a t quantile for the few
seeds.
"""

import math
import pathlib
import sys

import matplotlib
import numpy as np

from implicit_attr import claims

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

RULES = {
  'last': 'fixed duration',
  'train_loss': 'equal loss',
  'test_accuracy': 'equal accuracy',
}
LEADING = 'gradient'
SIZE = claims.CLAIMS['C1'].secondary['topk']
BASES = {'mlp': 'base', 'resnet8': 'resnet'}
"""Network -> what an ablation of it is an ablation of."""


def start(records: list[dict]) -> str:
  return BASES[records[0]['model']]


def written(estimate: claims.Estimate, mark: str = '') -> str:
  value, low, high, n = estimate[:4]
  if not math.isfinite(value) or n < claims.SEEDS:
    return '–'
  return f'{mark}{value:+.3f} [{low:+.3f}, {high:+.3f}]{mark}'


def line(cells: list[str]) -> str:
  return '| ' + ' | '.join(cells) + ' |'


def gains(
  tree: dict[str, list[dict]], name: str, rule: str, of: str = LEADING
) -> dict[int, np.ndarray]:
  """seed -> gain of each example from the larger rate."""
  chosen = [r for r in tree[name] if (r['rule'], r['map']) == (rule, of)]
  return claims.verdicts.gains(chosen, 'lr', 'topk')


def gain(tree: dict, name: str, rule: str, of: str = LEADING):
  found = gains(tree, name, rule, of)
  return claims.paired_mean(np.stack([*found.values()] or [[np.nan]]))


def beyond(tree: dict, name: str, rule: str) -> claims.Estimate:
  """The gain less that of what `name` is an ablation of, seed by seed."""
  mine, other = gains(tree, name, rule), gains(tree, start(tree[name]), rule)
  both = [mine[s] - other[s] for s in mine if s in other]
  return claims.paired_mean(np.stack(both or [[np.nan]]))


def means(records: list[dict]) -> list[str]:
  """Both ends of the rate at fixed duration."""
  chosen = [r for r in records if (r['rule'], r['map']) == ('last', LEADING)]
  rates = sorted({r['lr'] for r in chosen})
  cells = [' → '.join(f'{lr:g}' for lr in rates)]
  for field, form in (
    ('accuracy', '.3f'), ('train_loss', '.2g'), ('lambda_max', '.2g'),
    ('normalized_curvature', '.2f'), ('topk', '.3f'), ('random_topk', '.3f'),
  ):  # fmt: skip
    values = [
      np.mean([r[field] for r in chosen if r['lr'] == x]) for x in rates
    ]
    cells.append(' → '.join(f'{v:{form}}' for v in values))
  return cells


def draw(tree: dict, path: pathlib.Path) -> None:
  names = list(tree)
  figure, axis = plt.subplots(figsize=(6.4, 0.34 * len(names) + 1))
  axis.axvspan(-SIZE, SIZE, color='#EEEEEE', lw=0)
  axis.axvline(0, color='k', lw=0.7)
  for place, (rule, label) in enumerate(RULES.items()):
    colour = ('#0072B2', '#E69F00', '#009E73')[place]
    for row, name in enumerate(names):
      found = gain(tree, name, rule)
      if found.n < claims.SEEDS:
        continue
      height = row + 0.22 * (place - 1)
      axis.hlines(height, found.low, found.high, color=colour, lw=1)
      axis.plot(found.value, height, 'o', ms=3, color=colour)
    axis.plot([], [], 'o-', ms=3, lw=1, color=colour, label=label)
  axis.set_yticks(range(len(names)), [n.replace('_', ' ') for n in names])
  axis.set_ylim(len(names) - 0.4, -0.6)
  axis.set_xlim(-0.35, 0.35)
  axis.set_xlabel('change of top-k kept from a ten times larger learning rate')
  axis.tick_params(axis='y', length=0)
  axis.spines[['top', 'right', 'left']].set_visible(False)
  axis.legend(
    frameon=False, ncols=3, loc='lower left', bbox_to_anchor=(0, 1), fontsize=8
  )
  figure.savefig(path, dpi=130, bbox_inches='tight')


def costs(root: str) -> None:
  """What each arm took, a step and as a whole, and what it got."""
  arms: dict[str, list[dict]] = {}
  for record in claims.read(root)[0]:
    if (record['rule'], record['map']) == ('last', LEADING):
      name = pathlib.Path(record['run']).relative_to(root).parent
      arms.setdefault(name.as_posix(), []).append(record)
  spent = {n: [math.exp(-r['speed']) for r in rs] for n, rs in arms.items()}
  print('\n| arm | s of training | over plain, same batch | accuracy | '
        'top-k kept | random signs |')  # fmt: skip
  print('|---' * 6 + '|')
  for name, records in sorted(arms.items()):
    mean = lambda field: f'{np.mean([r[field] for r in records]):.3f}'
    batch = records[0]['batch_size']
    plain = [
      np.mean(spent[n])
      for n, rs in arms.items()
      if rs[0]['objective'] == 'none' and rs[0]['batch_size'] == batch
    ]
    low, high = min(spent[name]), max(spent[name])
    cells = [
      name.replace('_', ' '),
      f'{np.mean(spent[name]):.2f} ({low:.2f} to {high:.2f})',
      f'{np.mean(spent[name]) / np.mean(plain):.2f}',
      mean('accuracy'), mean('topk'), mean('random_topk'),
    ]  # fmt: skip
    print(line(cells))
  print()
  found = claims.judge_one(claims.CLAIMS['C3'], claims.read(root)[0])
  print(found, '\n')
  for cell in found.cells:
    where = cell.fields['factor'], RULES[cell.fields['rule']]
    print(line([*where, written(cell.estimate), cell.verdict]))


def main(root: str, cost: str | None = None) -> None:
  tree = {}
  for folder in sorted(p for p in pathlib.Path(root).iterdir() if p.is_dir()):
    records, problems = claims.read(folder)
    records = [r for r in records if not r.get('absent')]
    for run, why in problems.items():
      print(f'{run} {why}', file=sys.stderr)
    if records:
      tree[folder.name] = records
  first = list(BASES.values())
  place = lambda n: (first.index(start(tree[n])), n not in first, n)
  tree = {name: tree[name] for name in sorted(tree, key=place)}
  maps = list(dict.fromkeys(r['map'] for rs in tree.values() for r in rs))
  print('At fixed duration, means over seeds:\n')
  print('| | η | accuracy | train loss | λ_max | ‖H_x‖/‖g_x‖ | top-k kept | '
        'random signs |')  # fmt: skip
  print('|---' * 8 + '|')
  for name, records in tree.items():
    print(line([name.replace('_', ' '), *means(records)]))
  for of in maps:
    print(f'\nGain of the larger rate, {of.replace("_", " ")}:\n')
    head = ['', *RULES.values(), 'over the base, fixed duration']
    head = head if of == LEADING else head[:-1]
    print(line(head))
    print('|---' * len(head) + '|')
    for name in tree:
      cells = [name.replace('_', ' ')]
      for rule in RULES:
        found = gain(tree, name, rule, of)
        said = claims.verdicts.decide('gain', found, SIZE)
        mark = {'supported': '**', 'reversed': '_'}.get(said, '')
        cells.append(written(found, mark))
      if of == LEADING:
        alone = name == start(tree[name])
        cells.append('' if alone else written(beyond(tree, name, 'last')))
      print(line(cells))
  draw(tree, DOCS / f'{pathlib.Path(__file__).stem}.png')
  if cost:
    costs(cost)


if __name__ == '__main__':
  main(*sys.argv[1:])
