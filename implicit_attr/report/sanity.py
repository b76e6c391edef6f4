"""Figure of the sanity checks: maps of randomised weights and labels."""

import pathlib
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit
from implicit_attr.report.tables import by
from implicit_attr.runs.reading import Evaluation


def draw(evaluation: Evaluation | None, folder: pathlib.Path) -> Exhibit | None:
  """A line a map, a height a layer and one for labels; None if not asked for.

  In the order of the test: weights are fresh from the logits down to each.
  """
  rows = evaluation.sanity if evaluation else []
  if not rows:
    return None
  lines = by(rows, lambda row: row['attribution'])
  ticks = list(dict.fromkeys(_place(row) for row in rows))
  axes = canvas.panel(
    'Maps of networks that lost what they learnt',
    'Spearman ρ with the trained map', '',
    height=1.0 + 0.19 * len(ticks) + 0.18 * -(-len(lines) // 2),
  )  # fmt: skip
  for number, (name, mine) in enumerate(lines.items()):
    mean, low, high = (
      np.array([row['spearman'][part] for row in mine], float)
      for part in ('mean', 'low', 'high')
    )
    lift = 0.2 * (number / max(len(lines) - 1, 1) - 0.5)
    axes.errorbar(
      mean, [ticks.index(_place(row)) + lift for row in mine],
      xerr=np.nan_to_num(np.maximum([mean - low, high - mean], 0)), fmt='o',
      color=canvas.CYCLE[number % len(canvas.CYCLE)], elinewidth=1.2,
      mfc='white' if number >= len(canvas.CYCLE) else None,
      label=tables.plain(name),
    )  # fmt: skip
  canvas.rows(axes, ticks)
  axes.grid(axis='x', lw=0.4, color='#DDDDDD')
  axes.set_axisbelow(True)
  axes.figure.legend(loc='outside lower center', ncols=2)
  fitted = tables.percent(
    next((r['fitted'] for r in rows if 'fitted' in r), None)
  )
  return Exhibit(
    'Sanity checks',
    'Weights are replaced by fresh ones from the logits down to the layer '
    'named; below, the network was trained anew on labels drawn at random, of '
    f'which it learnt {fitted}. Means over images labelled rightly, with 95 % '
    'bootstrap intervals, of the correlation of magnitudes. A map that stays '
    'near 1 is not about what was learnt (Adebayo et al., arXiv 1810.03292); '
    'its robustness says nothing about the network.',
    (
      canvas.save(
        axes.figure, folder, 'sanity',
        'Correlation of each map with the one of a randomised network',
      ),
    ),
  )  # fmt: skip


def _place(row: dict[str, Any]) -> str:
  if row.get('test') == 'labels':
    return 'random labels'
  return f'down to {tables.plain(str(row.get("replaced", "–")))}'
