"""Checks of one value of a config: what it may be, and as what it is kept.

Written beside the fields of `settings`. Each is (name of the field, value) ->
the value kept, or raises InputError with what is allowed.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from implicit_attr import errors

Check = Callable[[str, Any], Any]
"""(name of the field, value given) -> the value kept, or InputError."""


class Frozen(Mapping):
  """A mapping that is not changed: it compares, prints and hashes by value."""

  def __init__(self, items: Mapping[str, Any]):
    self._items = dict(items)

  def __getitem__(self, name: str) -> Any:
    return self._items[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._items)

  def __len__(self) -> int:
    return len(self._items)

  def __hash__(self) -> int:
    return hash(frozenset(self._items.items()))

  def __repr__(self) -> str:
    return repr(self._items)


def count(low: int, high: int = 1 << 24) -> Check:
  """A whole number in [low, high]: no run means more than millions of it."""

  def check(field, value):
    errors.number(field, value, low, high, integer=True)
    return int(value)

  return check


def real(low: float = -math.inf, high: float = math.inf, **open_low) -> Check:
  """A number in [low, high] that float32 can hold."""

  def check(field, value):
    errors.number(field, value, low, high, **open_low)
    size = abs(float(value))
    errors.require(
      field, value, size == 0 or 1.2e-38 < size < 3.4e38,
      'a number of the range of float32, 1.2e-38 to 3.4e38',
    )  # fmt: skip
    return float(value)

  return check


def one_of(names: Callable[[], Any]) -> Check:
  """One of the names that `names()` has when it is asked."""

  def check(field, value):
    errors.choose(field, string(field, value), names())
    return value

  return check


def some_of(names: Callable[[], Any], least: int = 1) -> Check:
  """A tuple of at least `least` names."""

  def check(field, value):
    ok = isinstance(value, tuple | list) and len(value) >= least
    errors.require(field, value, ok, f'a tuple of names, {least} or more')
    for name in value:
      one_of(names)(field, name)
    return tuple(value)

  return check


def ascending(field: str, value: Any) -> tuple[float, ...]:
  """None, or two or more positive numbers, the smallest first."""
  ok = isinstance(value, tuple | list) and len(value) != 1
  rule = 'a tuple of two or more positive numbers, the smallest first, or ()'
  errors.require(field, value, ok, rule)
  kept = tuple(real(0, open_low=True)(field, v) for v in value)
  rising = all(a < b for a, b in itertools.pairwise(kept))
  errors.require(field, value, rising, rule)
  return kept


def flag(field: str, value: Any) -> bool:
  errors.require(field, value, isinstance(value, bool), 'True or False')
  return value


def maybe(check: Check) -> Check:
  """None, or what `check` takes."""
  return lambda field, value: None if value is None else check(field, value)


def string(field: str, value: Any) -> str:
  errors.require(field, value, isinstance(value, str), 'a name, a string')
  return value


def path(field: str, value: Any) -> str:
  errors.require(field, value, isinstance(value, str), 'a path, a string')
  return value


def words(field: str, value: Any) -> str:
  errors.require(
    field, value, isinstance(value, str),
    "in words, as '500 steps', '30 epochs' or '5%'",
  )  # fmt: skip
  return value


def mapping(field: str, value: Any) -> Mapping[str, Any]:
  """A mapping with names for keys, frozen with all that is in it."""
  ok = isinstance(value, Mapping) and all(isinstance(k, str) for k in value)
  errors.require(field, value, ok, 'a mapping, {name: value}')
  return _frozen(value)


def keywords(most: float) -> Check:
  """Keyword arguments of a function, which looks at the rest itself.

  Their numbers, in tuples too, lie in [-most, most] and fit float32: a count
  means something here, and 1e-50 is not zero by surprise.
  """

  def check(field, value):
    kept = mapping(field, value)
    for name, given in kept.items():
      for number in given if isinstance(given, tuple) else (given,):
        if isinstance(number, numbers.Real) and not isinstance(number, bool):
          where = f'{field}.{name}'
          size = abs(real()(where, number))
          errors.require(where, number, size <= most, f'at most {most} in size')
    return kept

  return check


def _frozen(value: Any) -> Any:
  """Lists become tuples, as JSON has lists for both."""
  if isinstance(value, Mapping):
    return Frozen({k: _frozen(v) for k, v in value.items()})
  if isinstance(value, list | tuple):
    return tuple(map(_frozen, value))
  return value
