"""Parameter curvature against input curvature along one run."""

import pathlib

import numpy as np

from implicit_attr import claims
from implicit_attr.report import canvas
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.runs.reading import Run

_AGAINST = {
  'logit': (
    'input/lambda_max', 'Logit', '‖H‖ of the logit [logit / pixel²]'
  ),
  'loss': (
    'input_loss/lambda_max', 'Loss', '‖H‖ of the loss [loss / pixel²]'
  ),
  'normalised': (
    'input/normalized_curvature', 'Logit, normalised',
    '‖H‖ / ‖g‖ of the logit [1 / pixel]',
  ),
}  # fmt: skip


def draw(run: Run, folder: pathlib.Path) -> Exhibit:
  """Scatters of λ_max of the loss Hessian against three input curvatures."""
  images = tuple(
    image
    for name, against in _AGAINST.items()
    if (image := _scatter(run, folder, name, *against))
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
  run: Run, folder: pathlib.Path, name: str, key: str, title: str, ylabel: str
) -> Image | None:
  steps, x, y = run.series('param/lambda_max', key)
  both = np.isfinite(x) & np.isfinite(y)
  if both.sum() < 2:
    return None
  steps, x, y = steps[both], x[both], y[both]
  axes = canvas.panel(
    title, 'λ_max of the loss Hessian [loss / parameter²]', ylabel
  )
  axes.plot(x, y, color='#CCCCCC', lw=0.7, zorder=1)
  points = axes.scatter(
    x, y, c=steps, cmap='cividis', s=20, lw=0.4, ec='white', zorder=2
  )
  canvas.fit_scale(axes.xaxis, x)
  canvas.fit_scale(axes.yaxis, y)
  rho = claims.partial_spearman(x, y, ()).value
  text = f'ρ = {rho:.2f}' if np.isfinite(rho) else 'ρ not defined'
  axes.set_title(f'{text}, n = {len(x)}', loc='right', fontsize=8.5)
  bar = axes.figure.colorbar(points, ax=axes, pad=0.02, aspect=30)
  bar.outline.set_visible(False)
  bar.set_label('updates')
  return canvas.save(
    axes.figure, folder, f'relation_{name}',
    f'{ylabel} against λ_max; Spearman {text}',
  )  # fmt: skip
