"""Attacked explanations at both ends of a sweep, side by side."""

import dataclasses
import pathlib
from collections.abc import Sequence

from implicit_attr.report import maps
from implicit_attr.report.canvas import Exhibit
from implicit_attr.report.sweep_runs import Tree, Trial
from implicit_attr.runs import reading

_SHOWN = 3
"""Examples of each end."""


def draw(tree: Tree, folder: pathlib.Path) -> list[Exhibit]:
  """The leading map of a run at each end: smallest rate and largest batch,
  largest rate and smallest batch, of the first group that has both."""
  name = tree.leading() or tree.leading('attention') or ''
  for trials in tree.groups.values() if name else ():
    pair = _pair(trials)
    shown = [kept for trial in pair if (kept := _shown(trial, name))]
    if len(shown) == 2:
      start, goal = (
        _exhibit(trial, kept, folder / f'ends_{place}')
        for trial, kept, place in zip(
          pair, shown, ('start', 'goal'), strict=True
        )
      )
      caption = (
        'The same, at the other end, where the claim expects maps to stay.'
      )
      return [start, dataclasses.replace(goal, caption=caption)]
  missing = 'no group of runs kept example maps at both ends'
  return [Exhibit('Maps at both ends of the sweep', '', (), missing)]


def _pair(trials: Sequence[Trial]) -> list[Trial]:
  """[where the claim expects the least, where the most]; [] if the same."""
  ended = [t for t in trials if t.status == 'finished']
  if not ended:
    return []
  seed = lambda trial: -1 if trial.seed is None else trial.seed
  ends = [
    min(ended, key=lambda t: (s * t.lr, -s * t.batch, seed(t))) for s in (1, -1)
  ]
  return ends if ends[0] is not ends[1] else []


def _shown(trial: Trial, name: str) -> reading.Evaluation | None:
  """What a run kept of the map `name`; None if it kept nothing to draw."""
  run = reading.load(
    trial.path, arrays=lambda key: '/' not in key or key.split('/')[1] == name
  )
  evaluation = run.evaluations.get('last')
  if evaluation is None:
    return None
  arrays = evaluation.examples
  if not {'images', f'map/{name}/clean'} <= set(arrays):
    return None
  first = arrays | {'images': arrays['images'][:_SHOWN]}
  return dataclasses.replace(evaluation, examples=first)


def _exhibit(
  trial: Trial, evaluation: reading.Evaluation, prefix: pathlib.Path
) -> Exhibit:
  drawn = maps.draw(evaluation, prefix.parent)
  images = []
  for number, image in enumerate(drawn.images):
    path = prefix.with_name(f'{prefix.name}_{number}.png')
    images.append(dataclasses.replace(image, path=image.path.replace(path)))
  where = f'learning rate {trial.lr:g}, batch size {trial.batch:g}'
  title = f'Maps at {where}: {trial.group}'
  return dataclasses.replace(drawn, title=title, images=tuple(images))
