"""ε50 against the learning rate, runs compared at equal training loss."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from implicit_attr.report import canvas, heat, tables
from implicit_attr.report.arms import Record
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.colours import Shades
from implicit_attr.report.sweep_runs import MOST, Tree
from implicit_attr.report.tables import by

RULE = 'train_loss'
CENSORED = 0.1
"""A point of which more than this share of images is censored is hollow."""


def draw(tree: Tree, folder: pathlib.Path) -> Exhibit:
  """A panel a group and map: ε50 over the rate, a line a batch size."""
  chosen = [
    record
    for record in tree.records
    if record['rule'] == RULE
    and math.isfinite(record['log2_eps50'] + record['lr'])
    and record['lr'] > 0
  ]
  panels = by(chosen, lambda r: (r['trial'].group, r['map']))
  panels = {
    place: records
    for place, records in panels.items()
    if len({record['lr'] for record in records}) > 1
  }
  shown, more = list(panels.items())[:MOST], len(panels) - MOST
  return Exhibit(
    'ε50 against the learning rate at equal training loss',
    'The radius at which half of the strongest pixels of a map are left '
    'under attack, when training had come to the same loss in every run. A '
    'point is an arm, the geometric mean over its seeds, with a line from the '
    'lowest to the highest seed; a line joins the rates of a batch size. The '
    'claim is that lines rise. Grey crosses: the same under random signs. '
    f'Hollow: more than {100 * CENSORED:.0f} % of the images lie beyond the '
    'radii tried, so that the true value is further out.'
    + (f' {more} more panels are left out.' if more > 0 else ''),
    tuple(
      _panel(folder, f'rates_{i}', group, map_name, records)
      for i, ((group, map_name), records) in enumerate(shown)
    ),
    'no two learning rates were evaluated over radii '
    '(evaluation.radii) at equal training loss',
  )


def _panel(
  folder: pathlib.Path, name: str, group: str, map_name: str,
  records: Sequence[Record],
) -> Image:  # fmt: skip
  title = tables.plain(map_name)
  axes = canvas.panel(
    f'{title}: {group}', 'learning rate', 'ε50 [1/255]', height=2.9
  )
  batches = by(records, lambda r: (r['attack'], r['trial'].batch))
  shades = Shades([batch for _, batch in batches])
  heights = []
  for (_, batch), mine in batches.items():
    arms = dict(sorted(by(mine, lambda r: r['lr']).items()))
    colour, middle = shades.colour(batch), []
    for lr, seeds in arms.items():
      radii = [tables.radius(r['log2_eps50']) for r in seeds]
      middle.append(float(np.exp(np.mean(np.log(radii)))))
      noise = heat.mean([r['random_log2_eps50'] for r in seeds])
      beyond = heat.mean(
        [r['censored_below'] + r['censored_above'] for r in seeds]
      )
      face = 'white' if beyond > CENSORED else colour
      axes.vlines(lr, min(radii), max(radii), colors=colour, lw=1)
      axes.plot(
        lr, middle[-1], 'o', ms=4.5, color=colour, mfc=face, zorder=3,
        label=f'_batch {batch:g}',
      )  # fmt: skip
      axes.plot(
        lr, tables.radius(noise), 'x', ms=4, color=canvas.GREY, zorder=1,
        label='_random signs',
      )  # fmt: skip
      heights += [*radii, tables.radius(noise)]
    axes.plot(list(arms), middle, '-', color=colour, lw=0.9, zorder=2)
  rates = sorted({record['lr'] for record in records})
  axes.set_xscale('log')
  axes.set_xticks(rates, [f'{lr:g}' for lr in rates])
  axes.set_xticks([], minor=True)
  canvas.radii(axes.yaxis, np.array(heights)[np.isfinite(heights)])
  shades.legend(axes, [batch for _, batch in batches], 'batch size')
  alt = f'ε50 of the {title} map against the learning rate: {group}'
  return canvas.save(axes.figure, folder, name, alt)
