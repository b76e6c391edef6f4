"""Errors for people: bad input ends in one line, field, value, what is allowed.

Functions raise `InputError`; `main` prints it and exits with status 2. The
field is the name a user typed: `optim.lr`, `model.name`, `--workdir`.
"""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
  """Input that a person gave and a person can mend; its text is one line."""


def choose(field: str, value: Any, known: Iterable[str]) -> None:
  """Raises InputError unless `value` is one of `known`; names the nearest."""
  known = sorted(known)
  if isinstance(value, str) and value in known:
    return
  near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
  hint = f'did you mean {near[0]!r}? ' if near else ''
  raise InputError(
    f'{field}={shown(value)} is not known; {hint}allowed: {", ".join(known)}'
  )


def require(field: str, value: Any, ok: bool, allowed: str) -> None:
  """Raises InputError unless `ok`; `allowed` completes 'must be …'."""
  if not ok:
    raise InputError(f'{field}={shown(value)} must be {allowed}')


def shown(value: Any) -> str:
  """`value` as a line of at most 120 characters has it."""
  try:
    text = ' '.join(repr(value).split())
  except ValueError:  # Python writes no integer of more than 4300 digits
    text = 'a number of thousands of digits'
  return text if len(text) <= 120 else f'{text[:117]}…'


def said(error: BaseException) -> str:
  """What someone else's code raised, its kind and first line, in a line."""
  lines = str(error).strip().splitlines() or ['']
  return f'{type(error).__name__}: {lines[0][:200]}'.rstrip(': ')


def number(
  field: str,
  value: Any,
  low: float = -math.inf,
  high: float = math.inf,
  *,
  open_low: bool = False,
  integer: bool = False,
) -> None:
  """Raises InputError unless `value` is a finite number in [low, high].

  `open_low` excludes `low` itself; `integer` excludes fractions. Numbers of
  numpy count, booleans are no numbers, nor are integers beyond all floats.
  """
  kind: Any = numbers.Integral if integer else numbers.Real
  ok = isinstance(value, kind) and not isinstance(value, bool)
  ok = ok and _finite(value) and low <= value <= high
  ok = ok and not (open_low and value == low)
  what = 'an integer' if integer else 'a number'
  parts = []
  if low > -math.inf:
    parts.append(f'{">" if open_low else ">="} {low}')
  if high < math.inf:
    parts.append(f'<= {high}')
  allowed = f'{what} {" and ".join(parts)}'.rstrip()
  require(field, value, ok, allowed)


def _finite(value: Any) -> bool:
  try:
    return math.isfinite(value)
  except OverflowError:
    return False
