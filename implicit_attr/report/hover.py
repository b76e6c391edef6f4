"""Values under the pointer: what a drawn figure shows, and where, as JSON."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

MOST = 3000
"""Points of a figure; where more are drawn, none is told from the next."""


def read(figure: Any) -> str:
  """[{'x', 'y': names of the axes, 'name', 'points'}, …], a line or cloud each.

  A point is [left, top, x, y]: its place as shares of the figure, and its
  values as texts, with an interval where it has one. Lines across whole axes
  are no data. '' for a figure without points, or with more than `MOST`.

  Args:
    figure: of matplotlib, once drawn: before, its places are not known.
  """
  sets = [one for axes in figure.axes for one in _of_axes(axes)]
  if not 0 < sum(len(one['points']) for one in sets) <= MOST:
    return ''
  return json.dumps(sets, ensure_ascii=False, separators=(',', ':'))


def _of_axes(axes: Any) -> Iterator[dict[str, Any]]:
  from matplotlib.collections import PathCollection

  bars = {c.lines[0]: c for c in axes.containers if hasattr(c, 'has_xerr')}
  clouds = [c for c in axes.collections if isinstance(c, PathCollection)]
  drawn = [(line, line.get_xydata()) for line in axes.lines]
  drawn += [(cloud, cloud.get_offsets()) for cloud in clouds]
  # Axes above each other share the lowest one's name.
  below = axes.figure.axes[-1] if axes.get_shared_x_axes() else axes
  for artist, data in drawn:
    place = artist.get_offset_transform if artist in clouds else None
    place = (place or artist.get_transform)()
    points = _points(axes, np.ma.filled(data, np.nan), bars.get(artist))
    if place == axes.transData and points:
      yield {
        'x': _plain(axes.get_xlabel() or below.get_xlabel()),
        'y': _plain(axes.get_ylabel()),
        'name': _name(bars.get(artist, artist).get_label()),
        'points': points,
      }


def _points(axes: Any, data: np.ndarray, bars: Any) -> list[list[Any]]:
  figure = axes.figure
  ends = [_ends(bars, axis) for axis in (0, 1)]
  points = []
  for i, values in enumerate(data):
    left, bottom = axes.transData.transform(values) / figure.bbox.size
    if not (0 <= left <= 1 and 0 <= bottom <= 1):  # nor for a NaN
      continue
    texts = (
      _text(axis, value, of.get(i))
      for axis, value, of in zip(
        (axes.xaxis, axes.yaxis), values, ends, strict=True
      )
    )
    points.append([round(left, 4), round(1 - bottom, 4), *texts])
  return points


def _ends(bars: Any, axis: int) -> dict[int, tuple[float, float]]:
  """Point -> the ends of its error bar along an axis, if it has one."""
  has = (bars.has_xerr, bars.has_yerr) if bars else (False, False)
  if not has[axis]:
    return {}
  segments = bars.lines[2][axis if all(has) else 0].get_segments()
  # The bar of a point that is NaN has no vertices.
  ends = {i: np.asarray(s)[:, axis] for i, s in enumerate(segments) if len(s)}
  return {i: tuple(e) for i, e in ends.items() if e[0] < e[1]}


def _text(
  axis: Any, value: float, ends: tuple[float, float] | None = None
) -> str:
  """A number and its interval; the nearest name where the axis is a list."""
  from matplotlib.ticker import FixedLocator

  if isinstance(axis.get_major_locator(), FixedLocator):
    ticks = np.asarray(axis.get_majorticklocs())
    tick = ticks[np.abs(ticks - value).argmin()]
    return _plain(axis.get_major_formatter()(tick))
  interval = f' [{ends[0]:.4g}, {ends[1]:.4g}]' if ends else ''
  return f'{value:.4g}{interval}'.replace('-', '−')


def _plain(text: str) -> str:
  """Undoes `canvas.maths`."""
  text = text.replace(r'$\lambda_\mathrm{max}$', 'λ_max').replace(r'\$', '$')
  return ' '.join(text.split())


def _name(label: str) -> str:
  """'_batch 16' is the name of what no legend has; '_child3' is made up."""
  made = label.startswith(('_child', '_nolegend', '_container'))
  return '' if made else _plain(label.removeprefix('_'))
