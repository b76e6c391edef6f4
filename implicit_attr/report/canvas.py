"""Panels of matplotlib in one style, and what a page knows about them.

One small panel a file, so that a phone shows it at full width and a screen
shows several beside each other. Drawn without pyplot: no global state, no
display, the same bytes every time.

Every figure is a PNG, for slides, and an SVG, for papers and for the page: it
is half as large there and stays sharp when it is enlarged. The values under a
pointer lie beside it. plotly's script alone is larger than 3 MB, and Vega
would draw everything a second time, in a language of its own.
"""

import contextlib
import dataclasses
import pathlib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from implicit_attr.report import hover
from implicit_attr.runs import records

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
BLUE, VERMILLION, GREEN = '#0072B2', '#D55E00', '#009E73'
ORANGE, PURPLE, SKY = '#E69F00', '#CC79A7', '#56B4E9'
INK, GREY = '#222222', '#7F7F7F'
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)

_STYLE: dict[Any, dict[str, Any]] = {
  'font': {
    # Comes with matplotlib, so PNGs are always the same; Verdana is as wide.
    'family': ['DejaVu Sans', 'sans-serif'],
    'sans-serif': ['DejaVu Sans', 'Verdana', 'Arial', 'sans-serif'],
    'size': 8.5,
  },
  'axes': {
    'titlesize': 9, 'titlelocation': 'left', 'labelsize': 8.5,
    'labelcolor': INK, 'edgecolor': '#555555', 'linewidth': 0.7,
    'spines.top': False, 'spines.right': False, 'unicode_minus': True,
  },
  'xtick': {'labelsize': 8, 'color': '#555555', 'labelcolor': INK},
  'ytick': {'labelsize': 8, 'color': '#555555', 'labelcolor': INK},
  'text': {'color': INK},
  'lines': {'linewidth': 1.4, 'markersize': 3.5},
  'legend': {'frameon': False, 'fontsize': 8, 'handlelength': 1.8},
  'figure': {'dpi': 100, 'titlesize': 9},
  # Texts as such are half the bytes of their outlines; salt makes ids equal.
  'svg': {'fonttype': 'none', 'hashsalt': 'implicit_attr'},
}  # fmt: skip
_DPI = 200


@dataclasses.dataclass(frozen=True)
class Image:
  """A PNG, the sentence that stands in for it, and its width in inches.

  `vector` is the same as SVG where that is smaller, as it is but for hundreds
  of lines: a page then shows it. `values` is what `hover.read` finds.
  """

  path: pathlib.Path
  alt: str
  width: float
  vector: pathlib.Path | None = None
  values: str = ''


@dataclasses.dataclass(frozen=True)
class Exhibit:
  """Some panels under one caption; with no image, `missing` says why."""

  title: str
  caption: str
  images: tuple[Image, ...]
  missing: str = ''
  wide: bool = False


@contextlib.contextmanager
def drawing() -> Iterator[None]:
  """Within it every figure looks the same, whatever a user's matplotlibrc."""
  import matplotlib

  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    for group, style in _STYLE.items():
      matplotlib.rc(group, **style)
    yield


def maths(text: str) -> str:
  """Sets λ_max in a figure as a formula, and nothing else."""
  return text.replace('$', r'\$').replace('λ_max', r'$\lambda_\mathrm{max}$')


def panel(title: str, xlabel: str, ylabel: str, height: float = 2.5) -> Any:
  """Axes of a panel of standard width; its figure is `axes.figure`."""
  from matplotlib.figure import Figure

  axes = Figure(figsize=(3.5, height), layout='constrained').add_subplot()
  # Over the whole figure: long labels of ticks leave axes too narrow for it.
  axes.figure.suptitle(maths(textwrap.fill(title, 48)), x=0.02, ha='left')
  axes.set_xlabel(maths(xlabel))
  axes.set_ylabel(maths(ylabel))
  return axes


def stack(
  title: str, xlabel: str, ylabels: Sequence[str], each: float = 1.2
) -> list[Any]:
  """Axes below each other over one x axis, in a panel of standard width."""
  first = panel(title, '', '', height=0.9 + each * len(ylabels))
  figure = first.figure
  first.remove()
  every = list(
    figure.subplots(len(ylabels), 1, sharex=True, squeeze=False).flat
  )
  for axes, ylabel in zip(every, ylabels, strict=True):
    axes.set_ylabel(maths(ylabel))
  every[-1].set_xlabel(maths(xlabel))
  return every


def sheet(width: float, height: float) -> Any:
  """Bare axes in inches, from the lower left corner, over a whole figure."""
  from matplotlib.figure import Figure

  axes = Figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
  axes.set_axis_off()
  axes.set_autoscale_on(False)
  axes.set_xlim(0, width)
  axes.set_ylim(0, height)
  return axes


def fit_scale(axis: Any, values: np.ndarray, most: float = 20.0) -> None:
  """Makes an x or y axis logarithmic if `values` span over `most` times.

  Only where all finite values are positive; a plain scale stays plain.
  """
  values = np.asarray(values)
  values = values[np.isfinite(values)]
  wide = values.size and values.min() > 0 and values.max() > most * values.min()
  if not wide:
    return
  from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

  getattr(axis.axes, f'set_{axis.axis_name}scale')('log')
  if values.max() < 1000 * values.min():  # decades alone are too few ticks
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.set_minor_formatter(NullFormatter())


def radii(axis: Any, values: np.ndarray) -> None:
  """Makes an x or y axis one of radii in units of 1/255: 1, 2, 4, …"""
  from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

  getattr(axis.axes, f'set_{axis.axis_name}scale')('log', base=2)
  span = np.log2(np.max(values) / np.min(values)) if np.size(values) else 0
  # Within a factor of four powers of two alone are too few ticks.
  subs = (1,) if span > 2 else (1, 1.25, 1.5, 1.75)
  axis.set_major_locator(LogLocator(base=2, subs=subs, numticks=12))
  axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  axis.set_minor_locator(NullLocator())


def rows(axes: Any, labels: Sequence[str]) -> None:
  """Makes the y axis a list of `labels` from top to bottom, 0 to n - 1."""
  axes.set_yticks(range(len(labels)), labels)
  axes.set_ylim(len(labels) - 0.4, -0.6)
  axes.tick_params(axis='y', length=0)
  axes.spines['left'].set_visible(False)


def up_to_one(axes: Any, lowest: float) -> None:
  """Makes an x axis of similarities end at 1 and begin below `lowest`."""
  low = np.floor(10 * lowest) / 10
  axes.set_xlim(low, 1 + 0.02 * (1 - low))


def save(target: Any, folder: pathlib.Path, name: str, alt: str) -> Image:
  """Writes the figure as folder/name.png and folder/name.svg.

  Raises:
    InputError: the folder cannot be written.
  """
  path = folder / f'{name}.png'
  write = lambda file: target.savefig(
    file, format='png', dpi=_DPI, pil_kwargs={'compress_level': 4},
    metadata={'Software': None},  # no version in the bytes
  )  # fmt: skip
  records.write_file(path, write)
  target.set_layout_engine('none')  # what was laid out stays where it is
  draw = lambda file: target.savefig(
    file, format='svg', dpi=_DPI,
    metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')),
  )  # fmt: skip
  vector = path.with_suffix('.svg')
  records.write_file(vector, draw)
  small = vector.stat().st_size < path.stat().st_size
  width = float(target.get_figwidth())
  return Image(path, alt, width, vector if small else None, hover.read(target))
