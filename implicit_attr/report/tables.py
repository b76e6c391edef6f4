"""Tables of a report: which numbers stand in them and how they are written.

A robustness number never stands alone: its interval, n, n kept, the same
number under random signs, clean accuracy and faithfulness are beside it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from implicit_attr.report.read import Evaluation

BASELINE = 'random_sign'
"""The attack that is none: signs drawn at random, at the same size."""

RULES = {
  'last': 'fixed duration',
  'train_loss': 'equal training loss',
  'test_accuracy': 'equal test accuracy',
}
"""checkpoint -> the rule under which runs are compared at it."""

METRICS = {
  'topk': 'Top-k kept',
  'kendall': 'Kendall τ',
  'spearman': 'Spearman ρ',
  'cosine': 'Cosine',
  'pearson': 'Centred cosine',
  'ssim': 'SSIM',
  'lens_recall': 'LENS recall',
}
_FAITHFUL = {
  'deletion_auc': 'Deletion AUC ↓',
  'insertion_auc': 'Insertion AUC ↑',
  'mask_mass': 'Mass in mask ↑',
  'entropy': 'Entropy of map',
}
_CERTIFIED = {
  'radius': 'Certified radius',
  'certified': 'Certified at ε',
  'unbroken': 'Top-k set unbroken',
}
"""The true share of unbroken sets is between the last two."""


@dataclasses.dataclass(frozen=True)
class Table:
  """Texts as they stand on the page; a row is (cells, is it a baseline).

  A cell is its lines: a number, and its interval where it has one.
  """

  head: list[str]
  rows: list[tuple[list[tuple[str, ...]], bool]]

  @property
  def arrows(self) -> bool:
    """Does a head say with an arrow which way is better?"""
    return any(name[-1] in '↑↓' for name in self.head)


def plain(name: str) -> str:
  """'integrated_gradients' -> 'integrated gradients'."""
  return name.replace('_', ' ').replace(' x ', ' × ')


def rule(checkpoint: str) -> str:
  """How the page calls a checkpoint: by what runs have in common at it."""
  return RULES.get(checkpoint, plain(checkpoint))


def attack_name(name: str) -> str:
  """How the page calls an attack: 'top-k attack', 'random signs'."""
  known = {BASELINE: 'random signs', 'topk': 'top-k attack'}
  return known.get(name, f'{plain(name)} attack')


def number(value: Any, digits: int = 3) -> str:
  """Fixed digits; – for what is missing or not finite."""
  fits = isinstance(value, int | float) and math.isfinite(value)
  return f'{value:.{digits}f}'.replace('-', '−') if fits else '–'


def short(value: Any, digits: int = 3) -> str:
  """Significant digits, for quantities whose size is not known before."""
  fits = isinstance(value, int | float) and math.isfinite(value)
  if not fits:
    return '–'
  if value and not 1e-3 <= abs(value) < 1e5:
    text = f'{value:.{digits - 1}e}'
  else:
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    text = (
      f'{value:.{max(digits - whole, 0)}f}' if whole else f'{value:.{digits}g}'
    )
  return text.replace('-', '−')


def estimate(
  value: Any, write: Callable[[Any], str] = number
) -> tuple[str, ...]:
  """('0.512', '[0.480, 0.544]') of a mean with its interval."""
  if not isinstance(value, dict):
    return (write(value),)
  mean = write(value.get('mean'))
  if value.get('low') is None or value.get('high') is None:
    return (mean,)
  return (mean, f'[{write(value["low"])}, {write(value["high"])}]')


def percent(value: Any) -> str:
  """A share as '98.1 %'."""
  fits = isinstance(value, int | float) and math.isfinite(value)
  return f'{100 * value:.1f} %' if fits else '–'


def estimates(values: Any, prefix: str = '') -> dict[str, Any]:
  """Flattens nested dicts down to those that hold a 'mean', or numbers."""
  if not isinstance(values, dict) or 'mean' in values:
    return {prefix: values} if values is not None else {}
  flat: dict[str, Any] = {}
  for key, value in values.items():
    flat |= estimates(value, f'{prefix} {key}'.strip())
  return flat


def beside(row: dict[str, Any]) -> dict[str, Any]:
  """Faithfulness and mask numbers of a row, by name."""
  return estimates(row.get('faithfulness') or {}) | estimates(
    row.get('mask_mass'), 'mask_mass'
  )


def measured(rows: list[dict[str, Any]]) -> list[str]:
  """The similarities that rows have: those the page knows first."""
  names = dict.fromkeys(
    name for row in rows for name in row.get('metrics') or {}
  )
  known = [name for name in METRICS if name in names]
  return known + [name for name in names if name not in METRICS]


def similarity(row: dict[str, Any], metric: str) -> tuple[str, ...]:
  """`estimate` of a similarity; 'undefined' where no image has one."""
  value = (row.get('metrics') or {}).get(metric)
  none = isinstance(value, dict) and value.get('n') == 0 and row.get('n')
  return ('undefined',) if none else estimate(value)


def certificate(row: dict[str, Any]) -> list[tuple[str, ...]]:
  """The cells of `_CERTIFIED`; a reason where nothing is proved of the map."""
  values = row.get('certificate') or {}
  radius, *shares = (values.get(name) for name in _CERTIFIED)
  first = estimate(radius, short)
  if 'absent' in values:
    first = 'n/a', values['absent']
  return [first, *map(estimate, shares)]


def top_set(k: Any) -> str:
  """'1 pixel', '10 %', 'all pixels': an integer counts, a fraction shares."""
  if isinstance(k, int):
    return f'{k} pixel{"s" if k > 1 else ""}'
  fits = isinstance(k, float) and k < 1
  return f'{100 * k:g} %' if fits else 'all pixels' if k == 1 else ''


def sizes(evaluation: Evaluation) -> list[Any]:
  """The radii of the rows, in order of appearance."""
  return list(dict.fromkeys(row.get('eps') for row in evaluation.rows))


def robustness(evaluation: Evaluation) -> Table:
  """One row per map, perturbation and radius, baselines after their attack."""
  rows = ordered(evaluation.rows)
  metrics = measured(rows)
  extras = list(dict.fromkeys(name for row in rows for name in beside(row)))
  several = len(sizes(evaluation)) > 1
  counts = [n for n in ('stalled', 'undefined')
            if any(row.get(f'n_{n}') for row in rows)]  # fmt: skip
  proved = any('certificate' in row for row in rows)
  names = dict(METRICS)
  if size := top_set(evaluation.settings.get('k')):
    names['topk'] += f' ({size})'
  head = ['Map', 'Perturbation', *(['ε'] if several else [])]
  head += [names.get(name, plain(name)) for name in metrics]
  head += ['n', 'kept', *counts, *(_CERTIFIED.values() if proved else ())]
  head += [_FAITHFUL.get(name, plain(name)) for name in extras]
  body, before = [], None
  for row in rows:
    name, other = row.get('attribution', '–'), beside(row)
    cells = [
      (plain(name) if name != before else '',),
      (attack_name(row.get('attack', '–')),),
      *([(short(row.get('eps')),)] if several else []),
      *(similarity(row, metric) for metric in metrics),
      (str(row.get('n', '–')),),
      (str(row.get('n_kept', '–')),),
      *((str(row.get(f'n_{count}', '–')),) for count in counts),
      *(certificate(row) if proved else ()),
      *(estimate(other.get(extra)) for extra in extras),
    ]
    body.append((cells, row.get('attack') == BASELINE))
    before = name
  return Table(head, body)


def as_text(evaluation: Evaluation) -> str:
  """The table of `robustness` in columns, for a terminal."""
  table = robustness(evaluation)
  lines = [table.head, *([' '.join(c) for c in row] for row, _ in table.rows)]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(map(str.ljust, line, widths)).rstrip() for line in lines
  )


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Rows by map (as they came), then radius, the baseline after attacks."""
  maps = list(dict.fromkeys(row.get('attribution') for row in rows))
  return sorted(
    rows,
    key=lambda row: (
      maps.index(row.get('attribution')),
      row.get('eps') or 0,
      row.get('attack') == BASELINE,
    ),
  )


def rules(evaluations: dict[str, Evaluation]) -> Table:
  """One row per rule of comparison: where it stopped, and what held there."""
  attacked: dict[tuple[str, str, Any], dict[str, tuple[str, ...]]] = {}
  for name, evaluation in evaluations.items():
    for row in ordered(evaluation.rows):
      if row.get('attack') != BASELINE:
        key = (row.get('attribution'), row.get('attack'), row.get('eps'))
        attacked.setdefault(key, {})[name] = similarity(row, 'topk')
  several = len({key[1:] for key in attacked}) > 1
  head = ['Compared at', 'Updates', 'Test accuracy', 'Test loss']
  for method, attack, eps in attacked:
    tail = f', {attack_name(attack)}, ε = {short(eps)}' if several else ''
    head.append(f'{plain(method)}{tail}')
  body = []
  for name in dict.fromkeys([*RULES, *evaluations]):
    evaluation = evaluations.get(name)
    clean = evaluation.clean if evaluation else {}
    cells = [
      (rule(name),),
      (str(evaluation.step) if evaluation else 'not evaluated',),
      (percent(clean.get('accuracy')),),
      (short(clean.get('loss')),),
      *(cells.get(name, ('–',)) for cells in attacked.values()),
    ]
    body.append((cells, evaluation is None))
  return Table(head, body)
