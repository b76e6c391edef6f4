"""Courses of curvature in a sweep, run by run, over their training."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from implicit_attr.report import canvas
from implicit_attr.report.canvas import Exhibit
from implicit_attr.report.colours import of_runs
from implicit_attr.report.sweep_runs import Tree, Trial, first

Line = Sequence[np.ndarray]


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
  if not {'param/lambda_max', 'param/edge'} <= set(trial.curves):
    return None
  (at, top), (there, limit) = (
    trial.curves[key] for key in ('param/lambda_max', 'param/edge')
  )
  steps, i, j = np.intersect1d(at, there, return_indices=True)
  with np.errstate(divide='ignore', invalid='ignore'):
    return steps, top[i] / limit[j]


def _exhibit(
  tree: Tree, folder: pathlib.Path, name: str, title: str, ylabel: str,
  line: Callable[[Trial], Line | None], caption: str,
) -> Exhibit:  # fmt: skip
  shades, of, what = of_runs(tree)
  images = []
  for group, trials in first(tree.groups if what else tree.families).items():
    lines = [(trial, line(trial)) for trial in trials]
    lines = [(t, c) for t, c in lines if c and np.isfinite(c[1]).sum() > 1]
    if not lines:
      continue
    axes = canvas.panel(group, 'share of the updates', ylabel, height=2.9)
    for trial, (steps, values) in lines:
      last = max(trial.step if np.isfinite(trial.step) else 0, steps[-1]) or 1
      colour = shades.colour(of(trial))
      axes.plot(
        steps / last, values, lw=0.8, alpha=0.75, color=colour,
        label=f'_{trial.name}',
      )  # fmt: skip
    every = np.concatenate([values for _, (_, values) in lines])
    canvas.fit_scale(axes.yaxis, every[every > 0])
    if name == 'edge':
      axes.axhline(1, color=canvas.INK, lw=0.9, ls='--', zorder=3)
    axes.set_xlim(0, 1)
    shades.legend(axes, [of(trial) for trial, _ in lines], what)
    images.append(
      canvas.save(
        axes.figure, folder, f'trajectory_{name}_{len(images)}',
        f'{ylabel} of {group} over training',
      )
    )  # fmt: skip
  return Exhibit(
    title,
    f'{caption} The course is over the share of a run’s updates, since small '
    'batches take more of them.',
    tuple(images),
    'not logged at two points of any run',
  )
