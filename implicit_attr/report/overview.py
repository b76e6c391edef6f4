"""What was swept, how did it end, and which runs are there?"""

import collections
import math
from collections.abc import Sequence

from implicit_attr import claims
from implicit_attr.report import heat, tables
from implicit_attr.report.colours import short_group
from implicit_attr.report.summary import Tile
from implicit_attr.report.sweep_runs import Tree
from implicit_attr.report.tables import by
from implicit_attr.report.verdicts import FACTORS

Cells = list[tuple[str, float | str]]
"""Of a row: the text, and what the column is sorted by."""

MOST = 1000
"""Runs that the table lists."""


def title(tree: Tree) -> str:
  """'240 runs of lr_batch', the name of the folder."""
  n = len(tree.trials)
  return f'{n} run{"s" if n > 1 else ""} of {tree.path.resolve().name}'


def story(tree: Tree) -> list[str]:
  """What was varied and how it ended, in sentences."""
  known = [trial for trials in tree.families.values() for trial in trials]
  said = []
  if known:
    families = list(tree.families)
    text = 'Networks, data and losses: ' + '; '.join(families[:12])
    said.append(f'{text}{"; …" if len(families) > 12 else ""}.')
    said.append(
      f'{_levels("Learning rate", [t.lr for t in known])}; '
      f'{_levels("batch size", [t.batch for t in known])}; '
      f'{_seeds(tree)}.'
    )
  said.append(f'{ended(tree)}.')
  return said


def _levels(name: str, values: Sequence[float]) -> str:
  levels = sorted(set(values))
  if len(levels) == 1:
    return f'{name} {levels[0]:g}'
  return f'{name} {levels[0]:g} to {levels[-1]:g} ({len(levels)} values)'


def arms(tree: Tree) -> list[int]:
  """The number of seeds of every arm."""
  return [
    len(trials)
    for group in tree.groups.values()
    for trials in by(group, lambda t: (t.lr, t.batch)).values()
  ]


def _seeds(tree: Tree) -> str:
  counts = sorted(set(arms(tree)))
  if len(counts) == 1:
    return f'{counts[0]} seed{"s" if counts[0] > 1 else ""} an arm'
  return f'{counts[0]} to {counts[-1]} seeds an arm'


def ended(tree: Tree) -> str:
  """'236 finished, 4 diverged'."""
  count = collections.Counter(trial.status for trial in tree.trials)
  return ', '.join(f'{n} {status}' for status, n in count.most_common())


def banners(tree: Tree) -> list[tuple[str, str]]:
  """(kind, sentence) for what a reader must know before any number."""
  found = []
  seeds = arms(tree)
  most, least = max(seeds, default=0), min(seeds, default=0)
  if most < claims.SEEDS:
    found.append((
      'bad',
      f'Too few seeds: no arm has more than {most}, and {claims.SEEDS} are '
      'needed for a verdict. What follows describes these runs; it is no '
      'evidence for or against a claim.',
    ))  # fmt: skip
  elif least < claims.SEEDS:
    short = sum(n < claims.SEEDS for n in seeds)
    found.append((
      'note',
      f'{short} of {len(seeds)} arms have fewer than {claims.SEEDS} seeds.',
    ))  # fmt: skip
  other = sum(trial.status != 'finished' for trial in tree.trials)
  if other:
    found.append((
      'note',
      f'{other} of {len(tree.trials)} runs did not finish: {ended(tree)}. They '
      'are listed at the end; a diverged run has no robustness, so the arms '
      'compared are those that every seed survived.',
    ))  # fmt: skip
  return found


def tiles(tree: Tree, verdicts: Sequence[claims.Verdict]) -> list[Tile]:
  """Headline numbers: how many runs, and the effects that C1 is about."""
  found = [Tile('Runs', str(len(tree.trials)), ended(tree))]
  cells = next((v.cells for v in verdicts if v.claim.name == 'C1'), [])
  for factor, name in FACTORS.items():
    values = sorted(
      cell.estimate.value
      for cell in cells
      if cell.fields['factor'] == factor and math.isfinite(cell.estimate.value)
    )
    if values:
      n = len(values)
      middle = (values[(n - 1) // 2] + values[n // 2]) / 2
      found.append(
        Tile(
          f'Top-k kept, {name}: median change',
          _signed(middle),
          f'{n} combinations, {_signed(values[0])} to {_signed(values[-1])}',
        )
      )
  return found


def _signed(value: float) -> str:
  return ('+' if value > 0 else '') + tables.number(value)


def runs(tree: Tree) -> tuple[list[str], list[Cells]]:
  """(head, rows) of the table of all runs."""
  name = tree.leading()
  shown = tree.rules if name else []
  columns = [
    (f'Top-k at {tables.rule(rule)}', heat.kept_of(tree, name, rule))
    for rule in shown
  ]
  if 'last' in shown:
    noise = heat.kept_of(tree, name, 'last', 'random_topk')
    columns.append(('Random signs', noise))
  speed = heat.kept_of(tree, name, 'last', 'speed') if name else {}
  seconds = {run: math.exp(-value) for run, value in speed.items()}
  head = [
    'Run', 'Network, data, loss', 'Further', 'Rate', 'Batch', 'Seed', 'Status',
    'Accuracy [%]', 'λ_max', '‖H‖/‖g‖', *(title for title, _ in columns),
    'Time [s]',
  ]  # fmt: skip
  rows = []
  for trial in tree.trials[:MOST]:
    further = short_group(trial)
    end = lambda key: trial.ends.get(key, math.nan)
    accuracy = end('eval/accuracy')
    rows.append([
      (trial.name, trial.name),
      (trial.family, trial.family),
      ('', '') if further == trial.family else (further, further),
      _sorted(f'{trial.lr:g}', trial.lr),
      _sorted(f'{trial.batch:g}', trial.batch),
      ('–', '') if trial.seed is None else (str(trial.seed), trial.seed),
      (trial.status, trial.status),
      _sorted(tables.number(100 * accuracy, 1), accuracy),
      *(
        _sorted(tables.short(end(key)), end(key))
        for key in ('param/lambda_max', 'input/normalized_curvature')
      ),
      *(
        _sorted(tables.number(of[trial.name]), of[trial.name])
        if trial.name in of else ('–', '')
        for _, of in columns
      ),
      _sorted(
        tables.short(seconds.get(trial.name)),
        seconds.get(trial.name, math.nan),
      ),
    ])  # fmt: skip
  if all(not row[2][0] for row in rows):
    head.pop(2)
    for row in rows:
      row.pop(2)
  return head, rows


def _sorted(text: str, value: float) -> tuple[str, float | str]:
  return (text, value) if math.isfinite(value) else ('–', '')


def unfinished(tree: Tree) -> list[tuple[str, str, str, str]]:
  """(run, status, step, message) of all that did not finish."""
  return [
    (
      trial.name, trial.status,
      f'{trial.step:.0f}' if math.isfinite(trial.step) else '–', trial.message,
    )
    for trial in tree.trials
    if trial.status != 'finished'
  ]  # fmt: skip
