"""Colours and marks that tell learning rates, networks or objectives apart."""

import math
import textwrap
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from implicit_attr.report import canvas
from implicit_attr.report.sweep_runs import Tree, Trial

MARKS = 'os^DvP'
_ROW = 0.16  # inches of a line of a legend


class Shades:
  """A colour for every value, the same in all panels of a page.

  Numbers get a scale from dark (small) to light (large), by rank; names get
  the palette, and a mark where colours come again.
  """

  def __init__(self, values: Sequence[Hashable]):
    self.values: list[Any] = list(dict.fromkeys(values))
    self.numbers = all(isinstance(v, int | float) for v in values)
    if self.numbers:
      import matplotlib

      self.values.sort()
      scale = matplotlib.colormaps['viridis']
      last = max(len(self.values) - 1, 1)
      self._colours = [scale(0.9 * i / last) for i in range(last + 1)]
    else:
      self._colours = canvas.CYCLE * (1 + len(values) // len(canvas.CYCLE))

  def colour(self, value: Hashable) -> Any:
    """What `value` is drawn in."""
    return self._colours[self.values.index(value)]

  def mark(self, value: Hashable) -> str:
    """Its mark: circles first, others where colours come again."""
    if self.numbers:
      return MARKS[0]
    return MARKS[self.values.index(value) // len(canvas.CYCLE) % len(MARKS)]

  def legend(
    self, axes: Any, shown: Sequence[Hashable], title: str = ''
  ) -> None:
    """A legend below the panel, of what is shown in it."""
    from matplotlib.lines import Line2D

    shown = [v for v in self.values if v in set(shown)]
    entries = [
      Line2D(
        [], [], ls='', ms=5, color=self.colour(v), marker=self.mark(v),
        label=self._label(v),
      )
      for v in shown
    ]  # fmt: skip
    longest = max((len(self._label(v)) for v in shown), default=0)
    columns = 6 if self.numbers else 2 if longest < 20 else 1
    figure = axes.figure
    rows = math.ceil(len(entries) / columns)
    figure.set_figheight(figure.get_figheight() + _ROW * max(rows - 2, 0))
    figure.legend(
      handles=entries, loc='outside lower left', title=title or None,
      ncols=columns, columnspacing=0.8, handletextpad=0.1,
      alignment='left', title_fontsize=8, borderpad=0,
    )  # fmt: skip

  def _label(self, value: Hashable) -> str:
    if self.numbers:
      return f'{value:g}'
    return canvas.maths(textwrap.shorten(str(value), 44, placeholder='…'))


def of_runs(tree: Tree) -> tuple[Shades, Callable[[Trial], Hashable], str]:
  """(shades, trial -> value, what it is) that tell the arms of a tree apart.

  The learning rate where it varies within a group, else what names the group.
  """
  known = [trial for trials in tree.groups.values() for trial in trials]
  of, name = short_group, ''
  if tree.swept and len({trial.lr for trial in known}) > 1:
    of, name = (lambda trial: trial.lr), 'learning rate'
  return Shades([of(trial) for trial in known]), of, name


def short_group(trial: Trial) -> str:
  """What a group adds to its family; the family where it adds nothing."""
  return trial.group.removeprefix(trial.family).lstrip(', ') or trial.family
