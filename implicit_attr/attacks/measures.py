"""Similarities to the clean map by which an attacked image is judged.

Each entry freezes the clean map, [B, ...] signed, and returns score(b) -> [B];
lower is a stronger attack, NaN where either map leaves it undefined.
"""

from collections.abc import Callable

from implicit_attr import errors, similarity
from implicit_attr.similarity import magnitude
from implicit_attr.types import Array

MapScore = Callable[[Array], Array]


def _topk(a: Array, k: int | float) -> MapScore:
  size = magnitude(a)
  return lambda b: similarity.topk_intersection(size, magnitude(b), k)


def _kendall(a: Array, k: int | float) -> MapScore:
  size = magnitude(a)
  return lambda b: similarity.kendall_tau(size, magnitude(b))


def _spearman(a: Array, k: int | float) -> MapScore:
  size = magnitude(a)
  return lambda b: similarity.spearman(size, magnitude(b))


def _cosine(a: Array, k: int | float) -> MapScore:
  return lambda b: similarity.cosine(a, b)


MEASURES: dict[str, Callable[[Array, int | float], MapScore]] = {
  'topk': _topk,
  'kendall': _kendall,
  'spearman': _spearman,
  'cosine': _cosine,
}
"""'topk', 'kendall' and 'spearman' of channel-summed absolute maps, 'cosine'
of signed ones."""


def make(
  name: str, clean: Array, *, k: int | float, objective: MapScore | None
) -> MapScore:
  """The measure `name`; 'objective' judges by the attack's own objective.

  Raises:
    InputError: an unknown name.
  """
  errors.choose('select', name, [*MEASURES, 'objective'])
  if name == 'objective':
    assert objective is not None  # only who has one lets it be chosen
    return objective
  return MEASURES[name](clean, k)
