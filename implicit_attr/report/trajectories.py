"""How did curvature move while the runs trained, and did the rate steer it?"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from implicit_attr.report import canvas, heat
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.colours import Shades, of_runs
from implicit_attr.report.sweep_runs import Tree, Trial

Line = tuple[np.ndarray, np.ndarray]


def draw(tree: Tree, folder: pathlib.Path) -> list[Exhibit]:
  """λ_max, λ_max over the stability edge, and normalised input curvature."""
  return [
    _exhibit(
      tree, folder, 'lambda_max', 'Parameter curvature over training',
      'λ_max [loss / parameter²]', lambda t: t.curves.get('param/lambda_max'),
      'Every line is a run. Curvature often rises first and then levels off, '
      'lower for larger rates.',
    ),
    _exhibit(
      tree, folder, 'edge', 'Parameter curvature against the edge of stability',
      'λ_max / edge', edge,
      'The same, divided by the value above which a step of that length '
      'overshoots (2/η for plain SGD with rate η): at the dashed line the rate '
      'itself limits curvature, far below it the rate has no such hold. '
      'Small batches are known to stay below the line.',
    ),
    _exhibit(
      tree, folder, 'input', 'Input curvature over training',
      '‖H‖ / ‖g‖ of the logit [1 / pixel]',
      lambda t: t.curves.get('input/normalized_curvature'),
      'If the learning rate worked through curvature, colours would come in '
      'the same order as above.',
    ),
  ]  # fmt: skip


def edge(trial: Trial) -> Line | None:
  """λ_max over the edge of the same step; None where one was not logged."""
  top, limit = (
    trial.curves.get(key) for key in ('param/lambda_max', 'param/edge')
  )
  if top is None or limit is None:
    return None
  steps, here, there = np.intersect1d(
    top[0], limit[0], return_indices=True
  )  # fmt: skip
  with np.errstate(divide='ignore', invalid='ignore'):
    return steps, top[1][here] / limit[1][there]


def _exhibit(
  tree: Tree, folder: pathlib.Path, name: str, title: str, ylabel: str,
  line: Callable[[Trial], Line | None], caption: str,
) -> Exhibit:  # fmt: skip
  shades, of, what = of_runs(tree)
  groups = tree.groups if what else tree.families
  images = []
  for group, trials in list(groups.items())[: heat.MOST]:
    lines = [
      (trial, found)
      for trial in trials
      if (found := line(trial)) and np.isfinite(found[1]).sum() > 1
    ]
    if lines:
      at = f'trajectory_{name}_{len(images)}'
      images.append(_panel(folder, at, group, lines, shades, of, what, ylabel))
  return Exhibit(
    title,
    f'{caption} The course is over the share of a run’s updates, since small '
    'batches take more of them.',
    tuple(images),
    'not logged at two points of any run',
  )


def _panel(
  folder: pathlib.Path, name: str, group: str,
  lines: Sequence[tuple[Trial, Line]], shades: Shades, of: Callable, what: str,
  ylabel: str,
) -> Image:  # fmt: skip
  axes = canvas.panel(group, 'share of the updates', ylabel, height=2.9)
  for trial, (steps, values) in lines:
    last = max(trial.step if np.isfinite(trial.step) else 0, steps[-1]) or 1
    axes.plot(
      steps / last, values, lw=0.8, alpha=0.75, color=shades.colour(of(trial))
    )
  positive = np.concatenate([values[values > 0] for _, (_, values) in lines])
  if positive.size:
    canvas.fit_scale(axes.yaxis, positive)
  if 'edge' in ylabel:
    axes.axhline(1, color=canvas.INK, lw=0.9, ls='--', zorder=3)
  axes.set_xlim(0, 1)
  shades.legend(axes, [of(trial) for trial, _ in lines], what)
  return canvas.save(
    axes.figure, folder, name, f'{ylabel} of {group} over training'
  )
