"""What do attacked explanations look like at both ends of a sweep?"""

import dataclasses
import pathlib
from collections.abc import Sequence

from implicit_attr.report import maps
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.sweep_runs import Tree, Trial
from implicit_attr.runs import reading

_SHOWN = 3
"""Examples of each end."""


def draw(tree: Tree, folder: pathlib.Path) -> list[Exhibit]:
  """The leading map of a run at each end: smallest rate and largest batch,
  largest rate and smallest batch, of the first group that has both."""
  name = tree.leading() or tree.leading('attention')
  for trials in tree.groups.values() if name else ():
    pair = _pair(trials)
    shown = [_shown(trial, name) for trial in pair]
    if len(shown) == 2 and all(shown):
      return [
        _exhibit(trial, evaluation, folder, end)
        for trial, evaluation, end in zip(
          pair, shown, ('start', 'goal'), strict=True
        )
      ]
  missing = 'no group of runs kept example maps at both ends'
  return [Exhibit('Maps at both ends of the sweep', '', (), missing)]


def _pair(trials: Sequence[Trial]) -> list[Trial]:
  """[where the claim expects the least, where the most]; [] if the same."""
  ended = [t for t in trials if t.status == 'finished']
  if not ended:
    return []
  seed = lambda trial: -1 if trial.seed is None else trial.seed
  ends = [
    min(ended, key=lambda t: (sign * t.lr, -sign * t.batch, seed(t)))
    for sign in (1, -1)
  ]
  return ends if ends[0] is not ends[1] else []


def _shown(trial: Trial, name: str) -> reading.Evaluation | None:
  """What a run kept of the map `name`; None if it kept nothing to draw."""
  found = reading.load(trial.path).evaluations.get('last')
  if found is None or not {'images', f'map/{name}/clean'} <= set(
    found.examples
  ):
    return None
  arrays = {
    key: value
    for key, value in found.examples.items()
    if '/' not in key or key.split('/')[1] == name
  }
  arrays['images'] = arrays['images'][:_SHOWN]
  return dataclasses.replace(found, examples=arrays)


def _exhibit(
  trial: Trial, evaluation: reading.Evaluation, folder: pathlib.Path, end: str
) -> Exhibit:
  found = maps.draw(evaluation, folder)
  images = []
  for number, image in enumerate(found.images):
    path = image.path.with_name(f'ends_{end}_{number}.png')
    image.path.replace(path)
    images.append(Image(path, image.alt, image.width))
  where = f'learning rate {trial.lr:g}, batch size {trial.batch:g}'
  caption = found.caption
  if end == 'goal':
    caption = (
      'The same, at the other end, where the claim expects maps to stay.'
    )
  return dataclasses.replace(
    found,
    title=f'Maps at {where}: {trial.group}',
    caption=caption,
    images=tuple(images),
  )
