"""Robustness of the maps of a run: similarities, and strength of the attack."""

import pathlib
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.runs.reading import Evaluation

_COLOURS = (canvas.VERMILLION, canvas.PURPLE, canvas.ORANGE, canvas.GREEN)

Entry = tuple[str, dict[str, Any]]
"""The name of a checkpoint, and a row of its evaluation."""


def draw_points(
  evaluations: dict[str, Evaluation], folder: pathlib.Path
) -> Exhibit:
  """A panel per similarity: a group a map, a line a checkpoint, a point a
  perturbation with its interval."""
  entries = _entries(evaluations)
  metrics = tables.names([r for _, r in entries], 'metrics', tables.METRICS)
  return Exhibit(
    'Similarity to the clean map',
    'Mean over images with a 95 % bootstrap interval; 1 is an unchanged map. '
    'The gap between the attack and random signs of the same size is what '
    'the adversary adds; an attack aims at one measure and may do less than '
    'noise on the others. Axes do not start at 0. A conclusion about training '
    'that holds on one line of a group only depends on the rule of '
    'comparison.',
    tuple(
      _points(entries, metric, folder)
      for metric in metrics
      if metric != 'log2_eps50'
    ),
    'the evaluations hold no row',
  )


def draw_radius(
  evaluations: dict[str, Evaluation], folder: pathlib.Path
) -> Exhibit:
  """The panel of `draw_points` of ε50, on an axis of radii."""
  entries = [
    entry
    for entry in _entries(evaluations)
    if np.isfinite(tables.radius(_half(entry).get('mean')))
  ]
  return Exhibit(
    'The radius that leaves half of the top-k set (ε50)',
    'Geometric mean over images with a 95 % bootstrap interval; to the right '
    'is more robust. Unlike a share left at one radius it has no floor and no '
    'ceiling but the ends of the radii that were tried, which are dashed: '
    'an image that lies beyond one counts with it, and the table below says '
    'how many do.',
    (_points(entries, 'log2_eps50', folder),) if entries else (),
    'the evaluations were made at one radius (evaluation.radii is empty)',
  )


def _half(entry: Entry) -> dict[str, Any]:
  return entry[1]['metrics'].get('log2_eps50', {})


def _entries(evaluations: dict[str, Evaluation]) -> list[Entry]:
  return [
    (name, row)
    for name, evaluation in evaluations.items()
    for row in tables.ordered(evaluation.rows)
  ]


def _points(entries: list[Entry], metric: str, folder: pathlib.Path) -> Image:
  entries = [entry for entry in entries if metric in entry[1]['metrics']]
  heights, labels = _layout(entries)
  title = tables.METRICS.get(metric, tables.plain(metric))
  half = metric == 'log2_eps50'
  axes = canvas.panel(
    '', title if half else f'{title} (1 is unchanged)', '',
    height=0.85 + 0.19 * len(labels),
  )  # fmt: skip
  attacks = list(dict.fromkeys(row['attack'] for _, row in entries))
  lowest = 0.9
  for number, attack in enumerate(attacks):
    mine = [entry for entry in entries if entry[1]['attack'] == attack]
    mean, low, high = (
      np.array([row['metrics'][metric][end] for _, row in mine])
      for end in ('mean', 'low', 'high')
    )
    if half:
      mean, low, high = np.vectorize(tables.radius)([mean, low, high])
    # A missing end of an interval is drawn as none.
    bars = np.nan_to_num(np.maximum([mean - low, high - mean], 0))
    baseline = attack == tables.BASELINE
    lift = 0.2 * (number - (len(attacks) - 1) / 2)
    axes.errorbar(
      mean, [heights[_line(entry)] + lift for entry in mine],
      xerr=bars, fmt='s' if baseline else 'o', ms=3.5,
      color=canvas.GREY if baseline else _COLOURS[number % len(_COLOURS)],
      elinewidth=1.2, label=tables.attack_name(attack),
    )  # fmt: skip
    lowest = min(lowest, np.nan_to_num(mean - bars[0], nan=1.0).min())
  canvas.rows(axes, labels)
  for height, label in enumerate(axes.get_yticklabels()):
    if height not in heights.values():
      label.set_weight('bold')
  if half:
    curves = [row['curve'] for _, row in entries if row.get('curve')]
    tried = [255 * eps for curve in curves for eps in curve['eps']]
    ends = [min(tried), max(tried)] if tried else []
    shown = np.array([*axes.dataLim.intervalx, *ends[1:]])
    canvas.radii(axes.xaxis, shown)
    axes.set_xlim(shown.min() / 1.2, shown.max() * 1.1)
    for end in ends:
      axes.axvline(end, color=canvas.GREY, lw=0.8, ls='--', zorder=0)
  else:
    canvas.up_to_one(axes, lowest)
  axes.grid(axis='x', lw=0.4, color='#DDDDDD')
  axes.set_axisbelow(True)
  axes.figure.legend(
    loc='outside upper right', ncols=2, columnspacing=1, handletextpad=0.3
  )
  return canvas.save(
    axes.figure, folder, f'robustness_{metric}',
    f'{title} of each map under each perturbation',
  )  # fmt: skip


def _line(entry: Entry) -> tuple[str, str]:
  """What shares a line of the figure: all perturbations of one condition."""
  return entry[1]['attribution'], entry[0]


def _layout(
  entries: list[Entry],
) -> tuple[dict[tuple[str, str], int], list[str]]:
  """(height of every line, labels from the top): groups under a head.

  With one checkpoint a group is one line and needs no head of its own.
  """
  lines = list(dict.fromkeys(map(_line, entries)))
  one = len({name for _, name in lines}) == 1
  heights: dict[tuple[str, str], int] = {}
  labels: list[str] = []
  for method in dict.fromkeys(method for method, _ in lines):
    labels += [] if one else [tables.plain(method)]
    for line in lines:
      if line[0] == method:
        heights[line] = len(labels)
        labels.append(
          tables.plain(method) if one else f'{tables.rule(line[1])}  '
        )
  return heights, labels


def draw_strength(
  evaluation: Evaluation | None, folder: pathlib.Path
) -> Exhibit:
  """Top-k kept by the best iterate so far, over the steps of the attack."""
  arrays = evaluation.examples if evaluation else {}
  curves = {
    key.removeprefix('curve/').rpartition('/')[::2]: np.ravel(value)
    for key, value in arrays.items()
    if key.startswith('curve/') and np.size(value) > 1
  }
  images = ()
  if curves:
    axes = canvas.panel('', 'steps of the attack', 'top-k kept, mean')
    several = len({attack for _, attack in curves}) > 1
    for number, ((method, attack), values) in enumerate(curves.items()):
      label = tables.plain(method)
      label += f', {tables.attack_name(attack)}' if several else ''
      axes.plot(
        np.arange(1, 1 + len(values)), values,
        '-' if number < len(canvas.CYCLE) else '--',
        color=canvas.CYCLE[number % len(canvas.CYCLE)], label=label,
      )  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.legend()
    alt = 'Top-k kept by the best iterate so far, over the steps of the attack'
    images = (canvas.save(axes.figure, folder, 'strength', alt),)
  return Exhibit(
    'Strength of the attack',
    'Share of the top-k pixels kept by the best image found so far. A curve '
    'that still falls at its right end says that a longer attack would find '
    'more: read the robustness of that map as an upper bound only.',
    images,
    'no curve of the attack was kept',
  )
