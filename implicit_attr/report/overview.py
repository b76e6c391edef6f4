"""Overview of a sweep: what was varied, how it ended, and a table of runs."""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from implicit_attr import claims
from implicit_attr.report import heat, tables
from implicit_attr.report.colours import short_group
from implicit_attr.report.rates import RULE
from implicit_attr.report.summary import Tile
from implicit_attr.report.sweep_runs import Tree, Trial
from implicit_attr.report.tables import by
from implicit_attr.report.verdicts import FACTORS, shown

Cell = tuple[str, float | str]
"""Of a table: the text, and what its column is sorted by."""

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
  told = []
  seeds = arms(tree)
  most, least = max(seeds, default=0), min(seeds, default=0)
  if most < claims.SEEDS:
    told.append((
      'bad',
      f'Too few seeds: no arm has more than {most}, and {claims.SEEDS} are '
      'needed for a verdict. What follows describes these runs; it is no '
      'evidence for or against a claim.',
    ))  # fmt: skip
  elif least < claims.SEEDS:
    short = sum(n < claims.SEEDS for n in seeds)
    told.append((
      'note',
      f'{short} of {len(seeds)} arms have fewer than {claims.SEEDS} seeds.',
    ))  # fmt: skip
  other = sum(trial.status != 'finished' for trial in tree.trials)
  if other:
    told.append((
      'note',
      f'{other} of {len(tree.trials)} runs did not finish: {ended(tree)}. They '
      'are listed at the end; a diverged run has no robustness, so the arms '
      'compared are those that every seed survived.',
    ))  # fmt: skip
  if tree.damages:
    told.append((
      'note',
      f'Damaged files: {len(tree.damages)}, listed at the end; what could be '
      'read of them is shown.',
    ))  # fmt: skip
  return told


def tiles(tree: Tree, verdicts: Sequence[claims.Verdict]) -> list[Tile]:
  """Headline numbers: how many runs, and the effects that C1 is about."""
  headlines = [Tile('Runs', str(len(tree.trials)), ended(tree))]
  c1 = next((v for v in verdicts if v.claim.name == 'C1'), None)
  claim, cells = shown(c1) if c1 else (None, [])
  for factor, name in FACTORS.items():
    values = [
      cell.estimate.value
      for cell in cells
      if cell.fields['factor'] == factor and math.isfinite(cell.estimate.value)
    ]
    if claim and values:
      low, middle, high = (
        ('+' if value > 0 else '') + tables.number(value)
        for value in np.quantile(values, (0, 0.5, 1))
      )
      note = f'{len(values)} combinations, {low} to {high}'
      what = 'Top-k kept' if claim.quantity == 'topk' else 'log₂ radius'
      headlines.append(Tile(f'{what}, {name}: median change', middle, note))
  return headlines


def runs(tree: Tree) -> tuple[list[str], list[list[Cell]]]:
  """(head, rows) of the table of all runs; what else was logged comes last."""
  shown, columns = tree.trials[:MOST], _columns(tree)
  if all(short_group(trial) == trial.family for trial in shown):
    del columns['Further']
  rows = [[column(trial) for column in columns.values()] for trial in shown]
  return list(columns), rows


def _columns(tree: Tree) -> dict[str, Callable[[Trial], Cell]]:
  text = lambda of: lambda trial: (of(trial), of(trial))
  end = lambda key, write=tables.short: (
    lambda trial: _sorted(trial.ends.get(key), write)
  )
  of_map = lambda means, write=tables.number: (
    lambda trial: _sorted(means.get(trial.name), write)
  )
  columns = {
    'Run': text(lambda t: t.name),
    'Network, data, loss': text(lambda t: t.family),
    'Further': text(lambda t: short_group(t).removeprefix(t.family)),
    'Rate': lambda t: _sorted(t.lr, '{:g}'.format),
    'Batch': lambda t: _sorted(t.batch, '{:g}'.format),
    'Seed': lambda t: _sorted(t.seed, str),
    'Status': text(lambda t: t.status),
    'Accuracy [%]': end('eval/accuracy', lambda a: tables.number(100 * a, 1)),
    'λ_max': end('param/lambda_max'),
    '‖H‖/‖g‖': end('input/normalized_curvature'),
  }
  if name := tree.leading():
    for rule in tree.rules:
      head = f'Top-k at {tables.rule(rule)}'
      columns[head] = of_map(heat.kept_of(tree, name, rule))
    half = heat.kept_of(tree, name, RULE, 'log2_eps50')
    half = {run: tables.radius(value) for run, value in half.items()}
    if np.isfinite(list(half.values())).any():
      head = f'ε50 [1/255] at {tables.rule(RULE)}'
      columns[head] = of_map(half, tables.short)
    noise = heat.kept_of(tree, name, 'last', 'random_topk')
    columns['Random signs'] = of_map(noise)
    speed = heat.kept_of(tree, name, 'last', 'speed')
    seconds = {run: math.exp(-value) for run, value in speed.items()}
    columns['Time [s]'] = of_map(seconds, tables.short)
  keys = dict.fromkeys(key for trial in tree.trials for key in trial.ends)
  known = ('eval/accuracy', 'param/lambda_max', 'input/normalized_curvature')
  return columns | {key: end(key) for key in keys if key not in known}


def _sorted(value: float | None, write: Callable[[Any], str]) -> Cell:
  if value is None or not math.isfinite(value):
    return '–', ''
  return write(value), value


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
