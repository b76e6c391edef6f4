"""Gains between the two ends of a factor, and the runs that are lost there."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from implicit_attr.claims.registry import FACTORS, SETTINGS

Record = dict[str, Any]

CENSORED = 0.9
"""A larger share of images at one end of the radii is a floor or a ceiling."""


def groups(
  records: Iterable[Record], fields: Sequence[str]
) -> dict[tuple, list[Record]]:
  """Records by the values of `fields`, None where one is missing."""
  found: dict[tuple, list[Record]] = {}
  for record in records:
    found.setdefault(tuple(record.get(f) for f in fields), []).append(record)
  return found


def lost(
  records: Sequence[Record], absent: Iterable[Record], factor: str
) -> tuple[int, int]:
  """How many runs are absent at the end that should help less, and the other.

  Counted among runs of the settings and rules of `records`; the ends are the
  outermost levels that anybody ran, measured or lost.
  """
  fixed = [f for f in ('rule', *SETTINGS) if f not in (factor, 'protocol')]
  there, gone = groups(records, fixed), groups(absent, fixed)
  worse = better = 0
  for place, mine in there.items():
    missing = gone.get(place, [])
    ends = sorted(
      {r[factor] for r in (*mine, *missing)}, reverse=FACTORS[factor] < 0
    )
    if len(ends) > 1:
      worse += sum(r[factor] == ends[0] for r in missing)
      better += sum(r[factor] == ends[-1] for r in missing)
  return worse, better


def imbalance(gone: tuple[int, int]) -> str:
  """What `lost` counted as a reason, '' where the ends lost equally."""
  if gone[0] == gone[1]:
    return ''
  return f'unbalanced: {gone[0]} runs lost at one end, {gone[1]} at the other'


def censored(records: Sequence[Record]) -> str:
  """Which arms have nearly all images beyond the radii, as a reason."""
  said = []
  for end in ('below', 'above'):
    full = [r for r in records if r.get(f'censored_{end}', 0) > CENSORED]
    if full:
      arms = sorted({(r['lr'], r['batch_size']) for r in full})
      said.append(
        f'over 90 % of images {end} all radii at (rate, batch) '
        + ', '.join(f'({lr:g}, {batch})' for lr, batch in arms)
      )
  return '; '.join(said)


def gains(
  records: Iterable[Record], factor: str, quantity: str
) -> dict[int, np.ndarray]:
  """seed -> gain of each example [n], from the two ends of `factor`.

  The ends are the lowest and the highest level that every seed of the same
  settings has; settings and maps are averaged. One number stands for all
  examples where single ones are not known.
  """
  fixed = [f for f in (*SETTINGS, 'map', 'attack') if f != factor]
  changes: dict[int, list[np.ndarray]] = {}
  for group in groups(records, fixed).values():
    levels = {
      seed: runs
      for seed, runs in groups(group, ('seed',)).items()
      if len({r[factor] for r in runs}) > 1
    }
    if not levels:
      continue
    common = set.intersection(
      *({r[factor] for r in runs} for runs in levels.values())
    )
    if len(common) < 2:
      continue
    ends = sorted(common, reverse=FACTORS[factor] < 0)
    for (seed,), runs in levels.items():
      worse, better = (
        next(r for r in runs if r[factor] == end) for end in (ends[0], ends[-1])
      )
      change = minus(_scores(better, quantity), _scores(worse, quantity))
      if np.isfinite(change).any():
        changes.setdefault(seed, []).append(change)
  return {seed: _mean(parts) for seed, parts in changes.items()}


def _scores(record: Record, quantity: str) -> np.ndarray:
  """[n], or [1] where only the mean is known."""
  values = (record.get('examples') or {}).get(quantity)
  if values is None:
    values = [record.get(quantity, np.nan)]
  return np.asarray(values, float)


def minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """a - b example by example, or of means where they do not match."""
  if a.shape == b.shape:
    return a - b
  return np.array([_average(a) - _average(b)])


def _mean(parts: list[np.ndarray]) -> np.ndarray:
  if len({part.shape for part in parts}) > 1:
    return np.array([np.mean([_average(part) for part in parts])])
  here = np.isfinite(parts)
  total = np.where(here, parts, 0).sum(0)
  return np.where(here.any(0), total / np.maximum(here.sum(0), 1), np.nan)


def _average(a: np.ndarray) -> float:
  a = a[np.isfinite(a)]
  return float(a.mean()) if a.size else float('nan')


def stacked(gains: dict[int, np.ndarray]) -> tuple[np.ndarray, list[int]]:
  """([seeds, examples], the seeds); means where examples do not match."""
  seeds = sorted(gains)
  rows = [gains[seed] for seed in seeds]
  if len({row.shape for row in rows}) > 1:
    rows = [np.array([_average(row)]) for row in rows]
  return (np.stack(rows) if rows else np.empty((0, 1))), seeds
