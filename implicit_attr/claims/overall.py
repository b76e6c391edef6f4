"""The verdict on a claim from those on its cells."""

from collections.abc import Sequence
from typing import Any

from implicit_attr.claims.registry import RUNS, SEEDS, Claim

SUPPORTED, CONTRADICTED = 'supported', 'contradicted'
UNDECIDED, TOO_FEW = 'undecided', 'not enough runs'


def summary(claim: Claim, cells: Sequence[Any]) -> tuple[str, str]:
  """(verdict, reason) of a claim from its cells."""
  count = {
    name: sum(cell.verdict == name for cell in cells)
    for name in (SUPPORTED, CONTRADICTED, UNDECIDED, TOO_FEW)
  }
  said = ', '.join(f'{n} {name}' for name, n in count.items() if n)
  if not cells:
    return TOO_FEW, 'no two arms to compare'
  said = f'of {len(cells)} cells {said}'
  # One cell of many on the other side may be chance.
  least = 1 + len(cells) // 20
  if min(count[SUPPORTED], count[CONTRADICTED]) >= least:
    field, parts = _splits(cells)
    return f'depends on {field}', f'{parts}; {said}'
  for name in (SUPPORTED, CONTRADICTED):
    if 2 * count[name] > len(cells):
      return name, said
  if count[TOO_FEW] == len(cells):
    seeds = max(cell.seeds for cell in cells)
    said += f'; {seeds} seeds at most, {SEEDS} are needed'
    said += f', and {RUNS} runs' if claim.test == 'chain' else ''
    return TOO_FEW, said
  return UNDECIDED, said


def _splits(cells: Sequence[Any]) -> tuple[str, str]:
  """(the field that tells supported cells from contradicted ones best, how)."""
  decided = [c for c in cells if c.verdict in (SUPPORTED, CONTRADICTED)]
  # A field that is no better than calling all cells alike tells nothing.
  verdicts = [cell.verdict for cell in decided]
  most = max(map(verdicts.count, (SUPPORTED, CONTRADICTED)))
  best = ('several fields', 'no single one tells them apart', most)
  for field in decided[0].fields:
    groups: dict[Any, list[str]] = {}
    for cell in decided:
      groups.setdefault(cell.fields.get(field), []).append(cell.verdict)
    if len(groups) < 2:
      continue
    right = sum(max(map(v.count, set(v))) for v in groups.values())
    if right > best[2]:
      parts = '; '.join(
        f'{value}: {v.count(SUPPORTED)} of {len(v)} supported'
        for value, v in groups.items()
      )
      best = (field, parts, right)
  return best[:2]
