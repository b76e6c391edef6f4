"""Checks of an objective's weight, radii and names.

The fields are those of the config: `objective.weight`, `objective.options.*`.
Numbers that are traced (a weight or a radius that a sweep maps over) are taken
as they are.
"""

import math
from typing import Any

from implicit_attr import errors
from implicit_attr.attacks.inputs import known

BALLS = ('linf', 'l2')
PRODUCTS = ('exact', 'fd')


def _number(field: str, value: Any, *limits: float, **kinds: bool) -> None:
  if known(value):
    value = value.item() if hasattr(value, 'item') else value
    errors.number(field, value, *limits, **kinds)


def weight(value: Any, high: float = math.inf) -> None:
  """Raises InputError unless the weight is a number in [0, high]."""
  _number('objective.weight', value, 0, high)


def positive(**values: Any) -> None:
  """Raises InputError for an option that is not a number above 0."""
  for name, value in values.items():
    _number(f'objective.options.{name}', value, 0, open_low=True)


def share(**values: Any) -> None:
  """Raises InputError for an option that is not a number from 0."""
  for name, value in values.items():
    _number(f'objective.options.{name}', value, 0)


def count(low: int = 1, **values: Any) -> None:
  """Raises InputError for an option that is not an integer from `low`."""
  for name, value in values.items():
    errors.number(f'objective.options.{name}', value, low, integer=True)


def choose(known_names: Any, **values: Any) -> None:
  """Raises InputError for an option that is not one of `known_names`."""
  for name, value in values.items():
    errors.choose(f'objective.options.{name}', value, known_names)


def flag(**values: Any) -> None:
  """Raises InputError for an option that is not True or False."""
  for name, value in values.items():
    ok = isinstance(value, bool)
    errors.require(f'objective.options.{name}', value, ok, 'True or False')


def attack(eps: Any, norm: str, steps: int, step: Any) -> None:
  """Raises InputError unless an inner attack can be made of these four."""
  share(eps=eps)
  choose(BALLS, norm=norm)
  count(steps=steps)
  positive(step=step)


def product(hvp: str, h: Any) -> None:
  """Raises InputError unless `hvp` is known and its step `h` above 0."""
  choose(PRODUCTS, hvp=hvp)
  positive(h=h)
