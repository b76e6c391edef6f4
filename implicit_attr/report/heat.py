"""Heat maps of a sweep: what each learning rate and batch size leads to.

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
from implicit_attr.report.sweep_runs import MOST, Tree, Trial, first
from implicit_attr.report.tables import by

_LEAST = 0.05
"""The span of colours: differences of nothing are not made to look like one."""

_ENDS = (
  (
    'accuracy', 'eval/accuracy', 'Test accuracy [%]',
    'Read this first: a network that has not learned has nothing to explain.',
  ),
  (
    'lambda_max', 'param/lambda_max',
    'Parameter curvature λ_max [loss / parameter²]',
    'The largest eigenvalue of the Hessian of the training loss. Theory '
    'expects it to fall to the right (larger steps).',
  ),
  (
    'input_curvature', 'input/normalized_curvature',
    'Normalised input curvature ‖H‖ / ‖g‖ of the logit [1 / pixel]',
    'How fast the explanation turns when the image changes, relative to its '
    'size. If flat parameters made flat inputs, this figure would look like '
    'the one of parameter curvature.',
  ),
)  # fmt: skip


def draw(tree: Tree, folder: pathlib.Path) -> list[Exhibit]:
  """Heat maps of accuracy, λ_max, normalised curvature and top-k kept.

  Means over seeds, at the end of training ('fixed duration').
  """
  exhibits = [
    _exhibit(tree, folder, name, lambda t: t.ends.get(key), title, caption)
    for name, key, title, caption in _ENDS
  ]
  for family in ('gradient', 'attention'):
    if name := tree.leading(family):
      kept = kept_of(tree, name)
      exhibits.append(
        _exhibit(
          tree, folder, f'topk_{family}', lambda t: kept.get(t.name),
          f'Top-k of the {tables.plain(name)} map kept under attack',
          'The share of the strongest pixels that stay the strongest; 1 is an '
          'unchanged map. The claim is that it grows to the right (larger '
          'steps) and downwards (smaller batches).',
        )
      )  # fmt: skip
  return exhibits


def kept_of(
  tree: Tree, name: str, rule: str = 'last', field: str = 'topk'
) -> dict[str, float]:
  """Run -> mean of `field` for one map under one rule, over attacks."""
  chosen = [r for r in tree.records if (r['map'], r['rule']) == (name, rule)]
  return {
    run: float(np.mean([record[field] for record in records]))
    for run, records in by(chosen, lambda r: r['trial'].name).items()
  }


def mean(values: Sequence[float | None]) -> float:
  """Of the finite ones; NaN if there is none."""
  finite = [v for v in values if v is not None and math.isfinite(v)]
  return float(np.mean(finite)) if finite else math.nan


def _exhibit(
  tree: Tree, folder: pathlib.Path, name: str,
  value: Callable[[Trial], float | None], title: str, caption: str,
) -> Exhibit:  # fmt: skip
  if not tree.swept:
    missing = 'no group of runs varies learning rate or batch size'
    return Exhibit(title, '', (), missing)
  grids = {
    group: grid
    for group, trials in tree.groups.items()
    if np.isfinite((grid := _Grid(trials, value)).values).any()
  }
  show = _Look(name, [grid.values for grid in first(grids).values()])
  caption += (
    ' A cell is the mean over seeds at the end of training; lighter is larger, '
    'on one scale for all panels. Empty: not run or not measured; “div.”: '
    'training diverged.'
  )
  if len(grids) > MOST:
    more = len(grids) - MOST
    caption += f' {more} more groups are in the table of all runs only.'
  return Exhibit(
    title,
    caption,
    tuple(
      _panel(folder, f'heat_{name}_{i}', group, grid, show, title)
      for i, (group, grid) in enumerate(first(grids).items())
    ),
    'no run measured it',
  )


class _Grid:
  """Means over seeds, [batch sizes, learning rates], both ascending."""

  def __init__(
    self, trials: Sequence[Trial], value: Callable[[Trial], float | None]
  ):
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


class _Look:
  """How values become colours and texts, the same in all panels of a figure."""

  def __init__(self, name: str, grids: Sequence[np.ndarray]):
    self._log = name in ('lambda_max', 'input_curvature')
    self._percent = name == 'accuracy'
    values = self.shade(np.concatenate([*map(np.ravel, grids), [np.nan]]))
    values = values[np.isfinite(values)]
    self.low = values.min(initial=np.inf)
    self.high = max(values.max(initial=-np.inf), self.low + _LEAST)

  def shade(self, values: np.ndarray | float) -> Any:
    """What is coloured; a logarithm is cut where nothing is left to tell."""
    return np.log(np.maximum(values, 1e-12)) if self._log else values

  def text(self, value: float) -> str:
    if self._percent:
      return f'{100 * value:.1f}'
    return (tables.short if self._log else tables.number)(value, 2)

  def ink(self, value: float) -> str:
    """White on dark cells, dark on light ones."""
    place = (self.shade(value) - self.low) / (self.high - self.low)
    return 'white' if place < 0.55 else canvas.INK


def _panel(
  folder: pathlib.Path, name: str, group: str, grid: _Grid, look: _Look,
  title: str,
) -> Image:  # fmt: skip
  rows, columns = grid.values.shape
  axes = canvas.panel(
    group, 'learning rate', 'batch size', height=0.9 + 0.3 * max(rows, 2)
  )
  axes.imshow(
    look.shade(grid.values), cmap='cividis', vmin=look.low, vmax=look.high,
    aspect='auto', origin='lower', interpolation='nearest',
  )  # fmt: skip
  for (row, column), value in np.ndenumerate(grid.values):
    text, colour = '', canvas.VERMILLION
    if np.isfinite(value):
      text, colour = look.text(value), look.ink(value)
    elif grid.diverged[row, column]:
      text = 'div.'
    axes.text(
      column, row, text, ha='center', va='center', color=colour,
      size=7.5 if columns <= 6 else 6,
    )  # fmt: skip
  axes.set_xticks(range(columns), [f'{lr:g}' for lr in grid.rates])
  axes.set_yticks(range(rows), [f'{batch:g}' for batch in grid.batches])
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  alt = f'{title}: {group}, by learning rate and batch size'
  return canvas.save(axes.figure, folder, name, alt)
