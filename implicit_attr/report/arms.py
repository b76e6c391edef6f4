"""How robust is every map in every arm, and what did that arm cost?"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from implicit_attr.report import canvas, heat, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.colours import Shades, of_runs
from implicit_attr.report.sweep_runs import Tree
from implicit_attr.report.tables import by

Record = dict[str, Any]
_BAND = 0.55  # inches a map gets


def draw_maps(tree: Tree, folder: pathlib.Path) -> list[Exhibit]:
  """For each rule of comparison: top-k kept of each map in each arm."""
  shades, of, what = of_runs(tree)
  found = []
  for rule in tree.rules or ['last']:
    chosen = [record for record in tree.records if record['rule'] == rule]
    groups = by(
      chosen, lambda r: r['trial'].group if what else r['trial'].family
    )
    images = tuple(
      _strip(
        folder, f'arms_{rule}_{i}', group, records, shades,
        lambda r: of(r['trial']), what,
      )
      for i, (group, records) in enumerate(list(groups.items())[: heat.MOST])
    )  # fmt: skip
    found.append(
      Exhibit(
        f'Top-k kept by each map, runs compared at {tables.rule(rule)}',
        'A point is an arm: the mean over its seeds, with a line from the '
        'lowest to the highest seed. Within the band of a map, arms are in '
        f'order of {what or "their names"}, so that an effect is a slope. '
        'Grey crosses: the same arms under random signs of the same size, '
        'which nobody aimed; what lies between is the adversary’s work. Axes '
        'do not start at 0.',
        images,
        'no evaluation is there',
      )
    )
  return found


def _strip(
  folder: pathlib.Path, name: str, group: str, records: Sequence[Record],
  shades: Shades, of: Any, what: str,
) -> Image:  # fmt: skip
  maps = list(dict.fromkeys(record['map'] for record in records))
  arms = by(records, lambda r: (of(r), r['trial'].batch))
  order = sorted(arms, key=lambda a: (shades.values.index(a[0]), a[1]))
  several = len({record['attack'] for record in records}) > 1
  lines = list(dict.fromkeys((r['map'], r['attack']) for r in records))
  axes = canvas.panel(
    group, 'top-k kept (1 is unchanged)', '',
    height=1.1 + _BAND * len(lines),
  )  # fmt: skip
  noise, points = [], []
  for band, line in enumerate(lines):
    for place, arm in enumerate(order):
      mine = [r for r in arms[arm] if (r['map'], r['attack']) == line]
      height = band + 0.8 * ((place + 0.5) / len(order) - 0.5)
      noise.append((heat.mean([r['random_topk'] for r in mine]), height))
      kept = [r['topk'] for r in mine if math.isfinite(r['topk'])]
      if kept:
        ends = min(kept), float(np.mean(kept)), max(kept)
        points.append((*ends, height, shades.colour(arm[0])))
    if band:
      axes.axhline(band - 0.5, color='#DDDDDD', lw=0.6, zorder=0)
  axes.scatter(
    *zip(*noise, strict=True), marker='x', s=7, lw=0.6, color=canvas.GREY,
    zorder=1,
  )  # fmt: skip
  lowest = min([0.9, *(point[0] for point in points)])
  if points:
    low, mean, high, heights, colours = zip(*points, strict=True)
    axes.hlines(heights, low, high, colors=colours, lw=0.8)
    axes.scatter(mean, heights, s=9, lw=0, c=colours, zorder=2)
  labels = [
    tables.plain(m) + (f'\n{tables.attack_name(a)}' if several else '')
    for m, a in lines
  ]
  axes.set_yticks(range(len(lines)), labels)
  axes.set_ylim(len(lines) - 0.45, -0.55)
  low = math.floor(10 * lowest) / 10
  axes.set_xlim(low, 1 + 0.02 * (1 - low))
  axes.tick_params(axis='y', length=0)
  axes.spines['left'].set_visible(False)
  shades.legend(axes, [arm[0] for arm in order], what)
  return canvas.save(
    axes.figure, folder, name,
    f'{group}: top-k kept of {len(maps)} maps in {len(order)} arms',
  )  # fmt: skip


def draw_cost(tree: Tree, folder: pathlib.Path) -> Exhibit:
  """Seconds of training against top-k kept, with the frontier."""
  shades, of, what = of_runs(tree)
  if len({trial.objective for trial in tree.trials}) > 1:
    shades = Shades([trial.objective for trial in tree.trials])
    of, what = (lambda trial: trial.objective), 'objective'
  name = tree.leading()
  chosen = [
    record
    for record in tree.records
    if (record['map'], record['rule']) == (name, 'last')
    and math.isfinite(record['speed'] + record['topk'])
  ]
  groups = by(chosen, lambda record: record['trial'].family)
  images = []
  for family, records in list(groups.items())[: heat.MOST]:
    axes = canvas.panel(
      family, 'training time [s]',
      f'top-k kept, {tables.plain(name)}', height=2.9,
    )  # fmt: skip
    arms = by(records, lambda r: (r['trial'].group, r['lr'], r['batch_size']))
    points = []
    for mine in arms.values():
      seconds = heat.mean([math.exp(-r['speed']) for r in mine])
      points.append((seconds, heat.mean([r['topk'] for r in mine])))
      value = of(mine[0]['trial'])
      axes.plot(
        *points[-1], shades.mark(value), ms=4, color=shades.colour(value)
      )
    axes.plot(
      *zip(*frontier(points), strict=True), color=canvas.GREY, lw=0.8,
      zorder=0, drawstyle='steps-post',
    )  # fmt: skip
    canvas.fit_scale(axes.xaxis, np.array([seconds for seconds, _ in points]))
    shades.legend(axes, [of(r['trial']) for r in records], what)
    images.append(
      canvas.save(
        axes.figure, folder, f'cost_{len(images)}',
        f'{family}: training time against top-k kept',
      )
    )  # fmt: skip
  return Exhibit(
    'Cost against robustness',
    'A point is an arm, the mean over its seeds at the end of training; up is '
    'more robust, left is cheaper. The grey line joins the arms that no other '
    'beats on both. Time is that of the updates alone, on the machine of the '
    'run; arms that trained together (--lanes) have none.',
    tuple(images),
    'no evaluated run logged its speed',
  )


def frontier(
  points: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
  """Those of (cost, worth) that nothing cheaper equals, by rising cost."""
  best: list[tuple[float, float]] = []
  for point in sorted(points, key=lambda p: (p[0], -p[1])):
    if not best or point[1] > best[-1][1]:
      best.append(point)
  return best
