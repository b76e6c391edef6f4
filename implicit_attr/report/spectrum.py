"""The spectrum of the loss Hessian: density and outermost eigenvalues."""

import pathlib
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.runs.reading import Run, Spectrum, number

FLOOR = 1e-6
"""Density, of its largest value, below which smoothing is all there is."""


def draw(run: Run, folder: pathlib.Path) -> Exhibit | None:
  """Density and outermost eigenvalues, a panel a checkpoint; None if not run.

  The spectrum is measured only where the evaluation asks for it, so a run
  without one misses nothing.
  """
  if not run.spectra:
    return None
  first = next(iter(run.spectra.values()))
  examples = first.numbers.get('examples')
  over = f'{examples} training images' if examples else 'training images'
  return Exhibit(
    'Spectrum of the loss Hessian in the parameters',
    f'How many eigenvalues lie where, over {over}, by stochastic Lanczos '
    'quadrature. Shaded: one standard error over random starts. Each line '
    'is smoothed by a Gaussian of 1 % of the range, which is the width of '
    'single peaks. Red ticks: the largest eigenvalues and the smallest one, '
    'from Lanczos; green, where measured, the largest of the Gauss–Newton part '
    'G, which is what the loss bends, without what the network does.',
    tuple(
      image
      for name, spectrum in run.spectra.items()
      if (image := _panel(name, spectrum, folder))
    ),
    'its arrays cannot be read',
  )


def _panel(name: str, spectrum: Spectrum, folder: pathlib.Path) -> Image | None:
  if not {'grid', 'density', 'density_se'} <= set(spectrum.arrays):
    return None
  grid, density, error = (
    spectrum.arrays[key] for key in ('grid', 'density', 'density_se')
  )
  axes = canvas.panel(
    tables.rule(name).capitalize(),
    'eigenvalue [loss / parameter²]',
    'share of eigenvalues per unit',
  )
  floor = FLOOR * float(np.max(density))
  low, high = (np.maximum(density + s * error, floor) for s in (-1, 1))
  axes.fill_between(grid, low, high, color=canvas.BLUE, alpha=0.2, lw=0)
  axes.plot(grid, np.maximum(density, floor), color=canvas.BLUE, lw=1.0)
  whole, part = spectrum.numbers, spectrum.numbers.get('gauss_newton')
  part = part if isinstance(part, dict) else {}
  for ends, colour, height in (
    (_listed(whole, 'top') + _listed(whole, 'bottom'), canvas.VERMILLION, 1),
    (_listed(part, 'top'), canvas.GREEN, 3),
  ):
    axes.plot(
      ends, np.full(len(ends), height * floor), '|', color=colour, ms=9,
      clip_on=False,
    )  # fmt: skip
  axes.set_yscale('log')
  axes.set_ylim(floor, 3 * float(np.max(high)))
  trace, error = map(tables.short, map(whole.get, ('trace', 'trace_se')))
  text = f'trace {trace} ± {error}'
  text += f', of G {tables.short(part.get("trace"))}' if part else ''
  axes.set_title(text, loc='right', fontsize=8.5)
  return canvas.save(
    axes.figure, folder, f'spectrum_{name}',
    f'Density of Hessian eigenvalues at {tables.rule(name)}',
  )  # fmt: skip


def _listed(numbers: dict[str, Any], name: str) -> list[float]:
  values = numbers.get(name)
  return [number(v) for v in values] if isinstance(values, list) else []
