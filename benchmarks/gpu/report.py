"""Tables of what was measured, and how it stands against the goals."""

import statistics
from collections.abc import Iterator

COLUMNS = ('float32', 'TF32', 'bfloat16')


def table(part: str, result: dict) -> str:
  """The rows of a part as text; times of all precisions beside each other.

  Error, memory, work and floors are of the first precision: operations at
  60 TFLOP/s, then bytes at 3.0 TB/s.
  """
  said = ', '.join(f'{k} {v}' for k, v in result['machine'].items())
  lines = [
    f'\n{part}: {result["ended"]}, {result["seconds"]:.0f} s ({said})',
    f'{"ms (spread), × ours":40}'
    + ''.join(f'{name:>22}' for name in COLUMNS)
    + f'{"error":>8}{"peak MB":>9}{"XLA MB":>9}{"GFLOP":>10}{"GB":>10}'
    + f'{"floors, ms":>22}',
  ]
  together: dict[tuple, dict] = {}
  for row in result['rows']:
    if 'numbers' in row:
      said = (f'{k} {v:.3g}' for k, v in row['numbers'].items())
      lines.append(f'{row["group"]:12}' + '  '.join(said))
      continue
    key = row['group'], row['name']
    together.setdefault(key, {})[row['precision']] = row
  for (group, name), columns in together.items():
    ours = together.get((group, 'ours'), {})
    cells = [_time(columns.get(c), ours.get(c), name) for c in COLUMNS]
    lines.append(
      f'{group + ": " + name:40}'
      + ''.join(f'{cell:>22}' for cell in cells)
      + _rest(next(iter(columns.values())))
    )
    lines += [
      f'    {c}: {row["failed"]}'
      for c, row in columns.items()
      if 'failed' in row
    ]
  return '\n'.join(lines)


def median(row: dict | None) -> float | None:
  """Milliseconds of a row, if it counts."""
  return statistics.median(row['ms']) if row and 'ms' in row else None


def _time(row: dict | None, ours: dict | None, name: str) -> str:
  if row is None:
    return ''
  if 'ms' not in row:
    return 'failed' if 'failed' in row else 'wrong'
  middle = median(row)
  spread = (max(row['ms']) - min(row['ms'])) / middle
  ratio = ''
  if not name.startswith('ours') and median(ours):
    ratio = f' ×{middle / median(ours):.2f}'
  once = '' if len(row['ms']) > 1 else ' once'
  return f'{middle:.4g} ({spread:.0%}{once}){ratio}'


def _rest(row: dict) -> str:
  number = lambda key, unit: f'{row[key] / unit:.3g}' if key in row else '-'
  peak = number('peak', 1e6)
  if 'peak_at_most' in row:
    peak = '≤' + number('peak_at_most', 1e6)
  floors = '-'
  if 'floor_flops_ms' in row:
    floors = f'{row["floor_flops_ms"]:.3g}, {row["floor_bytes_ms"]:.3g}'
  error = f'{row["error"]:.0e}' if 'error' in row else '-'
  return (
    f'{error:>8}{peak:>9}{number("peak_xla", 1e6):>9}'
    f'{number("flops", 1e9):>10}{number("bytes", 1e9):>10}{floors:>22}'
  )


def goals(parts: dict[str, dict]) -> list[dict]:
  """'goal', 'at' (network and precision), 'seen' and 'reached', of each."""
  rows = {
    (part, row['group'], row['precision'], row['name']): row
    for part, result in parts.items()
    for row in result['rows']
  }
  found = []

  def add(goal, at, seen, reached):
    found.append({'goal': goal, 'at': at, 'seen': seen, 'reached': reached})

  for goal, part, what, least in (
    ("step: PyTorch's best / ours", 'step', '', 1.2),
    ('λ_max: best other / ours', 'curvature', ', lambda_max', 2.0),
    ('trace: best other / ours', 'curvature', ', trace', 1.5),
    ('input λ: best other / ours', 'curvature', ', input', 2.0),
    ('product: torch.func / ours', 'curvature', ', product', 1.3),
    ('attack: double backward / ours', 'attacks', 'gradient, ', 1.8),
  ):
    for at, precision, ours, others in _races(rows, part, what):
      if goal.startswith('product'):
        others = {k: v for k, v in others.items() if k == 'torch.func'}
      if goal.startswith('attack'):
        others = {k: v for k, v in others.items() if k == 'loop'}
      if others:
        seen = min(others.values()) / ours
        add(f'{goal} ≥ {least}', f'{at}, {precision}', seen, seen >= least)
  for at, precision, ours, _ in _races(rows, 'curvature', ', product'):
    one = median(rows.get(('curvature', f'{at}, gradient', precision, 'ours')))
    if one:
      seen = ours / one
      add('product ≤ 2.2 gradients', f'{at}, {precision}', seen, seen <= 2.2)
  peak = lambda kernel: rows.get(
    ('attention', f'{kernel}, 16384, backward', 'float32', 'ours'), {}
  ).get('peak_xla')
  if peak('softmax') and peak('linear'):
    seen = peak('softmax') / peak('linear')
    add('memory: softmax / linear ≥ 50', '16384, backward', seen, seen >= 50)
  return found


def _races(
  rows: dict, part: str, what: str
) -> Iterator[tuple[str, str, float, dict[str, float]]]:
  """(network, precision, ms of ours, ms of the others) of groups with `what`.

  What is compiled by PyTorch is a group of its own, in turn with ours again.
  """
  races: dict[tuple, dict] = {}
  for (p, group, precision, name), row in rows.items():
    if p == part and what in group and median(row):
      network = group.replace(what, '') if what else group.split(',')[0]
      times = races.setdefault((network, precision), {})
      times[name] = min(median(row), times.get(name, float('inf')))
  for (network, precision), times in races.items():
    own = [v for k, v in times.items() if k.startswith('ours')]
    others = {k: v for k, v in times.items() if not k.startswith('ours')}
    if own:
      yield network, precision, min(own), others


def goals_table(goals: list[dict], small: bool) -> str:
  where = 'tiny sizes, so this only shows that it runs' if small else 'one H100'
  lines = [f'\ngoals ({where})']
  for row in goals:
    word = 'reached' if row['reached'] else 'missed'
    lines.append(f'{row["goal"]:40}{row["at"]:28}{row["seen"]:8.2f}  {word}')
  return '\n'.join(lines)
