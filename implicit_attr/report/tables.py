"""Tables of a run: robustness of each map, and the rules of comparison.

A robustness number never stands alone: its interval, n, n kept, the same
number under random signs, clean accuracy and faithfulness are beside it.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from implicit_attr.runs.reading import Evaluation, finite

BASELINE = 'random_sign'
"""The attack that is none: signs drawn at random, at the same size."""

RULES = {
  'last': 'fixed duration',
  'train_loss': 'equal training loss',
  'test_accuracy': 'equal test accuracy',
}
"""checkpoint -> the rule under which runs are compared at it."""

METRICS = {
  'log2_eps50': 'ε50 [1/255]',
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
  'mask_mass': 'Mass in mask ↑',
  'entropy': 'Entropy of map',
}
_RADIUS = {
  'log2_eps50': 'ε50 [1/255]',
  'censored': 'ε50 censored',
  'area': 'Area to noise',
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
  return f'{value:.{digits}f}'.replace('-', '−') if finite(value) else '–'


def short(value: Any, digits: int = 3) -> str:
  """Significant digits, for quantities whose size is not known before."""
  if not finite(value):
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
  value: dict[str, Any] | None, write: Callable[[Any], str] = number
) -> tuple[str, ...]:
  """('0.512', '[0.480, 0.544]') of a mean with its interval, if it has one."""
  mean, low, high = ((value or {}).get(end) for end in ('mean', 'low', 'high'))
  if not (finite(low) and finite(high)):
    return (write(mean),)
  return (write(mean), f'[{write(low)}, {write(high)}]')


def percent(value: Any) -> str:
  """A share as '98.1 %'."""
  return f'{100 * value:.1f} %' if finite(value) else '–'


def names(rows: list[dict[str, Any]], part: str, known: dict) -> list[str]:
  """The estimates that rows have in a part, those of `known` first."""
  there = dict.fromkeys(name for row in rows for name in row[part])
  return [n for n in known if n in there] + [n for n in there if n not in known]


def similarity(row: dict[str, Any], metric: str) -> tuple[str, ...]:
  """`estimate` of a similarity; 'undefined' where no image has one."""
  value = row['metrics'].get(metric)
  none = value and value.get('n') == 0 and row.get('n')
  return ('undefined',) if none else estimate(value)


def certificate(row: dict[str, Any]) -> list[tuple[str, ...]]:
  """The cells of `_CERTIFIED`; a reason where nothing is proved of the map."""
  values = row.get('certificate') or {}
  radius, *shares = (values.get(name) for name in _CERTIFIED)
  first = estimate(radius, short)
  if 'absent' in values:
    first = 'n/a', values['absent']
  return [first, *map(estimate, shares)]


def radius(log2: Any) -> float:
  """A radius in units of 1/255, from its binary logarithm; NaN for nonsense."""
  fits = finite(log2) and abs(log2) < 100
  return 255 * 2.0**log2 if fits else float('nan')


def radii(row: dict[str, Any]) -> list[tuple[str, ...]]:
  """The cells of `_RADIUS`."""
  half = row['metrics'].get('log2_eps50', {})
  ends = row.get('censored', {})
  shares = [f'{percent(v)} {end}' for end, v in ends.items() if v]
  return [
    estimate(half, lambda value: short(radius(value))),
    (', '.join(shares) if shares else 'none' if ends else '–',),
    estimate(None if row['attack'] == BASELINE else row.get('area')),
  ]


def top_set(k: Any) -> str:
  """'1 pixel', '10 %', 'all pixels': an integer counts, a fraction shares."""
  if isinstance(k, int):
    return f'{k} pixel{"s" if k > 1 else ""}'
  fits = isinstance(k, float) and k < 1
  return f'{100 * k:g} %' if fits else 'all pixels' if k == 1 else ''


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Rows by map, as maps came, the baseline after the attacks."""
  maps = list(dict.fromkeys(row['attribution'] for row in rows))
  place = lambda r: (maps.index(r['attribution']), r['attack'] == BASELINE)
  return sorted(rows, key=place)


def robustness(evaluation: Evaluation) -> Table:
  """One row per map and perturbation, baselines after their attack."""
  rows = ordered(evaluation.rows)
  titles = METRICS | _FAITHFUL
  if size := top_set(evaluation.settings.get('k')):
    titles['topk'] += f' ({size})'
  metrics = names(rows, 'metrics', METRICS)
  swept = 'log2_eps50' in metrics
  metrics = [name for name in metrics if name != 'log2_eps50']
  beside = names(rows, 'faithfulness', _FAITHFUL)
  counts = {'n': 'n', 'kept': 'n_kept'} | {
    name: f'n_{name}'
    for name in ('stalled', 'undefined', 'nan')
    if any(row.get(f'n_{name}') for row in rows)
  }
  proved = any('certificate' in row for row in rows)
  title = lambda name: titles.get(name, plain(name))
  head = ['Map', 'Perturbation', *(_RADIUS.values() if swept else ())]
  head += [*map(title, metrics), *counts]
  head += [*(_CERTIFIED.values() if proved else ()), *map(title, beside)]
  body, before = [], None
  for row in rows:
    name = row['attribution']
    cells = [
      (plain(name) if name != before else '',),
      (attack_name(row['attack']),),
      *(radii(row) if swept else ()),
      *(similarity(row, metric) for metric in metrics),
      *((str(row.get(count, '–')),) for count in counts.values()),
      *(certificate(row) if proved else ()),
      *(estimate(row['faithfulness'].get(extra)) for extra in beside),
    ]
    body.append((cells, row['attack'] == BASELINE))
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


def rules(evaluations: dict[str, Evaluation]) -> Table:
  """One row per rule of comparison: where it stopped, and what held there."""
  attacked: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
  for name, evaluation in evaluations.items():
    for row in ordered(evaluation.rows):
      if row['attack'] != BASELINE:
        column = attacked.setdefault((row['attribution'], row['attack']), {})
        column[name] = similarity(row, 'topk')
  several = len({attack for _, attack in attacked}) > 1
  head = ['Compared at', 'Updates', 'Test accuracy', 'Test loss']
  head += [
    plain(method) + (f', {attack_name(attack)}' if several else '')
    for method, attack in attacked
  ]
  body = []
  for name in dict.fromkeys([*RULES, *evaluations]):
    evaluation = evaluations.get(name)
    clean = evaluation.clean if evaluation else {}
    cells = [
      (rule(name),),
      (str(evaluation.step) if evaluation else 'not evaluated',),
      (percent(clean.get('accuracy')),),
      (short(clean.get('loss')),),
      *(column.get(name, ('–',)) for column in attacked.values()),
    ]
    body.append((cells, evaluation is None))
  return Table(head, body)


def by(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
  """Items by what `key` says of them, in order of appearance."""
  groups: dict[Any, list[Any]] = {}
  for item in items:
    groups.setdefault(key(item), []).append(item)
  return groups
