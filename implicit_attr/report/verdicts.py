"""What do the claims come to here, and on which numbers does that rest?"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from implicit_attr import claims
from implicit_attr.report import canvas, tables
from implicit_attr.report.canvas import Exhibit, Image
from implicit_attr.report.tables import by

FACTORS = {'lr': 'larger learning rate', 'batch_size': 'smaller batches'}
_FIELDS = {
  'factor': 'Towards', 'rule': 'Compared at', 'target': 'Explained',
  'map': 'Map', 'data': 'Data', 'model': 'Network', 'loss': 'Loss',
}  # fmt: skip
_BESIDE = {
  'random_topk': 'Under random signs', 'deletion_auc': 'Deletion AUC',
  'topk': 'Top-k kept', 'accuracy': 'Accuracy', 'cosine': 'Cosine',
}  # fmt: skip
_KINDS = {
  'supported': 'yes', 'contradicted': 'no', 'undecided': 'open',
  'not enough runs': 'open',
}  # fmt: skip
_COLOURS = (canvas.BLUE, canvas.ORANGE, canvas.GREEN, canvas.PURPLE)


@dataclasses.dataclass(frozen=True)
class Answer:
  """A claim with its verdict as the page shows it.

  `kind` is 'yes', 'no', 'depends' or 'open'; `same` are the fields that all
  cells have in common; the table has a row a cell.
  """

  name: str
  hypothesis: str
  verdict: str
  kind: str
  reason: str
  decision: str
  same: str
  table: tables.Table


def answers(verdicts: Sequence[claims.Verdict]) -> list[Answer]:
  """Every verdict as words and a table of its cells."""
  return [_answer(verdict) for verdict in verdicts]


def _answer(found: claims.Verdict) -> Answer:
  claim = found.claim
  fields = list(dict.fromkeys(f for c in found.cells for f in c.fields))
  values = {f: {c.fields.get(f) for c in found.cells} for f in fields}
  told = [f for f in fields if len(values[f]) > 1]
  chain = claim.test == 'chain'
  beside = list(found.cells[0].beside) if found.cells else []
  head = [_field(f) for f in told]
  head += ['Weakest link' if chain else _unit(claim), 'Verdict', 'Seeds']
  head += [_beside(name) for name in beside]
  rows = [
    (
      [
        *((_value(f, cell.fields.get(f)),) for f in told),
        estimate(cell.estimate),
        (cell.verdict,),
        (str(cell.seeds),),
        *(estimate(cell.beside[name]) for name in beside),
      ],
      cell.verdict in (claims.UNDECIDED, claims.TOO_FEW),
    )
    for cell in found.cells
  ]
  same = [
    f'{_field(f)}: {value}'
    for f in fields
    if f not in told and (value := _value(f, *values[f])) not in ('', '–')
  ]
  return Answer(
    name=claim.name,
    hypothesis=claim.hypothesis,
    verdict=_said(found.verdict),
    kind=_KINDS.get(found.verdict, 'depends'),
    reason=(said := _said(found.reason))[:1].upper() + said[1:],
    decision=claim.decision,
    same='; '.join(same),
    table=tables.Table(head, rows),
  )


def _said(text: str) -> str:
  """A verdict or its reason, with the words of the page for fields."""
  words = {'depends on factor': 'depends on what is varied'}
  words |= {f'{factor}: ': f'{name}: ' for factor, name in FACTORS.items()}
  words |= {rule: tables.rule(rule) for rule in tables.RULES if '_' in rule}
  for old, new in words.items():
    text = re.sub(rf'\b{old}', new, text, flags=re.IGNORECASE)
  return tables.plain(text)


def estimate(found: claims.Estimate) -> tuple[str, ...]:
  """('+0.031', '[0.010, 0.052]'); one line where the interval is endless."""
  if not math.isfinite(found.value):
    return ('–',)
  sign = '+' if found.value > 0 else ''
  mean = sign + tables.number(found.value)
  if not math.isfinite(found.low + found.high):
    return (mean, 'no interval')
  return (mean, f'[{tables.number(found.low)}, {tables.number(found.high)}]')


def _unit(claim: claims.Claim) -> str:
  return {
    'topk': 'Gain in top-k kept', 'speed': 'Gain in log speed',
  }.get(claim.quantity, f'Gain in {tables.plain(claim.quantity)}')  # fmt: skip


def _field(name: str) -> str:
  return _FIELDS.get(name, tables.plain(name).capitalize())


def _beside(name: str) -> str:
  return _BESIDE.get(name, tables.plain(name))


def _value(field: str, value: Any) -> str:
  if field == 'factor':
    return FACTORS.get(value, str(value))
  if field == 'rule':
    return tables.rule(str(value))
  if value is None or value == '' or value != value:
    return '–'
  return tables.plain(str(value))


def draw(verdict: claims.Verdict, folder: pathlib.Path) -> Exhibit:
  """Every cell of a claim about a gain as a point with its interval."""
  factors = by(
    [c for c in verdict.cells if math.isfinite(c.estimate.value)],
    lambda cell: cell.fields.get('factor'),
  )
  images = tuple(
    _forest(folder, verdict.claim, str(factor), cells)
    for factor, cells in factors.items()
  )
  size = verdict.claim.smallest
  towards = ' and '.join(map(_factor, factors)) or 'an end of the sweep'
  return Exhibit(
    f'What changes towards {towards}',
    'The change of the share of top-k pixels kept under attack from one end '
    'of the sweep to the other; to the right of 0 the map became more robust. '
    'A point is a mean over seeds, batches (or rates) and images, with its '
    f'95 % interval over seeds and images. Grey: changes under {size:g}, which '
    'were said beforehand to be of no interest. Hollow: fewer than '
    f'{claims.SEEDS} seeds.',
    images,
    'no two arms to compare',
  )


def _factor(name: Any) -> str:
  return FACTORS.get(name, str(name))


def _forest(
  folder: pathlib.Path, claim: claims.Claim, factor: str,
  cells: Sequence[claims.Cell],
) -> Image:  # fmt: skip
  rules = list(dict.fromkeys(cell.fields.get('rule') for cell in cells))
  skipped = ('factor', 'rule')
  fields = [
    f
    for f in cells[0].fields
    if f not in skipped and len({c.fields.get(f) for c in cells}) > 1
  ]
  label = lambda c: (
    ', '.join(_value(f, c.fields[f]) for f in fields) or 'all'
  )  # fmt: skip
  lines = by(sorted(cells, key=label), label)
  axes = canvas.panel(
    '', 'change of top-k kept', '', height=1.3 + 0.2 * len(lines)
  )
  axes.axvspan(-claim.smallest, claim.smallest, color='#EEEEEE', lw=0, zorder=0)
  axes.axvline(0, color=canvas.INK, lw=0.7, zorder=1)
  ends = [3 * claim.smallest]
  for height, mine in enumerate(lines.values()):
    for cell in mine:
      place = rules.index(cell.fields.get('rule'))
      at = height + 0.22 * (place - (len(rules) - 1) / 2)
      value, low, high, _ = cell.estimate
      colour = _COLOURS[place % len(_COLOURS)]
      few = cell.verdict == claims.TOO_FEW
      if np.isfinite(low + high) and not few:
        axes.hlines(at, low, high, colors=colour, lw=1)
        ends += [abs(low), abs(high)]
      axes.plot(
        value, at, 'o', ms=3, color=colour, mfc='white' if few else colour
      )
      ends.append(abs(value))
  # A line too long to be told anything by does not set the scale.
  reach = 1.05 * min(max(ends), 4 * np.percentile(ends, 75))
  axes.set_xlim(-reach, reach)
  axes.set_yticks(range(len(lines)), list(lines))
  axes.set_ylim(len(lines) - 0.4, -0.6)
  axes.tick_params(axis='y', length=0, labelsize=7)
  for place, rule in enumerate(rules):
    axes.plot(
      [], [], 'o-', ms=3, lw=1, color=_COLOURS[place % len(_COLOURS)],
      label=tables.rule(str(rule)),
    )  # fmt: skip
  axes.figure.legend(
    loc='outside upper left', title=f'Towards {_factor(factor)}',
    alignment='left', title_fontsize=9, borderpad=0,
  )  # fmt: skip
  return canvas.save(
    axes.figure, folder, f'effect_{claim.name}_{factor}',
    f'{claim.name}: change of top-k kept towards {_factor(factor)}',
  )  # fmt: skip
