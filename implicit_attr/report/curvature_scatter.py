"""Do parameter curvature and input curvature move together in this run?"""

import pathlib

import numpy as np

from implicit_attr.report import canvas
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.read import Run

_AGAINST = (
  ('input/lambda_max', 'Logit', '‖H‖ of the logit [logit / pixel²]'),
  ('input_loss/lambda_max', 'Loss', '‖H‖ of the loss [loss / pixel²]'),
  (
    'input/normalized_curvature',
    'Logit, normalised',
    '‖H‖ / ‖g‖ of the logit [1 / pixel]',
  ),
)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
  """Spearman's ρ of two vectors [n], ties at their mean rank.

  NaN where it is not defined: fewer than 3 values, or one vector constant.
  """
  if len(a) < 3:
    return float('nan')
  a, b = _ranks(a), _ranks(b)
  a, b = a - a.mean(), b - b.mean()
  scale = np.sqrt((a @ a) * (b @ b))
  return float(a @ b / scale) if scale else float('nan')


def _ranks(values: np.ndarray) -> np.ndarray:
  _, group, count = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(count) - (count + 1) / 2)[group]


def draw(run: Run, folder: pathlib.Path) -> Exhibit:
  """Scatters of λ_max of the loss Hessian against three input curvatures."""
  images = tuple(
    image
    for number, against in enumerate(_AGAINST)
    if (image := _scatter(run, folder, number, *against))
  )
  return Exhibit(
    'Parameter curvature against input curvature',
    'Each point is one measurement of this run; colour is the number of '
    'updates, dark at the start. If flat parameters made flat inputs, points '
    'would lie on a rising line. Spearman’s ρ describes this one '
    'trajectory: neighbouring points are not independent, so it is no test.',
    images,
    'parameter and input curvature were not logged together',
  )


def _scatter(
  run: Run,
  folder: pathlib.Path,
  number: int,
  key: str,
  title: str,
  ylabel: str,
) -> Image | None:
  steps, x, y = run.series('param/lambda_max', key)
  both = np.isfinite(x) & np.isfinite(y)
  if both.sum() < 2:
    return None
  steps, x, y = steps[both], x[both], y[both]
  rho = spearman(x, y)
  axes = canvas.panel(
    title, 'λ_max of the loss Hessian [loss / parameter²]', ylabel
  )
  axes.plot(x, y, color='#CCCCCC', lw=0.7, zorder=1)
  points = axes.scatter(
    x, y, c=steps, cmap='cividis', s=20, lw=0.4, ec='white', zorder=2
  )
  canvas.fit_scale(axes.xaxis, x)
  canvas.fit_scale(axes.yaxis, y)
  text = f'ρ = {rho:.2f}' if np.isfinite(rho) else 'ρ not defined'
  axes.set_title(f'{text}, n = {both.sum()}', loc='right', fontsize=8.5)
  bar = axes.figure.colorbar(points, ax=axes, pad=0.02, aspect=30)
  bar.outline.set_visible(False)
  bar.set_label('updates')
  name = ('relation_logit', 'relation_loss', 'relation_normalised')[number]
  return canvas.save(
    axes.figure, folder, name, f'{ylabel} against λ_max; Spearman {text}'
  )
