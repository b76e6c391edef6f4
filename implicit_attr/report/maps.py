"""Images of a run with their maps, clean, attacked and under random signs.

One PNG per attribution method: a row an example, with the image, its map, the
attacked image, its map, and the map under random signs of the same size.
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.runs.reading import Evaluation

_MOST = 4  # examples in a figure
_SCORES = (('topk', 'top-k'), ('kendall', 'τ'), ('cosine', 'cos'))
_SIDE, _GAP, _HEAD, _FOOT = 1.22, 0.1, 0.5, 0.42  # inches


def draw(evaluation: Evaluation | None, folder: pathlib.Path) -> Exhibit:
  """Draws the grid of every method of which maps were kept."""
  arrays = evaluation.examples if evaluation else {}
  settings = evaluation.settings if evaluation else {}
  maps = {
    key.removeprefix('map/'): spatial
    for key, value in arrays.items()
    if key.startswith('map/') and (spatial := on_pixels(value)) is not None
  }
  methods = [k.removesuffix('/clean') for k in maps if k.endswith('/clean')]
  notes, k = '', settings.get('k')
  if size := tables.top_set(k):
    notes += f' Outlined: the strongest {size}, the set top-k compares.'
  if 'mask' in arrays:
    notes += ' Orange: where the evidence for the class was planted.'
  return Exhibit(
    'Maps, clean and attacked',
    'Both images of a row get the same label from the network; do they get '
    'the same reason? (Where the attack found no such image, the clean one '
    f'stands again.) Red pixels raise the {settings.get("target", "logit")}, '
    'blue ones lower it; each map has its own scale, channels are summed.'
    f'{notes} The numbers compare a map with the clean one: share of top-k '
    'kept, Kendall’s τ, cosine; 1 is unchanged. The largest change is of a '
    'pixel that runs from 0 to 1.',
    tuple(
      _grid(arrays, maps, method, k, folder)
      for method in methods
      if 'images' in arrays
    ),
    'no example maps were kept',
    wide=True,
  )


def draw_alone(
  evaluation: Evaluation, folder: pathlib.Path
) -> list[pathlib.Path]:
  """The same grids without a page: the paths of the PNGs."""
  with canvas.drawing():
    return [image.path for image in draw(evaluation, folder).images]


def strong(k: Any, n: int) -> int | None:
  """How many of n entries a top-k set has; None if `k` does not say."""
  if isinstance(k, bool) or not isinstance(k, int | float) or k <= 0:
    return None
  return k if isinstance(k, int) else max(1, round(k * n))


def on_pixels(maps: np.ndarray) -> np.ndarray | None:
  """Maps [m, H, W, C], [m, H, W] or [m, L] of square L as [m, H, W, C].

  None for what has no place in an image.
  """
  if maps.ndim == 2:
    side = math.isqrt(maps.shape[1])
    return maps.reshape(-1, side, side, 1) if side**2 == maps.shape[1] else None
  return {3: maps[..., None], 4: maps}.get(maps.ndim)


def strongest(attribution: np.ndarray, k: int) -> np.ndarray:
  """The k pixels of a map [H, W, C] with the largest Σ_c |map|; [H, W] bool.

  Exactly k of them: equal values are taken in reading order.
  """
  size = np.abs(attribution).sum(-1)
  chosen = np.zeros(size.size, bool)
  chosen[np.argsort(-size.ravel(), kind='stable')[:k]] = True
  return chosen.reshape(size.shape)


def _grid(
  arrays: dict[str, np.ndarray], maps: dict[str, np.ndarray], method: str,
  k: Any, folder: pathlib.Path,
) -> Image:  # fmt: skip
  images = arrays['images'][:_MOST]
  kinds = [
    key.partition('/')[2] for key in maps if key.startswith(f'{method}/')
  ]
  attacks = [kind for kind in kinds if kind != 'clean']
  columns: list[tuple[str, str]] = [('image', ''), ('map', 'clean')]
  for attack in sorted(attacks, key=lambda name: name == tables.BASELINE):
    if attack != tables.BASELINE and f'adv/{method}/{attack}' in arrays:
      columns.append(('adv', attack))
    columns.append(('map', attack))
  height = _HEAD + len(images) * (_SIDE + _FOOT)
  axes = canvas.sheet(len(columns) * (_SIDE + _GAP) + _GAP, height)
  title = tables.plain(method)
  axes.text(_GAP, height - 0.08, title, weight='bold', size=9.5, va='top')
  for row, image in enumerate(images):
    for column, (kind, attack) in enumerate(columns):
      left = _GAP + column * (_SIDE + _GAP)
      cell = _Cell(axes, left, height - _HEAD - row * (_SIDE + _FOOT) - _SIDE)
      if row == 0:
        cell.head(_head(kind, attack))
      if kind == 'map':
        cell.show_map(maps[f'{method}/{attack}'][row], k)
        cell.foot(_scores(arrays, method, attack, row))
      elif kind == 'adv':
        attacked = arrays[f'adv/{method}/{attack}'][row]
        cell.show_image(attacked)
        cell.foot(f'largest change\n{np.abs(attacked - image).max():.3f}')
      else:
        cell.show_image(image)
        if 'mask' in arrays:
          cell.outline(arrays['mask'][row] > 0.5, canvas.ORANGE, 1.4)
        cell.foot(_labels(arrays, row))
  alt = f'{title}: maps of {len(images)} images, clean, attacked and under '
  name = f'maps_{method}'
  return canvas.save(axes.figure, folder, name, f'{alt}random signs')


def _head(kind: str, attack: str) -> str:
  if kind == 'image':
    return 'image'
  if kind == 'adv':
    return f'after {tables.attack_name(attack)}'
  return 'its map' if attack != tables.BASELINE else 'map, random signs'


def _labels(arrays: dict[str, np.ndarray], row: int) -> str:
  return '\n'.join(
    f'{name} {arrays[key][row]}'
    for key, name in (('labels', 'label'), ('predictions', 'predicted'))
    if key in arrays
  )


def _scores(
  arrays: dict[str, np.ndarray], method: str, attack: str, row: int
) -> str:
  shown = arrays.get(f'shown/{method}')  # their places among all examples
  place = row if shown is None else int(shown[row])
  parts = []
  for metric, name in _SCORES:
    values = arrays.get(f'score/{method}/{attack}/{metric}')
    if values is not None and place < len(values):
      parts.append(f'{name} {values[place]:.2f}')
  return '\n'.join([parts[0], '  '.join(parts[1:])]) if parts else ''


@dataclasses.dataclass(frozen=True)
class _Cell:
  """A square of the sheet, `_SIDE` inches wide, with room for text below."""

  axes: Any
  left: float
  bottom: float

  def head(self, text: str) -> None:
    self.axes.text(self.left, self.bottom + _SIDE + 0.06, text, size=8)

  def foot(self, text: str) -> None:
    self.axes.text(
      self.left + _SIDE / 2, self.bottom - 0.05, text,
      size=7, ha='center', va='top', linespacing=1.25,
    )  # fmt: skip

  def show_image(self, image: np.ndarray) -> None:
    shown = image if image.shape[-1] == 3 else image.mean(-1)
    self._show(np.clip(shown, 0, 1), cmap='gray', vmin=0, vmax=1)

  def show_map(self, attribution: np.ndarray, k: Any) -> None:
    signed = attribution.sum(-1)
    top = np.abs(signed).max() or 1.0
    self._show(signed, cmap='RdBu_r', vmin=-top, vmax=top)
    count = strong(k, signed.size)
    if count and count < signed.size:
      self.outline(strongest(attribution, count), canvas.INK, 0.8)

  def _show(self, values: np.ndarray, **options: Any) -> None:
    extent = (
      self.left, self.left + _SIDE, self.bottom, self.bottom + _SIDE
    )  # fmt: skip
    self.axes.imshow(
      values, extent=extent, aspect='auto', interpolation='nearest', **options
    )
    self.outline(np.ones((1, 1), bool), '#999999', 0.4)

  def outline(self, inside: np.ndarray, colour: str, width: float) -> None:
    """Draws the border of a set of pixels [H, W], along pixel edges."""
    from matplotlib.collections import LineCollection

    rows, columns = inside.shape
    padded = np.pad(inside, 1)
    level = np.argwhere(padded[1:, :] != padded[:-1, :])
    upright = np.argwhere(padded[:, 1:] != padded[:, :-1])
    place = lambda y, x: (
      self.left + x / columns * _SIDE,
      self.bottom + (1 - y / rows) * _SIDE,
    )
    lines = [(place(y, x - 1), place(y, x)) for y, x in level]
    lines += [(place(y - 1, x), place(y, x)) for y, x in upright]
    width *= min(1, 4 / rows**0.6)  # thinner where pixels are small
    self.axes.add_collection(
      LineCollection(lines, colors=colour, linewidths=width), autolim=False
    )
