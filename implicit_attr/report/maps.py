"""What does an attacked explanation look like, beside the clean one?

One PNG per attribution method: a row an example, with the image, its map, the
attacked image, its map, and the map under random signs of the same size.
"""

# ruff: noqa: RUF001 (Greek letters and dashes in text for people are meant)

import pathlib
from typing import Any

import numpy as np

from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.read import Evaluation

_MOST = 4  # examples in a figure
_SCORES = (('topk', 'top-k'), ('kendall', 'τ'), ('cosine', 'cos'))


def draw(evaluation: Evaluation | None, folder: pathlib.Path) -> Exhibit:
  """Draws the grid of every method of which maps were kept."""
  arrays = evaluation.examples if evaluation else {}
  methods = [
    key.split('/')[1]
    for key in arrays
    if key.startswith('map/') and key.endswith('/clean')
  ]
  k = pixels(evaluation) if evaluation else None
  target = evaluation.settings.get('target', 'logit') if evaluation else ''
  outline = (
    f' Outlined: the {k} strongest pixels, the set that top-k compares.'
    if k
    else ''
  )
  return Exhibit(
    'Maps, clean and attacked',
    'Both images of a row get the same label from the network; do they get '
    'the same reason? (Where the attack found no such image, the clean one '
    f'stands again.) Red pixels raise the {target}, blue ones lower it; each '
    f'map has its own scale, channels are summed.{outline} The numbers '
    'compare a map with the clean one: share of top-k kept, Kendall’s τ, '
    'cosine; 1 is unchanged. The largest change is of a pixel '
    'that runs from 0 to 1.',
    tuple(
      _grid(arrays, method, k, folder)
      for method in methods
      if 'images' in arrays
    ),
    'no example maps were kept',
    wide=True,
  )


def pixels(evaluation: Evaluation) -> int | None:
  """The k of the top-k sets in pixels; None if the settings do not say."""
  k = evaluation.settings.get('k')
  images = evaluation.examples.get('images')
  if isinstance(k, bool) or not isinstance(k, int | float) or k <= 0:
    return None
  if k >= 1:
    return int(k)
  return (
    max(1, round(k * images[0, :, :, 0].size)) if images is not None else None
  )


def strongest(attribution: np.ndarray, k: int) -> np.ndarray:
  """The k pixels of a map [H, W, C] with the largest Σ_c |map|; [H, W] bool.

  Exactly k of them: equal values are taken in reading order.
  """
  size = np.abs(attribution).sum(-1)
  chosen = np.zeros(size.size, bool)
  chosen[np.argsort(-size.ravel(), kind='stable')[:k]] = True
  return chosen.reshape(size.shape)


def _grid(
  arrays: dict[str, np.ndarray],
  method: str,
  k: int | None,
  folder: pathlib.Path,
) -> Image:
  images = arrays['images'][:_MOST]
  attacks = [
    key.split('/')[2]
    for key in arrays
    if key.startswith(f'map/{method}/') and not key.endswith('/clean')
  ]
  attacks.sort(key=lambda name: name == tables.BASELINE)
  columns: list[tuple[str, str]] = [('image', ''), ('map', 'clean')]
  for attack in attacks:
    if attack != tables.BASELINE and f'adv/{method}/{attack}' in arrays:
      columns.append(('adv', attack))
    columns.append(('map', attack))
  grid = canvas.tiles(len(images), len(columns), side=1.22, foot=0.4)
  grid[0][0].annotate(
    tables.plain(method), (0, 1), (0, 20), fontsize=9.5, weight='bold',
    xycoords='axes fraction', textcoords='offset points',
  )  # fmt: skip
  for row, image in enumerate(images):
    for axes, (kind, attack) in zip(grid[row], columns, strict=True):
      if row == 0:
        axes.set_title(_head(kind, attack), fontsize=8)
      if kind == 'map':
        shown = arrays[f'map/{method}/{attack}'][row]
        _show_map(axes, shown, k)
        note = _scores(arrays, method, attack, row)
      elif kind == 'adv':
        shown = arrays[f'adv/{method}/{attack}'][row]
        _show_image(axes, shown)
        note = f'largest change\n{np.abs(shown - image).max():.3f}'
      else:
        _show_image(axes, image)
        if 'mask' in arrays:
          _outline(axes, arrays['mask'][row] > 0.5, canvas.ORANGE, 1.4)
        note = _labels(arrays, row)
      axes.set_xlabel(note, fontsize=7, labelpad=3, linespacing=1.25)
  return canvas.save(
    grid[0][0].figure,
    folder,
    f'maps_{method}',
    f'{tables.plain(method)}: maps of {len(images)} images, clean, attacked '
    'and under random signs',
  )


def _head(kind: str, attack: str) -> str:
  if kind == 'image':
    return 'image'
  if kind == 'adv':
    return f'after {tables.attack_name(attack)}'
  return 'its map' if attack != tables.BASELINE else 'map, random signs'


def _labels(arrays: dict[str, np.ndarray], row: int) -> str:
  parts = [
    f'{name} {arrays[key][row]}'
    for key, name in (('labels', 'label'), ('predictions', 'predicted'))
    if key in arrays
  ]
  return '\n'.join(parts)


def _scores(
  arrays: dict[str, np.ndarray], method: str, attack: str, row: int
) -> str:
  parts = []
  for metric, name in _SCORES:
    values = arrays.get(f'score/{method}/{attack}/{metric}')
    if values is not None and row < len(values):
      parts.append(f'{name} {values[row]:.2f}')
  return '\n'.join([parts[0], '  '.join(parts[1:])]) if parts else ''


def _show_image(axes: Any, image: np.ndarray) -> None:
  if image.shape[-1] != 3:
    image = image.mean(-1)
  axes.imshow(
    np.clip(image, 0, 1), cmap='gray', vmin=0, vmax=1, interpolation='nearest'
  )


def _show_map(axes: Any, attribution: np.ndarray, k: int | None) -> None:
  signed = attribution.sum(-1)
  top = np.abs(signed).max() or 1.0
  axes.imshow(
    signed, cmap='RdBu_r', vmin=-top, vmax=top, interpolation='nearest'
  )
  if k and k < signed.size:
    _outline(axes, strongest(attribution, k), canvas.INK, 0.8)


def _outline(axes: Any, inside: np.ndarray, colour: str, width: float) -> None:
  """Draws the border of a set of pixels [H, W], along pixel edges."""
  from matplotlib.collections import LineCollection

  padded = np.pad(inside, 1)
  across = np.argwhere(padded[1:, :] != padded[:-1, :])
  along = np.argwhere(padded[:, 1:] != padded[:, :-1])
  lines = [[(x - 1.5, y - 0.5), (x - 0.5, y - 0.5)] for y, x in across]
  lines += [[(x - 0.5, y - 1.5), (x - 0.5, y - 0.5)] for y, x in along]
  width *= min(1, 4 / len(inside) ** 0.6)  # thinner where pixels are small
  axes.add_collection(
    LineCollection(lines, colors=colour, linewidths=width), autolim=False
  )
