"""Robustness of every map in every arm of a sweep, and what the arm cost."""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from implicit_attr.report import canvas, heat, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.colours import Shades, of_runs
from implicit_attr.report.sweep_runs import Tree, first
from implicit_attr.report.tables import by

Record = dict[str, Any]
_BAND = 0.55  # inches a map gets


def draw_maps(tree: Tree, folder: pathlib.Path) -> list[Exhibit]:
  """For each rule of comparison: top-k kept of each map in each arm."""
  shades, of, what = of_runs(tree)
  group_of = lambda r: r['trial'].group if what else r['trial'].family
  caption = (
    'A point is an arm: the mean over its seeds, with a line from the lowest '
    'to the highest seed. Within the band of a map, arms are in order of '
    f'{what or "their names"}, so that an effect is a slope. Grey crosses: the '
    'same arms under random signs of the same size, which nobody aimed; what '
    'lies between is the adversary’s work. Axes do not start at 0.'
  )
  return [
    Exhibit(
      f'Top-k kept by each map, runs compared at {tables.rule(rule)}',
      caption,
      tuple(
        _strip(
          folder, f'arms_{rule}_{i}', group, records, shades,
          lambda r: of(r['trial']), what,
        )
        for i, (group, records) in enumerate(
          first(by((r for r in tree.records if r['rule'] == rule), group_of))
          .items()
        )
      ),
      'no evaluation is there',
    )
    for rule in tree.rules or ['last']
  ]  # fmt: skip


def _strip(
  folder: pathlib.Path, name: str, group: str, records: Sequence[Record],
  shades: Shades, of: Callable[[Record], Any], what: str,
) -> Image:  # fmt: skip
  lines = by(records, lambda r: (r['map'], r['attack']))
  arms = by(records, lambda r: (of(r), r['trial'].batch))
  order = sorted(arms, key=lambda a: (shades.values.index(a[0]), a[1]))
  axes = canvas.panel(
    group, 'top-k kept (1 is unchanged)', '', height=1.1 + _BAND * len(lines)
  )
  noise, points = [], []
  for band, mine in enumerate(lines.values()):
    seeds = by(mine, lambda r: (of(r), r['trial'].batch))
    for place, arm in enumerate(order):
      height = band + 0.8 * ((place + 0.5) / len(order) - 0.5)
      of_arm = seeds.get(arm, [])
      noise.append((heat.mean([r['random_topk'] for r in of_arm]), height))
      kept = [r['topk'] for r in of_arm if math.isfinite(r['topk'])]
      if kept:
        ends = min(kept), float(np.mean(kept)), max(kept)
        points.append((*ends, height, shades.colour(arm[0])))
    if band:
      axes.axhline(band - 0.5, color='#DDDDDD', lw=0.6, zorder=0)
  axes.scatter(
    *zip(*noise, strict=True), marker='x', s=7, lw=0.6, color=canvas.GREY,
    zorder=1,
  )  # fmt: skip
  if points:
    low, mean, high, heights, colours = zip(*points, strict=True)
    axes.hlines(heights, low, high, colors=colours, lw=0.8)
    axes.scatter(mean, heights, s=9, lw=0, c=colours, zorder=2)
  several = len({attack for _, attack in lines}) > 1
  canvas.rows(axes, [
    tables.plain(m) + (f'\n{tables.attack_name(a)}' if several else '')
    for m, a in lines
  ])  # fmt: skip
  canvas.up_to_one(axes, min([0.9, *(point[0] for point in points)]))
  shades.legend(axes, [arm[0] for arm in order], what)
  maps = len({name for name, _ in lines})
  return canvas.save(
    axes.figure, folder, name,
    f'{group}: top-k kept of {maps} maps in {len(order)} arms',
  )  # fmt: skip


def draw_cost(tree: Tree, folder: pathlib.Path) -> Exhibit:
  """Seconds of training against top-k kept, with the frontier."""
  shades, of, what = of_runs(tree)
  if len({trial.objective for trial in tree.trials}) > 1:
    shades = Shades([trial.objective for trial in tree.trials])
    of, what = (lambda trial: trial.objective), 'objective'
  name, images = tree.leading() or '', []
  chosen = [
    record
    for record in tree.records
    if (record['map'], record['rule']) == (name, 'last')
    and math.isfinite(record['speed'] + record['topk'])
  ]
  families = first(by(chosen, lambda record: record['trial'].family))
  for family, records in families.items():
    axes = canvas.panel(
      family, 'training time [s]', f'top-k kept, {tables.plain(name)}', 2.9
    )
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
    alt = f'{family}: training time against top-k kept'
    images.append(canvas.save(axes.figure, folder, f'cost_{len(images)}', alt))
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
