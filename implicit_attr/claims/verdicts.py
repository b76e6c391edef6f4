"""Verdicts: gains of arms and chains of correlations against a claim."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from implicit_attr import errors
from implicit_attr.claims.decisions import (
  NO_EFFECT,
  REVERSED,
  SUPPORTED,
  TOO_FEW,
  UNDECIDED,
  decide,
  decide_chain,
  held,
)
from implicit_attr.claims.gains import (
  censored,
  gains,
  groups,
  imbalance,
  lost,
  minus,
  stacked,
)
from implicit_attr.claims.overall import summary
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
  between_settings,
  paired_mean,
  within_settings,
)

Record = dict[str, Any]

BESIDE = ('cosine', 'deletion_auc', 'accuracy')
"""Whose gain stands beside a gain, with that of the same noise without an
attack: a similarity that sees scale, faithfulness and accuracy."""

INSTEAD = {'train_lambda_max': 'lambda_max'}
"""What a chain reads in a cell whose runs do not all have the former."""

LOGS = (*FACTORS, 'train_lambda_max', 'lambda_max', 'input_lambda',
        'normalized_curvature')  # fmt: skip
"""What multiplies: a link is between logarithms."""


@dataclasses.dataclass(frozen=True)
class Cell:
  """One combination of what is judged apart.

  `verdict` is one of the five answers; `seeds` are those with both arms.
  `primary`: does it decide the claim? `beside` are gains of other quantities,
  for a chain the estimates of its links. `lost` counts the runs absent at the
  end that should help less and at the other one; `reason` says what kept a
  cell from more, '' if nothing did but its interval.
  """

  fields: dict[str, Any]
  verdict: str
  estimate: Estimate
  seeds: int
  beside: dict[str, Estimate]
  primary: bool = True
  lost: tuple[int, int] = (0, 0)
  reason: str = ''


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What the primary cells say of a claim.

  `verdict` is 'supported', 'reversed' or 'no effect of interest' (more than
  half of the cells are, and of 20 cells none is the opposite), 'depends on
  <field>' (some are supported, some reversed; the field tells them apart best:
  a description, no test), 'undecided', or 'not enough runs' in any cell.
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

  Primary cells are held to a false discovery rate of 5 % among themselves, and
  so are secondary ones. A cell in which one end lost more runs than the other
  is at most undecided.

  Args:
    claim: one of `CLAIMS`, or one of your own.
    records: a row per run, rule and map, as `read` makes them; fields that
      are missing count as unknown. Per-example scores under 'examples' are
      used where both arms have them. A row with 'absent' is of a run that did
      not come to its rule.

  Raises:
    InputError: a record without 'seed' or without a factor.
  """
  for name in ('seed', *FACTORS):
    bad = [i for i, record in enumerate(records) if name not in record]
    errors.require(f'records[…][{name!r}]', bad[:3], not bad, 'in every record')
  absent = [r for r in records if r.get('absent')]
  gone = {(r['run'], r.get('rule')) for r in absent if 'run' in r}
  # A run that diverged may have left a last state, and an evaluation of it.
  measured = [
    r for r in records
    if not r.get('absent') and (r.get('run'), r.get('rule')) not in gone
  ]  # fmt: skip
  make = _chains if claim.test == 'chain' else _contrasts
  sizes = {claim.quantity: claim.smallest, **claim.secondary}
  cells: list[Cell] = []
  for quantity, size in sizes.items():
    links = tuple(
      (cause, quantity if effect == claim.quantity else effect, sign)
      for cause, effect, sign in claim.links
    )
    mine = dataclasses.replace(
      claim, quantity=quantity, smallest=size, links=links
    )
    for cell, p in make(mine, measured, absent):
      decides = claim.rule in (None, cell.fields['rule'])
      primary = quantity == claim.quantity and decides
      fields = cell.fields | ({'measure': quantity} if claim.secondary else {})
      cell = dataclasses.replace(
        cell, primary=primary, fields=fields,
        estimate=cell.estimate._replace(p=p),
      )  # fmt: skip
      cells.append(cell)
  cells = [
    cell
    for primary in (True, False)
    for cell in _held([c for c in cells if c.primary == primary])
  ]
  return Verdict(claim, *summary(claim, cells), cells)


def _held(cells: Sequence[Cell]) -> Iterator[Cell]:
  said = held([c.verdict for c in cells], [c.estimate.p for c in cells])
  for cell, verdict in zip(cells, said, strict=True):
    reason = cell.reason
    if verdict != cell.verdict:
      reason = reason or 'not sure enough among so many cells'
    if cell.lost[0] != cell.lost[1] and verdict != TOO_FEW:
      verdict = UNDECIDED
    yield dataclasses.replace(cell, verdict=verdict, reason=reason)


def _having(records: Iterable[Record], where: Where) -> list[Record]:
  return [r for r in records if all(r.get(k) == v for k, v in where.items())]


def _contrasts(
  claim: Claim, records: Sequence[Record], absent: Sequence[Record]
) -> Iterable[tuple[Cell, float]]:
  """(gains of `plus`, less those of `minus`, p) by cell."""
  fields = (*CELL[1:], *claim.cells)
  plus = groups(_having(records, claim.plus), fields)
  less = groups(_having(records, claim.minus or {}), fields)
  for factor, (values, chosen) in itertools.product(FACTORS, plus.items()):
    each: dict[tuple, list[Record]] = {(): chosen}
    if claim.each:
      each = groups(chosen, (claim.each,))
    for extra, part in each.items():
      against = less.get(values, []) if claim.minus is not None else None
      if len({record[factor] for record in part}) < 2:
        continue
      if not any(np.isfinite(r.get(claim.quantity, np.nan)) for r in part):
        continue
      where = {'factor': factor, **dict(zip(fields, values, strict=True))}
      if claim.each:
        where[claim.each] = extra[0]
      yield _contrast(claim, where, part, against, absent)


def _contrast(
  claim: Claim, where: Where, part: list[Record], against: list[Record] | None,
  absent: Sequence[Record],
) -> tuple[Cell, float]:  # fmt: skip
  factor = where['factor']

  def difference(quantity: str) -> tuple[np.ndarray, list]:
    plus = gains(part, factor, quantity)
    if against is None:
      return stacked(plus)
    less = gains(against, factor, quantity)
    both = [seed for seed in plus if seed in less]
    return stacked({seed: minus(plus[seed], less[seed]) for seed in both})

  matrix, seeds = difference(claim.quantity)
  estimate = paired_mean(matrix)
  beside = {
    name: paired_mean(difference(name)[0])
    for name in (f'random_{claim.quantity}', *BESIDE)
    if any(name in record for record in part)
  }
  everyone = [*part, *(against or [])]
  gone = lost(everyone, absent, factor)
  verdict, why = TOO_FEW, [imbalance(gone)]
  if len(seeds) >= SEEDS:
    verdict = decide(claim.test, estimate, claim.smallest)
  if claim.quantity == 'log2_eps50':
    why.append(edge := censored(everyone))
    # What lies beyond the radii cannot be told from no change.
    verdict = UNDECIDED if edge and verdict == NO_EFFECT else verdict
  p = estimate.p
  if claim.test == 'no_loss' and verdict == SUPPORTED:
    p = paired_mean(matrix, null=-claim.smallest).p
  reason = '; '.join(filter(None, why))
  cell = Cell(where, verdict, estimate, len(seeds), beside, True, gone, reason)
  return cell, p if verdict in (SUPPORTED, REVERSED) else 1.0


def _chains(
  claim: Claim, records: Sequence[Record], absent: Sequence[Record]
) -> Iterable[tuple[Cell, float]]:
  """(every link of a chain, p) by cell; there is no factor to split by."""
  fields = (*CELL[1:], *claim.cells)
  for values, runs in groups(_having(records, claim.plus), fields).items():
    if not any(np.isfinite(r.get(claim.quantity, np.nan)) for r in runs):
      continue
    links = {}
    for cause, effect, sign in claim.links:
      cause, effect = (_known(runs, name) for name in (cause, effect))
      links[f'{cause} → {effect}'] = _link(runs, cause, effect, sign)
    weakest = min(links.values(), key=lambda e: (e.high, e.value))
    seeds = len({r['seed'] for r in runs})
    known = all(np.isfinite(e.value) and e.n >= RUNS for e in links.values())
    verdict, p = TOO_FEW, 1.0
    if seeds >= SEEDS and known:
      verdict, p = decide_chain(list(links.values()), claim.smallest)
    ends = [lost(runs, absent, factor) for factor in FACTORS]
    gone = next((end for end in ends if end[0] != end[1]), ends[0])
    where = dict(zip(fields, values, strict=True))
    reason = imbalance(gone)
    yield Cell(where, verdict, weakest, seeds, links, True, gone, reason), p


def _known(runs: Sequence[Record], name: str) -> str:
  whole = all(np.isfinite(r.get(name, np.nan)) for r in runs)
  return name if whole else INSTEAD.get(name, name)


def _link(
  runs: Sequence[Record], cause: str, effect: str, sign: int
) -> Estimate:
  """A correlation, positive if it has the sign that the claim says."""
  given = [f for f in FACTORS if f != cause] if cause in FACTORS else []
  names = (cause, effect, *given)
  table = np.array([[r.get(f, np.nan) for f in names] for r in runs], float)
  for i, name in enumerate(names):
    if name in LOGS:
      column = table[:, i]
      column[column <= 0] = np.nan
      table[:, i] = np.log(column)
  here = np.asarray(np.isfinite(table).all(1))
  table, runs = table[here], [r for r, ok in zip(runs, here, strict=True) if ok]
  setting = [repr([r.get(f) for f in SETTINGS]) for r in runs]
  if given:
    rho = between_settings(table[:, 0], table[:, 1], table[:, 2:], setting)
  else:
    seeds = [r['seed'] for r in runs]
    rho = within_settings(table[:, 0], table[:, 1], setting, seeds)
  low, high = sorted((sign * rho.low, sign * rho.high))
  return rho._replace(value=sign * rho.value, low=low, high=high)
