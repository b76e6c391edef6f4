"""The verdict on a claim from those on its primary cells."""

from collections.abc import Sequence
from typing import Any

from implicit_attr.claims.decisions import (
  NO_EFFECT,
  REVERSED,
  SUPPORTED,
  TOO_FEW,
  UNDECIDED,
)
from implicit_attr.claims.registry import RUNS, SEEDS, Claim

_ALL = (SUPPORTED, REVERSED, NO_EFFECT, UNDECIDED, TOO_FEW)


def summary(claim: Claim, cells: Sequence[Any]) -> tuple[str, str]:
  """(verdict, reason) of a claim; secondary cells are told and do not count."""
  if not cells:
    return TOO_FEW, 'no two arms to compare'
  primary = [cell for cell in cells if cell.primary]
  others = [cell for cell in cells if not cell.primary]
  beside = f'; secondary, deciding nothing: {_told(others)}' if others else ''
  if not primary:
    where = f' at the checkpoint {claim.rule}' if claim.rule else ''
    said = f'no two arms have the primary endpoint, {claim.quantity}{where}'
    return TOO_FEW, said + beside
  verdict, reason = _of(claim, primary)
  return verdict, reason + beside


def _told(cells: Sequence[Any]) -> str:
  verdicts = [cell.verdict for cell in cells]
  counts = [(verdicts.count(name), name) for name in _ALL]
  said = ', '.join(f'{n} {name}' for n, name in counts if n)
  return f'of {len(cells)} cells {said}'


def _of(claim: Claim, cells: Sequence[Any]) -> tuple[str, str]:
  verdicts, said = [cell.verdict for cell in cells], _told(cells)
  # One cell of many on the other side may be chance.
  least = 1 + len(cells) // 20
  if min(map(verdicts.count, (SUPPORTED, REVERSED))) >= least:
    field, parts = _splits(cells)
    return f'depends on {field}', f'{parts}; {said}'
  for name in (SUPPORTED, REVERSED, NO_EFFECT):
    if 2 * verdicts.count(name) > len(cells):
      return name, said
  if verdicts.count(TOO_FEW) == len(cells):
    seeds = max(cell.seeds for cell in cells)
    said += f'; {seeds} seeds at most, {SEEDS} are needed'
    said += f', and {RUNS} runs' if claim.test == 'chain' else ''
    return TOO_FEW, said
  return UNDECIDED, said


def _splits(cells: Sequence[Any]) -> tuple[str, str]:
  """(the field that tells supported cells from reversed ones best, how)."""
  decided = [c for c in cells if c.verdict in (SUPPORTED, REVERSED)]
  # A field that is no better than calling all cells alike tells nothing.
  verdicts = [cell.verdict for cell in decided]
  most = max(map(verdicts.count, (SUPPORTED, REVERSED)))
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
