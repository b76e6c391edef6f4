"""Verdicts: gains of arms and chains of correlations against a claim."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from implicit_attr import errors
from implicit_attr.claims.overall import (
  CONTRADICTED,
  SUPPORTED,
  TOO_FEW,
  UNDECIDED,
  summary,
)
from implicit_attr.claims.registry import (
  CELL,
  CLAIMS,
  FACTORS,
  RUNS,
  SEEDS,
  SETTINGS,
  Claim,
  Where,
)
from implicit_attr.claims.statistics import (
  Estimate,
  paired_bootstrap,
  partial_spearman,
)

Record = dict[str, Any]

BESIDE = ('random_topk', 'cosine', 'deletion_auc', 'accuracy')
"""Whose gain stands beside a gain: the same noise without an attack, a
similarity that sees scale, faithfulness and accuracy."""


@dataclasses.dataclass(frozen=True)
class Cell:
  """One combination of what is judged apart.

  `verdict` is 'supported', 'contradicted', 'undecided' (the interval leaves
  both open) or 'not enough runs'; `seeds` are those with both arms. `beside`
  are gains of other quantities, for a chain the estimates of its links.
  """

  fields: dict[str, Any]
  verdict: str
  estimate: Estimate
  seeds: int
  beside: dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What all cells say of a claim.

  `verdict` is 'supported' or 'contradicted' (more than half of the cells are,
  and of 20 cells none is the opposite), 'depends on <field>' (some are, some
  are the opposite; the field tells them apart best: a description, no test),
  'undecided', or 'not enough runs' in any cell. If a cell is wrongly supported
  at most 1 time in 40, more than half of them are at most 1 time in 20, however
  they depend on each other (Markov).
  """

  claim: Claim
  verdict: str
  reason: str
  cells: list[Cell]

  def __str__(self) -> str:
    return f'{self.claim.name} {self.verdict}: {self.reason}'


def judge(records: Sequence[Record]) -> list[Verdict]:
  """A verdict for every claim, in order; see `judge_one`."""
  return [judge_one(claim, records) for claim in CLAIMS.values()]


def judge_one(claim: Claim, records: Sequence[Record]) -> Verdict:
  """Compares the arms of `claim` in every cell that `records` have.

  Args:
    claim: one of `CLAIMS`, or one of your own.
    records: a row per run, rule and map, as `read` makes them; fields that
      are missing count as unknown. Per-example scores under 'examples' are
      used where both arms have them.

  Raises:
    InputError: a record without 'seed' or without a factor.
  """
  for name in ('seed', *FACTORS):
    bad = [i for i, record in enumerate(records) if name not in record]
    errors.require(f'records[…][{name!r}]', bad[:3], not bad, 'in every record')
  chain = claim.test == 'chain'
  cells = list((_chains if chain else _contrasts)(claim, records))
  return Verdict(claim, *summary(claim, cells), cells)


def _having(records: Iterable[Record], where: Where) -> list[Record]:
  return [r for r in records if all(r.get(k) == v for k, v in where.items())]


def _groups(
  records: Iterable[Record], fields: Sequence[str]
) -> dict[tuple, list[Record]]:
  groups: dict[tuple, list[Record]] = {}
  for record in records:
    groups.setdefault(tuple(record.get(f) for f in fields), []).append(record)
  return groups


def _contrasts(claim: Claim, records: Sequence[Record]) -> Iterable[Cell]:
  """Gains of `plus`, less those of `minus`, by cell."""
  fields = (*CELL[1:], *claim.cells)
  plus = _groups(_having(records, claim.plus), fields)
  minus = _groups(_having(records, claim.minus or {}), fields)
  for factor, (values, chosen) in itertools.product(FACTORS, plus.items()):
    each = _groups(chosen, (claim.each,)) if claim.each else {(): chosen}
    for extra, part in each.items():
      against = minus.get(values, []) if claim.minus is not None else None
      if not _varied(part, factor):
        continue
      where = {'factor': factor, **dict(zip(fields, values, strict=True))}
      where |= dict(zip((claim.each,), extra, strict=False))
      yield _contrast(claim, where, part, against)


def _varied(records: Sequence[Record], factor: str) -> bool:
  return len({record[factor] for record in records}) > 1


def _contrast(
  claim: Claim, where: Where, part: list[Record], against: list[Record] | None
) -> Cell:
  def difference(quantity: str) -> tuple[np.ndarray, list]:
    plus = gains(part, where['factor'], quantity)
    if against is None:
      return _stacked(plus)
    minus = gains(against, where['factor'], quantity)
    both = [seed for seed in plus if seed in minus]
    return _stacked({seed: _minus(plus[seed], minus[seed]) for seed in both})

  matrix, seeds = difference(claim.quantity)
  estimate = paired_bootstrap(matrix)
  beside = {
    name: paired_bootstrap(difference(name)[0])
    for name in BESIDE
    if name != claim.quantity
  }
  verdict = TOO_FEW
  if len(seeds) >= SEEDS:
    verdict = decide(claim.test, estimate, claim.smallest)
  return Cell(where, verdict, estimate, len(seeds), beside)


def decide(test: str, estimate: Estimate, smallest: float) -> str:
  """The decision rule of a 'gain' or a 'no_loss'; see `Claim.decision`."""
  value, low, high, _ = estimate
  if test == 'gain':
    if low > 0 and value >= smallest:
      return SUPPORTED
    return CONTRADICTED if high < smallest else UNDECIDED
  if low > -smallest:
    return SUPPORTED
  return CONTRADICTED if high < -smallest else UNDECIDED


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
  for group in _groups(records, fixed).values():
    levels = {
      seed: runs
      for seed, runs in _groups(group, ('seed',)).items()
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
      change = _minus(_scores(better, quantity), _scores(worse, quantity))
      if np.isfinite(change).any():
        changes.setdefault(seed, []).append(change)
  return {seed: _mean(parts) for seed, parts in changes.items()}


def _scores(record: Record, quantity: str) -> np.ndarray:
  """[n], or [1] where only the mean is known."""
  values = (record.get('examples') or {}).get(quantity)
  if values is None:
    values = [record.get(quantity, np.nan)]
  return np.asarray(values, float)


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
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


def _stacked(gains: dict[int, np.ndarray]) -> tuple[np.ndarray, list[int]]:
  """([seeds, examples], the seeds); means where examples do not match."""
  seeds = sorted(gains)
  rows = [gains[seed] for seed in seeds]
  if len({row.shape for row in rows}) > 1:
    rows = [np.array([_average(row)]) for row in rows]
  return (np.stack(rows) if rows else np.empty((0, 1))), seeds


def _chains(claim: Claim, records: Sequence[Record]) -> Iterable[Cell]:
  """Every link of a chain, by cell; there is no factor to split by."""
  fields = (*CELL[1:], *claim.cells)
  for values, runs in _groups(_having(records, claim.plus), fields).items():
    links = {}
    for cause, effect, sign, given in claim.links:
      table = np.array(
        [[r.get(f, np.nan) for f in (cause, effect, *given)] for r in runs],
        float,
      )
      table = table[np.isfinite(table).all(1)]
      rho = partial_spearman(table[:, 0], table[:, 1], table[:, 2:])
      ends = sorted((sign * rho.low, sign * rho.high))
      links[f'{cause} → {effect}'] = Estimate(sign * rho.value, *ends, rho.n)
    weakest = min(links.values(), key=lambda e: (e.high, e.value))
    seeds = len({r['seed'] for r in runs})
    enough = seeds >= SEEDS and all(e.n >= RUNS for e in links.values())
    verdict = TOO_FEW
    if enough:
      each = {decide('gain', e, claim.smallest) for e in links.values()}
      verdict = CONTRADICTED if CONTRADICTED in each else UNDECIDED
      verdict = SUPPORTED if each == {SUPPORTED} else verdict
    where = dict(zip(fields, values, strict=True))
    yield Cell(where, verdict, weakest, seeds, links)
