"""Curves of similarity over the radius of an attack, beside random signs."""

import pathlib
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.runs.reading import Evaluation

_COLOURS = (canvas.VERMILLION, canvas.PURPLE, canvas.ORANGE, canvas.GREEN)
UNIT = 255
"""Radii are shown in steps of an 8-bit pixel, 1/255 of its range."""


def draw(evaluation: Evaluation | None, folder: pathlib.Path) -> Exhibit:
  """A panel a map: every similarity over the radius, attack and noise."""
  rows = tables.ordered(evaluation.rows) if evaluation else []
  rows = [row for row in rows if row.get('curve')]
  return Exhibit(
    'Similarity to the clean map over the radius',
    'A panel is a map, a line of it a similarity: mean over images with a '
    '95 % bootstrap interval; 1 is an unchanged map. Grey: random signs of '
    'the same size; the area between is what the adversary adds, though one '
    'that aims at one measure may do less than noise on others. Each attack '
    'begins where the one at the next smaller radius ended. Diamond: ε50, the '
    'radius at which half of the top-k set is left, as the geometric mean '
    'over images, with its interval; images that never come to a half count '
    'with the largest radius, and those that are below it at once with the '
    'smallest. Axes do not start at 0.',
    tuple(
      _panel(name, mine, folder)
      for name, mine in tables.by(rows, lambda r: r['attribution']).items()
    ),
    'the evaluation was made at one radius (evaluation.radii is empty)',
  )


def _panel(
  name: str, rows: list[dict[str, Any]], folder: pathlib.Path
) -> Image:
  there = dict.fromkeys(m for row in rows for m in row['curve'] if m != 'eps')
  metrics = [m for m in tables.METRICS if m in there]
  metrics += [m for m in there if m not in metrics]
  title = tables.plain(name)
  every = canvas.stack(
    title, 'radius ε [1/255]',
    [tables.METRICS.get(m, tables.plain(m)) for m in metrics],
  )  # fmt: skip
  noise = [row for row in rows if row['attack'] == tables.BASELINE]
  attacks = [row for row in rows if row['attack'] != tables.BASELINE]
  for axes, metric in zip(every, metrics, strict=True):
    for row in noise:
      _line(axes, row, metric, canvas.GREY, 's')
    for row, colour in zip(attacks, _COLOURS * len(attacks), strict=False):
      _line(axes, row, metric, colour, 'o')
      for other in noise:
        if metric in other['curve'] and metric in row['curve']:
          between = (r['curve'][metric]['mean'] for r in (row, other))
          axes.fill_between(
            _radii(row), *between, color=colour, alpha=0.13, lw=0
          )
      if metric == 'topk':
        _half(axes, row, colour)
    axes.axhline(1, color=canvas.GREY, lw=0.5, zorder=0)
    axes.grid(axis='x', lw=0.4, color='#DDDDDD')
  canvas.radii(every[0].xaxis, _radii(rows[0]))
  figure = every[0].figure
  handles = {}
  for axes in every:
    handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
  figure.legend(
    handles.values(), handles.keys(), loc='outside upper right',
    ncols=len(handles), columnspacing=1, handletextpad=0.3, borderpad=0,
  )  # fmt: skip
  alt = f'{title}: similarity to the clean map over the radius of the attack'
  return canvas.save(figure, folder, f'radii_{name}', alt)


def _radii(row: dict[str, Any]) -> np.ndarray:
  return UNIT * np.array(row['curve']['eps'])


def _line(
  axes: Any, row: dict[str, Any], metric: str, colour: str, mark: str
) -> None:
  if metric not in row['curve']:
    return
  mean, low, high = map(np.array, row['curve'][metric].values())
  axes.errorbar(
    _radii(row), mean,
    yerr=np.nan_to_num(np.maximum([mean - low, high - mean], 0)),
    fmt=f'{mark}-', ms=3, lw=1.2, elinewidth=0.9, color=colour,
    label=tables.attack_name(row['attack']),
  )  # fmt: skip


def _half(axes: Any, row: dict[str, Any], colour: str) -> None:
  """ε50 on the line of a half, and in words above the axes."""
  log2 = row['metrics'].get('log2_eps50', {})
  mean, low, high = (
    tables.radius(log2.get(end)) for end in ('mean', 'low', 'high')
  )
  if not np.isfinite(mean):
    return
  axes.axhline(0.5, color=canvas.GREY, lw=0.6, ls=':', zorder=0)
  ends = np.nan_to_num(np.maximum([[mean - low], [high - mean]], 0))
  axes.errorbar(
    [mean], [0.5], xerr=ends, fmt='D', ms=4.5, mfc='white', color=colour,
    elinewidth=1.2, label='_ε50', zorder=4,
  )  # fmt: skip
  texts = [' '.join(cell) for cell in tables.radii(row)]
  before = axes.get_title(loc='right')
  axes.set_title(
    f'{before}\n' * bool(before)
    + f'ε50 {texts[0]}, censored {texts[1]}',
    loc='right', fontsize=7.5,
  )  # fmt: skip
