"""What do the sweeps say? The tables of study_first.md, from folders of runs.

  python studies/study.py runs/lr_batch runs/edge runs/attention > tables.md

For every tree: the gain of each map from larger learning rates and smaller
batches, the claims that have enough runs, the means over seeds, and how well
each curvature predicts robustness across runs (Spearman; in brackets with
learning rate and batch size held fixed), with 95 % intervals.
"""

import json
import math
import pathlib
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from implicit_attr import claims
from implicit_attr.runs.metrics import read_metrics

RULES = {
  'last': 'fixed duration',
  'test_accuracy': 'equal accuracy',
  'train_loss': 'equal loss',
}
PREDICTORS = {
  'lambda_max': 'λ_max',
  'trace': 'trace',
  'w1': '‖W1‖² λ_max',
  'input_lambda': '‖H_x‖',
  'normalized_curvature': '‖H_x‖/‖g_x‖',
}
DIAGNOSTICS = {
  'attention/entropy_ratio': 'entropy / log N',
  'attention/spread': 'score spread',
  'attention/rank_radius': 'rank radius',
}
TOO_FEW = 3


def written(estimate: claims.Estimate) -> str:
  value, low, high = estimate[:3]
  if not math.isfinite(value):
    return '–'
  return f'{value:+.3f} [{low:+.3f}, {high:+.3f}]'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def gains(verdict: claims.Verdict) -> str:
  """One line a map and setting, one column a rule and factor."""
  found: dict[tuple, dict[tuple, claims.Cell]] = {}
  for cell in verdict.cells:
    f = cell.fields
    settings = [
      str(f[name]).replace('_', ' ')
      for name in ('measure', 'loss', 'attention', 'features', 'map')
      if f.get(name)
    ]
    place = found.setdefault(tuple(settings), {})
    place[f['factor'], f['rule']] = cell
  columns = sorted({c for place in found.values() for c in place})
  head = ['', *(f'{factor}, {RULES[rule]}' for factor, rule in columns)]

  def text(cell: claims.Cell | None) -> str:
    if cell is None or cell.seeds < TOO_FEW:
      return '–'
    mark = {'supported': '**', 'reversed': '_'}.get(cell.verdict, '')
    return f'{mark}{written(cell.estimate)}{mark}'

  return table(
    [name.replace('_', ' ') for name in head],
    [
      [', '.join(settings), *(text(place.get(c)) for c in columns)]
      for settings, place in found.items()
    ],
  )


def predictors(records: list[dict], rule: str) -> str:
  """Spearman of each curvature with top-k kept, by setting and map."""
  groups: dict[tuple, list[dict]] = {}
  for r in records:
    if r['rule'] == rule:
      r = {**r, 'w1': r['w1_norm'] ** 2 * r['lambda_max']}
      key = (r['loss'], r['attention'], r['map'])
      groups.setdefault(tuple(filter(None, key)), []).append(r)
  rows = []
  for key, runs in groups.items():
    cells = []
    for name in PREDICTORS:
      columns = [[r[name], r['topk'], r['lr'], r['batch_size']] for r in runs]
      columns = np.array(columns, float)
      columns = columns[np.isfinite(columns).all(1)]
      plain = claims.partial_spearman(
        columns[:, 0], columns[:, 1], np.empty((len(columns), 0))
      )
      fixed = claims.partial_spearman(
        columns[:, 0], columns[:, 1], columns[:, 2:]
      )
      cells.append(
        '–' if len(columns) < 12
        else f'{written(plain)} ({fixed.value:+.2f})'
      )  # fmt: skip
    if set(cells) != {'–'}:
      rows.append([', '.join(key).replace('_', ' '), *cells])
  return table(['', *PREDICTORS.values()], rows)


def setting(r: dict) -> str:
  """Kernel or loss, learning rate, batch size."""
  name = (r['attention'] or r['loss']).replace('_', ' ')
  return f'{name}, {r["lr"]:g}, {r["batch_size"]}'


def means(records: list[dict], rule: str) -> str:
  """What each setting led to, in the mean over seeds."""
  attention = any(r['attention'] for r in records)
  # Of milestones no diagnostics are known.
  ended = DIAGNOSTICS if attention and rule == 'last' else {}
  groups: dict[str, list[dict]] = {}
  for r in records:
    if r['rule'] == rule:
      groups.setdefault(setting(r), []).append(r)
  maps = list(dict.fromkeys(r['map'] for r in records))
  rows = []
  for name_of, mine in groups.items():
    mean = lambda name, of: f'{np.mean([r[name] for r in of]):.3g}'
    logged = [of_attention(pathlib.Path(r['run'])) for r in mine]
    cells = [name_of, str(len({r['seed'] for r in mine}))]
    cells += [mean(name, mine) for name in ('accuracy', 'train_loss')]
    for name in maps:
      here = [r for r in mine if r['map'] == name]
      said = [attacked(pathlib.Path(r['run']), rule, name) for r in here]
      masses = [r['faithfulness'].get('mask_mass') for r in said]
      known = None not in masses
      mass = f', {np.mean([m["mean"] for m in masses]):.2f}' if known else ''
      cells.append(f'{mean("topk", here)} ({mean("random_topk", here)}{mass})')
    cells += [mean(n, mine) for n in ('lambda_max', 'normalized_curvature')]
    rows.append([*cells, *(mean(n, logged) for n in ended)])
  head = ['', 'seeds', 'accuracy', 'train loss', *maps, 'λ_max', '‖H_x‖/‖g_x‖']
  return table([*head, *ended.values()], rows)


def guards(records: list[dict], rule: str) -> str:
  """What a map must not have lost: it moves, and it says what matters."""
  groups: dict[str, list[pathlib.Path]] = {}
  for r in records:
    if r['rule'] == rule:
      groups.setdefault(setting(r), []).append(pathlib.Path(r['run']))
  maps = list(dict.fromkeys(r['map'] for r in records))
  rows = []
  for name_of, runs in groups.items():
    cells = [name_of]
    for name in maps:
      here = [attacked(run, rule, name) for run in runs]
      cosine = np.mean([r['metrics']['pearson']['mean'] for r in here])
      auc = [r['faithfulness']['deletion_auc']['mean'] for r in here]
      cells.append(f'{cosine:.3f}, {np.mean(auc):.3f}')
    rows.append(cells)
  return table(['', *maps], rows)


def of_attention(run: pathlib.Path) -> dict[str, float]:
  """The last attention diagnostics of a run; {} without attention."""
  found: dict[str, float] = {}
  for line in read_metrics(run):
    found |= {k: v for k, v in line.items() if k in DIAGNOSTICS}
  return found


def attacked(run: pathlib.Path, rule: str, name: str) -> dict:
  """What the attack on the map `name` left, as the evaluation wrote it."""
  rows = json.loads((run / 'evaluation' / f'{rule}.json').read_text())['rows']
  return next(r for r in rows if r['attribution'] == name)


def main(trees: Sequence[str]) -> None:
  for tree in map(pathlib.Path, trees):
    everything, problems = claims.read(tree)
    records = [r for r in everything if not r.get('absent')]
    print(f'\n### {tree.name}: {len(problems)} runs without an evaluation\n')
    for verdict in claims.judge(everything):
      if not verdict.cells:
        continue
      print(
        f'\n{verdict.claim.name}: **{verdict.verdict}** ({verdict.reason})\n'
      )
      if verdict.claim.name != 'C2':
        print(gains(verdict))
    for rule, name in RULES.items():
      print(f'\nMeans (random signs, share inside the mask), at {name}:\n')
      print(means(records, rule))
      print(f'\nCentred cosine under attack, deletion AUC, at {name}:\n')
      print(guards(records, rule))
      print(f'\nWhat predicts top-k kept, at {name}:\n')
      print(predictors(records, rule))


if __name__ == '__main__':
  main(sys.argv[1:])
