"""Parsing of JSON, JSON lines and .npz that may be damaged, without raising.

What can be read is given, and what is wrong with a file is noted as the end of
a sentence that begins with its name.
"""

import dataclasses
import functools
import io
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

MISSING = 'is not there'
"""The problem with a file that does not exist; all others are damages."""

_UNREADABLE = 'is there, but cannot be read'


def number(value: Any) -> float:
  """As a float; NaN for what is no number."""
  fits = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if fits else float('nan')


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


def _parsed(data: bytes) -> Any:
  """The value of JSON in UTF-8, None for anything else.

  Numbers are finite floats, or integers that a float can be; others are None.
  """
  try:
    return json.loads(
      data.decode(), parse_float=_float, parse_int=_int, parse_constant=_none
    )
  except (ValueError, RecursionError):
    return None


def _float(text: str) -> float | None:
  value = float(text)
  return value if math.isfinite(value) else None


def _int(text: str) -> int | None:
  return int(text) if len(text) < 300 else None


def _none(text: str) -> None:
  return None


def _object(file: BinaryIO) -> tuple[dict[str, Any], str]:
  value = _parsed(file.read())
  if isinstance(value, dict):
    return value, ''
  return {}, _UNREADABLE if value is None else 'does not hold a JSON object'


def _lines(file: BinaryIO) -> tuple[list[dict[str, Any]], str]:
  lines = [_parsed(raw) for raw in file.read().split(b'\n')]
  fits = [isinstance(line, dict) and finite(line.get('step')) for line in lines]
  good = [line for line, ok in zip(lines, fits, strict=True) if ok]
  # What follows the last line break a kill cut short; it is no damage.
  bad = [place for place, ok in enumerate(fits[:-1], start=1) if not ok]
  why = '' if good else 'holds no whole line'
  why = f'cannot be read in {places("line", bad)}' if bad else why
  return sorted(good, key=lambda line: line['step']), why


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
