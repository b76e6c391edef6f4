"""How does a folder of runs become one page that needs nothing else?"""

import pathlib

from implicit_attr import claims
from implicit_attr.report import (
  arms,
  canvas,
  correlations,
  example_maps,
  heat,
  overview,
  sweep_runs,
  template,
  trajectories,
  verdicts,
)


def write_sweep(root: str | pathlib.Path) -> pathlib.Path:
  """Writes figures/*.png and report.html into a folder that holds runs.

  Reads only files below `root`; runs may be unfinished, diverged, failed or
  cut short, and what is not there is left out with a line that says so. The
  same files give the same bytes. The page embeds its images and needs no
  other file or network; its only script sorts tables, and it can be read
  without.

  Returns:
    The path of report.html.

  Raises:
    InputError: `root` is no folder, holds no run, or cannot be written.
  """
  found = sweep_runs.load(root)
  judged = claims.judge(found.records)
  folder = template.figures(found.path)
  gain = next(v for v in judged if v.claim.name == 'C1')
  with canvas.drawing():
    return template.write(
      found.path,
      'sweep.html.j2',
      title=overview.title(found),
      name=found.path.resolve().name,
      story=overview.story(found),
      banners=overview.banners(found),
      tiles=overview.tiles(found, judged),
      answers=verdicts.answers(judged),
      effect=verdicts.draw(gain, folder),
      heat=heat.draw(found, folder),
      trajectories=trajectories.draw(found, folder),
      curvature=correlations.draw_curvature(found, folder),
      bound=correlations.draw_bound(found, folder),
      robustness=correlations.draw_robustness(found, folder),
      correlations=correlations.correlations(found),
      arms=arms.draw_maps(found, folder),
      cost=arms.draw_cost(found, folder),
      entropy=correlations.draw_entropy(found, folder),
      ends=example_maps.draw(found, folder),
      runs=overview.runs(found),
      cut=len(found.trials) - overview.MOST,
      unfinished=overview.unfinished(found),
      problems=found.problems,
      damages=found.damages,
    )
