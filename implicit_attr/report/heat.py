"""What does each learning rate and batch size lead to, at a glance?

A panel for every network, data and loss; all panels of a figure share one
scale of colours, so that they can be compared.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.sweep_runs import Tree, Trial
from implicit_attr.report.tables import by

Value = Callable[[Trial], float]
MOST = 12
"""Groups that get a panel; the rest is in the table of all runs."""
_LEAST = 0.05
"""The span of colours: differences of nothing are not made to look like one."""


def draw(tree: Tree, folder: pathlib.Path) -> list[Exhibit]:
  """Heat maps of accuracy, λ_max, normalised curvature and top-k kept.

  Means over seeds, at the end of training ('fixed duration').
  """
  end = lambda key: lambda trial: trial.ends.get(key, math.nan)
  found = [
    _exhibit(
      tree, folder, 'accuracy', end('eval/accuracy'), False,
      'Test accuracy [%]',
      'Read this first: a network that has not learned has nothing to '
      'explain.',
    ),
    _exhibit(
      tree, folder, 'lambda_max', end('param/lambda_max'), True,
      'Parameter curvature λ_max [loss / parameter²]',
      'The largest eigenvalue of the Hessian of the training loss. Theory '
      'expects it to fall to the right (larger steps).',
    ),
    _exhibit(
      tree, folder, 'input_curvature', end('input/normalized_curvature'), True,
      'Normalised input curvature ‖H‖ / ‖g‖ of the logit [1 / pixel]',
      'How fast the explanation turns when the image changes, relative to '
      'its size. If flat parameters made flat inputs, this figure would look '
      'like the one of parameter curvature.',
    ),
  ]  # fmt: skip
  for family in ('gradient', 'attention'):
    name = tree.leading(family)
    if name is None:
      continue
    kept = kept_of(tree, name)
    found.append(
      _exhibit(
        tree, folder, f'topk_{family}', lambda trial: kept.get(trial.name),
        False,
        f'Top-k of the {tables.plain(name)} map kept under attack',
        'The share of the strongest pixels that stay the strongest; 1 is an '
        'unchanged map. The claim is that it grows to the right (larger steps) '
        'and downwards (smaller batches).',
      )
    )  # fmt: skip
  return found


def kept_of(
  tree: Tree, name: str, rule: str = 'last', field: str = 'topk'
) -> dict[str, float]:
  """Run -> mean of `field` for one map under one rule, over attacks."""
  found = by(
    [r for r in tree.records if (r['map'], r['rule']) == (name, rule)],
    lambda record: record['trial'].name,
  )
  means = {run: [r[field] for r in rs] for run, rs in found.items()}
  return {run: float(np.mean(values)) for run, values in means.items()}


def mean(values: Sequence[float | None]) -> float:
  """Of the finite ones; NaN if there is none."""
  finite = [v for v in values if v is not None and math.isfinite(v)]
  return float(np.mean(finite)) if finite else math.nan


def _exhibit(
  tree: Tree, folder: pathlib.Path, name: str, value: Value, log: bool,
  title: str, caption: str,
) -> Exhibit:  # fmt: skip
  if not tree.swept:
    return Exhibit(
      title, '', (), 'no group of runs varies learning rate or batch size'
    )
  grids = {
    group: grid
    for group, trials in tree.groups.items()
    if np.isfinite((grid := _Grid(trials, value)).values).any()
  }
  cut = f' {len(grids) - MOST} more groups are in the table of all runs only.'
  shown = dict(list(grids.items())[:MOST])
  finite = np.concatenate(
    [grid.values[np.isfinite(grid.values)] for grid in shown.values()]
    or [np.zeros(0)]
  )
  ends = (
    _scaled(np.array([finite.min(), finite.max()]), log) if finite.size else ()
  )
  return Exhibit(
    title,
    f'{caption} A cell is the mean over seeds at the end of training; lighter '
    'is larger, on one scale for all panels. Empty: not run or not measured; '
    f'“div.”: training diverged.{cut if len(grids) > MOST else ""}',
    tuple(
      _panel(folder, f'heat_{name}_{i}', group, grid, log, ends, title)
      for i, (group, grid) in enumerate(shown.items())
    ),
    'no run measured it',
  )


class _Grid:
  """Means over seeds, [batch sizes, learning rates], both ascending."""

  def __init__(self, trials: Sequence[Trial], value: Value):
    known = [t for t in trials if math.isfinite(t.lr + t.batch)]
    self.rates = sorted({t.lr for t in known})
    self.batches = sorted({t.batch for t in known})
    self.values = np.full((len(self.batches), len(self.rates)), np.nan)
    self.diverged = np.zeros(self.values.shape, bool)
    for (batch, lr), mine in by(known, lambda t: (t.batch, t.lr)).items():
      place = self.batches.index(batch), self.rates.index(lr)
      ended = [t for t in mine if t.status != 'diverged']
      self.values[place] = mean([value(t) for t in ended])
      self.diverged[place] = not ended


def _scaled(values: Any, log: bool) -> Any:
  """What is coloured; a logarithm is cut where nothing is left to tell."""
  return np.log(np.maximum(values, 1e-12)) if log else values


def _panel(
  folder: pathlib.Path, name: str, group: str, grid: _Grid, log: bool,
  ends: Sequence[float], title: str,
) -> Image:  # fmt: skip
  rows, columns = grid.values.shape
  axes = canvas.panel(
    group, 'learning rate', 'batch size',
    height=0.9 + 0.3 * max(rows, 2),
  )  # fmt: skip
  low, high = ends
  high = max(high, low + _LEAST)
  axes.imshow(
    _scaled(grid.values, log), cmap='cividis', vmin=low, vmax=high,
    aspect='auto', origin='lower', interpolation='nearest',
  )  # fmt: skip
  percent = 'accuracy' in title
  for row in range(rows):
    for column in range(columns):
      value = grid.values[row, column]
      text = 'div.' if grid.diverged[row, column] else ''
      colour = canvas.VERMILLION
      if np.isfinite(value):
        text = tables.short(value, 2) if log else tables.number(value, 2)
        text = f'{100 * value:.1f}' if percent else text
        dark = (_scaled(value, log) - low) / (high - low) < 0.55
        colour = 'white' if dark else canvas.INK
      axes.text(
        column, row, text, ha='center', va='center', color=colour,
        size=7.5 if columns <= 6 else 6,
      )  # fmt: skip
  axes.set_xticks(range(columns), [f'{lr:g}' for lr in grid.rates])
  axes.set_yticks(range(rows), [f'{batch:g}' for batch in grid.batches])
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  return canvas.save(
    axes.figure, folder, name,
    f'{title}: {group}, by learning rate and batch size',
  )  # fmt: skip
