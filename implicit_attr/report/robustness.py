"""How much of an explanation survives an attack, and was it a good attack?"""

import pathlib
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.read import Evaluation

_COLOURS = (canvas.VERMILLION, canvas.PURPLE, canvas.ORANGE, canvas.GREEN)


def draw_points(
  evaluations: dict[str, Evaluation], folder: pathlib.Path
) -> Exhibit:
  """A panel per similarity: a group a map, a line a checkpoint, a point a
  perturbation with its interval."""
  entries = [
    (name, row)
    for name, evaluation in evaluations.items()
    for row in tables.ordered(evaluation.rows)
  ]
  return Exhibit(
    'Similarity to the clean map',
    'Mean over images with a 95 % bootstrap interval; 1 is an unchanged map. '
    'The gap between the attack and random signs of the same size is what '
    'the adversary adds; an attack aims at one measure and may do less than '
    'noise on the others. Axes do not start at 0. A conclusion about training '
    'that holds on one line of a group only depends on the rule of '
    'comparison.',
    tuple(
      image
      for metric in tables.measured([row for _, row in entries])
      if (image := _points(entries, metric, folder))
    ),
    'the evaluations hold no row',
  )


def _points(
  entries: list[tuple[str, dict[str, Any]]], metric: str, folder: pathlib.Path
) -> Image | None:
  entries = [
    (name, row)
    for name, row in entries
    if isinstance((row.get('metrics') or {}).get(metric), dict)
  ]
  if not entries:
    return None
  heights, ticks = _layout(entries)
  title = tables.METRICS.get(metric, tables.plain(metric))
  axes = canvas.panel(
    '', f'{title} (1 is unchanged)', '', height=0.85 + 0.19 * len(ticks)
  )
  attacks = list(dict.fromkeys(row.get('attack', '–') for _, row in entries))
  lowest = 0.9
  for number, attack in enumerate(attacks):
    mine = [entry for entry in entries if entry[1].get('attack', '–') == attack]
    found = [row['metrics'][metric] for _, row in mine]
    mean, low, high = (
      np.array([_finite(value.get(part)) for value in found])
      for part in ('mean', 'low', 'high')
    )
    # A missing end of an interval is drawn as none.
    bars = np.nan_to_num(np.maximum([mean - low, high - mean], 0))
    baseline = attack == tables.BASELINE
    lift = 0.2 * (number - (len(attacks) - 1) / 2)
    axes.errorbar(
      mean, [heights[_line(*entry)] + lift for entry in mine],
      xerr=bars, fmt='s' if baseline else 'o', ms=3.5,
      color=canvas.GREY if baseline else _COLOURS[number % len(_COLOURS)],
      elinewidth=1.2, label=tables.attack_name(attack),
    )  # fmt: skip
    lowest = min(lowest, np.nan_to_num(mean - bars[0], nan=1.0).min())
  axes.set_yticks(*zip(*ticks, strict=True))
  for label, (height, _) in zip(axes.get_yticklabels(), ticks, strict=True):
    if height not in heights.values():
      label.set_weight('bold')
  axes.set_ylim(len(ticks) - 0.4, -0.6)
  low = np.floor(10 * lowest) / 10
  axes.set_xlim(low, 1 + 0.02 * (1 - low))
  axes.grid(axis='x', lw=0.4, color='#DDDDDD')
  axes.set_axisbelow(True)
  axes.tick_params(axis='y', length=0)
  axes.spines['left'].set_visible(False)
  axes.figure.legend(
    loc='outside upper right', ncols=2, columnspacing=1, handletextpad=0.3
  )
  return canvas.save(
    axes.figure,
    folder,
    f'robustness_{metric}',
    f'{title} of each map under each perturbation',
  )


def _line(name: str, row: dict[str, Any]) -> tuple[Any, ...]:
  """What shares a line of the figure: all perturbations of one condition."""
  return row.get('attribution'), row.get('eps'), name


def _layout(
  entries: list[tuple[str, dict[str, Any]]],
) -> tuple[dict[tuple[Any, ...], int], list[tuple[int, str]]]:
  """(height of every line, labels at every height): groups under a head.

  With one checkpoint a group is one line and needs no head of its own.
  """
  lines = list(dict.fromkeys(_line(*entry) for entry in entries))
  groups = list(dict.fromkeys(line[:2] for line in lines))
  several = len({eps for _, eps in groups}) > 1
  one = len({name for *_, name in lines}) == 1
  heights: dict[tuple[Any, ...], int] = {}
  ticks: list[tuple[int, str]] = []
  for group in groups:
    head = tables.plain(str(group[0]))
    head += f', ε = {tables.short(group[1])}' if several else ''
    if not one:
      ticks.append((len(ticks), head))
    for line in lines:
      if line[:2] == group:
        heights[line] = len(ticks)
        label = head if one else f'{tables.rule(line[2])}  '
        ticks.append((len(ticks), label))
  return heights, ticks


def _finite(value: Any) -> float:
  return float(value) if isinstance(value, int | float) else float('nan')


def draw_strength(
  evaluation: Evaluation | None, folder: pathlib.Path
) -> Exhibit:
  """Top-k kept by the best iterate so far, over the steps of the attack."""
  arrays = evaluation.examples if evaluation else {}
  curves = {
    key.split('/', 1)[1]: np.ravel(value)
    for key, value in arrays.items()
    if key.startswith('curve/') and np.size(value) > 1
  }
  images = ()
  if evaluation and curves:
    axes = canvas.panel('', 'steps of the attack', 'top-k kept, mean')
    steps = evaluation.settings.get('steps')
    several = len({name.partition('/')[2] for name in curves}) > 1
    for number, (name, values) in enumerate(curves.items()):
      method, _, attack = name.partition('/')
      label = tables.plain(method)
      label += f', {tables.attack_name(attack)}' if several else ''
      first = 1 if len(values) == steps else 0
      axes.plot(
        np.arange(first, first + len(values)), values,
        '-' if number < len(canvas.CYCLE) else '--',
        color=canvas.CYCLE[number % len(canvas.CYCLE)],
        label=label,
      )  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.legend()
    images = (
      canvas.save(
        axes.figure, folder, 'strength',
        'Top-k kept by the best iterate so far, over the steps of the attack',
      ),
    )  # fmt: skip
  return Exhibit(
    'Strength of the attack',
    'Share of the top-k pixels kept by the best image found so far. A curve '
    'that still falls at its right end says that a longer attack would find '
    'more: read the robustness of that map as an upper bound only.',
    images,
    'no curve of the attack was kept',
  )
