"""Parsing of JSON, JSON lines and .npz that may be damaged, without raising.

What can be read is given, and what is wrong with a file is noted as the end of
a sentence that begins with its name.
"""

import dataclasses
import functools
import io
import math
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from implicit_attr.runs import metrics, records

MISSING = 'is not there'
"""The problem with a file that does not exist; all others are damages."""

ENDS = ('mean', 'low', 'high')
"""Of a mean: itself, and the ends of its interval."""

_UNREADABLE = 'is there, but cannot be read'


def number(value: Any) -> float:
  """As a float; NaN for what is no finite number that a float can be."""
  fits = isinstance(value, int | float) and not isinstance(value, bool)
  try:
    return float(value) if fits and math.isfinite(value) else math.nan
  except OverflowError:
    return math.nan


def finite(value: Any) -> bool:
  """Is it a finite number?"""
  return math.isfinite(number(value))


def places(what: str, at: list[int], most: int = 10) -> str:
  """'line 7', 'lines 3, 5', 'lines 1, 2, … and 4 more'."""
  said = f'{what}{"s" if len(at) > 1 else ""} {", ".join(map(str, at[:most]))}'
  return said + (f' and {len(at) - most} more' if len(at) > most else '')


@dataclasses.dataclass(frozen=True)
class Files:
  """Files under `path` as what they should hold; `problems` by their names."""

  path: pathlib.Path
  problems: dict[str, str] = dataclasses.field(default_factory=dict)

  def json(self, name: str) -> dict[str, Any]:
    """The JSON object of a file; {} for anything else."""
    return self._read(name, _object)

  def lines(self, name: str) -> list[dict[str, Any]]:
    """Its lines that are objects with a finite number 'step', by that."""
    return self._read(name, _lines)

  def arrays(
    self, name: str, wanted: Callable[[str], bool]
  ) -> dict[str, np.ndarray]:
    """Those arrays of an .npz whose names are `wanted`."""
    return self._read(name, functools.partial(_arrays, wanted))

  def _read(
    self, name: str, parse: Callable[[BinaryIO], tuple[Any, str]]
  ) -> Any:
    try:
      with (self.path / name).open('rb') as file:
        value, why = parse(file)
    except OSError as e:
      value, _ = parse(io.BytesIO())
      why = MISSING if isinstance(e, FileNotFoundError) else _UNREADABLE
    if why:
      self.problems[name] = why
    return value


def _object(file: BinaryIO) -> tuple[dict[str, Any], str]:
  try:
    value = _floats(records.parsed(file.read()))
  except ValueError:
    return {}, _UNREADABLE
  ok = isinstance(value, dict)
  return (value, '') if ok else ({}, 'does not hold a JSON object')


def _floats(value: Any) -> Any:
  """With None for numbers that are not finite, or that no float can be."""
  if isinstance(value, dict):
    return {name: _floats(part) for name, part in value.items()}
  if isinstance(value, list):
    return [_floats(part) for part in value]
  odd = isinstance(value, int | float) and not isinstance(value, bool)
  return None if odd and not finite(value) else value


def _lines(file: BinaryIO) -> tuple[list[dict[str, Any]], str]:
  lines, damaged = metrics.good_lines(file.read())
  why = '' if lines else 'holds no whole line'
  if damaged:
    why = f'cannot be read in {places("line", damaged)}'
  return [line for _, line in lines.values()], why


def _arrays(
  wanted: Callable[[str], bool], file: BinaryIO
) -> tuple[dict[str, np.ndarray], str]:
  arrays, bad = {}, []
  # A damaged archive makes numpy, zipfile and zlib raise what they like.
  try:
    archive = np.load(file, allow_pickle=False)
    names = [name for name in archive.files if wanted(name)]
  except Exception:
    return {}, _UNREADABLE
  for name in names:
    try:
      arrays[name] = archive[name]
    except Exception:
      bad.append(name)
  return arrays, f'cannot be read in {", ".join(bad)}' if bad else ''


def curve(value: Any) -> dict[str, Any]:
  """Curves over radii: 'eps' [R], and by similarity the `ENDS` [R] of its mean.

  {} where there is no radius, or no similarity at each of them.
  """
  means = dict(value) if isinstance(value, dict) else {}
  radii = _column(means.pop('eps', None))
  curves = {
    name: {end: _column(mean.get(end)) for end in ENDS}
    for name, mean in means.items()
    if isinstance(mean, dict)
  }
  fits = lambda mean: all(len(v) == len(radii) for v in mean.values())
  curves = {name: mean for name, mean in curves.items() if fits(mean)}
  if not curves or not radii or not all(0 < r < 1e6 for r in radii):
    return {}
  return {'eps': radii} | curves


def _column(value: Any) -> list[float]:
  return [number(v) for v in value] if isinstance(value, list) else []
