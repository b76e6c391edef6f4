"""The page of a sweep: a folder of runs as one file of HTML."""

import pathlib

from implicit_attr import claims
from implicit_attr.report import (
  arms,
  canvas,
  correlations,
  example_maps,
  heat,
  overview,
  rates,
  sweep_runs,
  template,
  trajectories,
  verdicts,
)


def write_sweep(root: str | pathlib.Path) -> pathlib.Path:
  """Writes figures/*.png, *.svg and report.html into a folder of runs.

  Reads only files below `root`; runs may be unfinished, diverged, failed or
  cut short, and what is not there is left out with a line that says so. The
  same files give the same bytes. The page embeds its images and needs no
  other file or network, and it can be read without its only script.

  Returns:
    The path of report.html.

  Raises:
    InputError: `root` is no folder, holds no run, or cannot be written.
  """
  tree = sweep_runs.load(root)
  judged = claims.judge([*tree.records, *tree.lost])
  folder = tree.path / 'figures'
  gain = next(v for v in judged if v.claim.name == 'C1')
  with canvas.drawing():
    return template.write(
      tree.path, 'sweep.html.j2',
      title=overview.title(tree), name=tree.path.resolve().name,
      story=overview.story(tree), banners=overview.banners(tree),
      tiles=overview.tiles(tree, judged),
      answers=verdicts.answers(judged), effect=verdicts.draw(gain, folder),
      rates=rates.draw(tree, folder), heat=heat.draw(tree, folder),
      trajectories=trajectories.draw(tree, folder),
      curvature=correlations.draw_curvature(tree, folder),
      bound=correlations.draw_bound(tree, folder),
      robustness=correlations.draw_robustness(tree, folder),
      correlations=correlations.correlations(tree),
      arms=arms.draw_maps(tree, folder), cost=arms.draw_cost(tree, folder),
      entropy=correlations.draw_entropy(tree, folder),
      ends=example_maps.draw(tree, folder),
      runs=overview.runs(tree), cut=len(tree.trials) - overview.MOST,
      unfinished=overview.unfinished(tree),
      problems=tree.problems, damages=tree.damages,
    )  # fmt: skip
