"""Verdicts on the claims in a sweep, and the numbers on which they rest."""

import dataclasses
import itertools
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
  'measure': 'Measure',
}  # fmt: skip
_BESIDE = {
  'random_topk': 'Under random signs',
  'random_log2_eps50': 'Under random signs', 'deletion_auc': 'Deletion AUC',
  'topk': 'Top-k kept', 'accuracy': 'Accuracy', 'cosine': 'Cosine',
}  # fmt: skip
_GAINS = {'topk': 'Gain in top-k kept', 'speed': 'Gain in log speed',
          'log2_eps50': 'Gain (log₂ radius, or share of top-k)'}  # fmt: skip
_KINDS = {
  'supported': 'yes', 'reversed': 'no', 'no effect of interest': 'no',
  'undecided': 'open', 'not enough runs': 'open',
}  # fmt: skip
_CHANGES = {
  'topk': 'top-k kept', 'log2_eps50': 'log₂ ε50',
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


def _answer(judged: claims.Verdict) -> Answer:
  claim, cells = judged.claim, judged.cells
  fields = list(dict.fromkeys(f for c in cells for f in c.fields))
  values = {f: {c.fields.get(f) for c in cells} for f in fields}
  told = [f for f in fields if len(values[f]) > 1]
  beside = list(dict.fromkeys(n for c in cells for n in c.beside))
  gain = _GAINS.get(claim.quantity, f'Gain in {tables.plain(claim.quantity)}')
  head = [
    *map(_field, told), 'Weakest link' if claim.test == 'chain' else gain,
    'Verdict', 'Seeds', 'Endpoint', 'Runs lost', 'Note',
    *(_BESIDE.get(n, tables.plain(n)) for n in beside),
  ]  # fmt: skip
  rows = [
    (
      [
        *((_value(f, cell.fields.get(f)),) for f in told),
        estimate(cell.estimate),
        (cell.verdict,),
        (str(cell.seeds),),
        ('primary' if cell.primary else 'secondary',),
        (f'{cell.lost[0]}, {cell.lost[1]}',),
        (cell.reason or '–',),
        *(
          estimate(cell.beside[n]) if n in cell.beside else ('–',)
          for n in beside
        ),
      ],
      cell.verdict in (claims.UNDECIDED, claims.TOO_FEW),
    )
    for cell in cells
  ]
  same = {f: _value(f, *values[f]) for f in fields if f not in told}
  reason = _said(judged.reason)
  return Answer(
    name=claim.name,
    hypothesis=claim.hypothesis,
    verdict=_said(judged.verdict),
    kind=_KINDS.get(judged.verdict, 'depends'),
    reason=reason[:1].upper() + reason[1:],
    decision=claim.decision,
    same='; '.join(
      f'{_field(f)}: {value}' for f, value in same.items() if value != '–'
    ),
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


def estimate(of: claims.Estimate) -> tuple[str, ...]:
  """('+0.031', '[0.010, 0.052]'); one line where the interval is endless."""
  if not math.isfinite(of.value):
    return ('–',)
  mean, *interval = tables.estimate({'mean': of.value, **of._asdict()})
  sign = '+' if of.value > 0 else ''
  return (sign + mean, *(interval or ['no interval']))


def _field(name: str) -> str:
  return _FIELDS.get(name, tables.plain(name).capitalize())


def _value(field: str, value: Any) -> str:
  if field == 'factor':
    return _factor(value)
  if field == 'rule':
    return tables.rule(str(value))
  if value is None or value == '' or value != value:
    return '–'
  return tables.plain(str(value))


def _factor(name: Any) -> str:
  return FACTORS.get(name, str(name))


def shown(verdict: claims.Verdict) -> tuple[claims.Claim, list[claims.Cell]]:
  """(the claim, its cells) in one measure: the primary one where it is there.

  Where it is not, the claim is that of the first secondary measure.
  """
  claim = verdict.claim
  for quantity, size in {
    claim.quantity: claim.smallest, **claim.secondary
  }.items():  # fmt: skip
    cells = [
      c for c in verdict.cells
      if c.fields.get('measure', claim.quantity) == quantity
    ]  # fmt: skip
    if cells:
      return dataclasses.replace(claim, quantity=quantity, smallest=size), cells
  return claim, []


def draw(verdict: claims.Verdict, folder: pathlib.Path) -> Exhibit:
  """Every cell of a claim about a gain as a point with its interval."""
  claim, cells = shown(verdict)
  factors = by(
    [c for c in cells if math.isfinite(c.estimate.value)],
    lambda cell: cell.fields.get('factor'),
  )
  images = tuple(
    _forest(folder, claim, str(factor), cells)
    for factor, cells in factors.items()
  )
  size = claim.smallest
  towards = ' and '.join(map(_factor, factors)) or 'an end of the sweep'
  return Exhibit(
    f'What changes towards {towards}',
    f'The change of {_CHANGES.get(claim.quantity, claim.quantity)} from one '
    'end '
    'of the sweep to the other; to the right of 0 the map became more robust. '
    'A point is a mean over seeds, batches (or rates) and images, with its '
    f'95 % interval over seeds and images. Grey: changes under {size:g}, which '
    'were said beforehand to be of no interest. Hollow: fewer than '
    f'{claims.SEEDS} seeds.',
    images,
    'no two arms to compare',
  )


def _forest(
  folder: pathlib.Path, claim: claims.Claim, factor: str,
  cells: Sequence[claims.Cell],
) -> Image:  # fmt: skip
  rules = list(dict.fromkeys(cell.fields.get('rule') for cell in cells))
  colours = dict(zip(rules, itertools.cycle(_COLOURS), strict=False))
  fields = [
    f
    for f in cells[0].fields
    if f not in ('factor', 'rule') and len({c.fields.get(f) for c in cells}) > 1
  ]
  label = lambda c: ', '.join(_value(f, c.fields[f]) for f in fields) or 'all'
  lines = by(sorted(cells, key=label), label)
  axes = canvas.panel(
    '',
    f'change of {_CHANGES.get(claim.quantity, claim.quantity)}',
    '',
    height=1.3 + 0.2 * len(lines),
  )
  axes.axvspan(-claim.smallest, claim.smallest, color='#EEEEEE', lw=0, zorder=0)
  axes.axvline(0, color=canvas.INK, lw=0.7, zorder=1)
  ends = [3 * claim.smallest]
  for height, mine in enumerate(lines.values()):
    for cell in mine:
      rule, few = cell.fields.get('rule'), cell.verdict == claims.TOO_FEW
      at = height + 0.22 * (rules.index(rule) - (len(rules) - 1) / 2)
      value, low, high = cell.estimate[:3]
      if np.isfinite(low + high) and not few:
        axes.hlines(at, low, high, colors=colours[rule], lw=1)
        ends += [abs(low), abs(high)]
      face = 'white' if few else colours[rule]
      axes.plot(value, at, 'o', ms=3, color=colours[rule], mfc=face)
      ends.append(abs(value))
  # A line too long to be told anything by does not set the scale.
  reach = 1.05 * min(max(ends), 4 * np.percentile(ends, 75))
  axes.set_xlim(-reach, reach)
  canvas.rows(axes, list(lines))
  axes.tick_params(axis='y', labelsize=7)
  for rule, colour in colours.items():
    name = tables.rule(str(rule))
    axes.plot([], [], 'o-', ms=3, lw=1, color=colour, label=name)
  axes.figure.legend(
    loc='outside upper left', title=f'Towards {_factor(factor)}',
    alignment='left', title_fontsize=9, borderpad=0,
  )  # fmt: skip
  return canvas.save(
    axes.figure, folder, f'effect_{claim.name}_{factor}',
    f'{claim.name}: change towards {_factor(factor)}',
  )  # fmt: skip
