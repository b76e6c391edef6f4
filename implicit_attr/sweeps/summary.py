"""What came out of every run under one folder, in one table?

Runs that have not changed since the last table are not read again.
"""

import csv
import json
import math
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

from implicit_attr import errors
from implicit_attr.runs import records
from implicit_attr.runs.metrics import read_metrics

Row = dict[str, Any]
"""'run' (path under the root), 'status', 'step', 'message', 'config' {a.b:
value}, 'metrics' {name: last finite value}, 'evaluation' {name: mean}, and
'stamp', by which a change is seen."""


def write_summary(root: pathlib.Path) -> list[Row]:
  """Writes summary.json and summary.csv of all runs under `root`.

  summary.json holds the rows whole. summary.csv has the columns run, status,
  step, every config value in which runs differ, then metrics and evaluation;
  a cell is empty where a run has no such number.

  Returns:
    The rows, by path.

  Raises:
    InputError: `root` cannot be written.
  """
  known = {row['run']: row for row in _before(root)}
  rows = []
  for workdir in _runs(root):
    name = workdir.relative_to(root).as_posix()
    stamp = _stamp(workdir)
    row = known.get(name)
    if row is None or row['stamp'] != stamp:
      row = {'run': name, **_read(workdir), 'stamp': stamp}
    rows.append(row)
  rows.sort(key=lambda row: row['run'])
  records.write_json(root / 'summary.json', rows)
  _write_csv(root / 'summary.csv', rows)
  return rows


def _before(root: pathlib.Path) -> list[Row]:
  try:
    return json.loads((root / 'summary.json').read_text())
  except (OSError, ValueError):
    return []


def _runs(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Folders with a config.json; what is inside a run is not looked through."""
  for folder, inside, files in os.walk(root):
    if 'config.json' in files:
      inside.clear()
      yield pathlib.Path(folder)


def _files(workdir: pathlib.Path) -> list[pathlib.Path]:
  names = ('config.json', 'status.json', 'metrics.jsonl')
  evaluation = sorted((workdir / 'evaluation').glob('*.json'))
  return [*(workdir / name for name in names), *evaluation]


def _stamp(workdir: pathlib.Path) -> list[list[Any]]:
  found = []
  for path in _files(workdir):
    if path.exists():
      seen = path.stat()
      found.append([path.name, seen.st_size, seen.st_mtime_ns])
  return found


def _read(workdir: pathlib.Path) -> Row:
  status = records.read_status(workdir)
  try:
    config = dict(_leaves(records.read_config(workdir)['config']))
  except (errors.InputError, KeyError, TypeError):
    config = {}
  metrics: dict[str, float] = {}
  for line in read_metrics(workdir):
    metrics |= {
      name: value
      for name, value in line.items()
      if isinstance(value, int | float) and math.isfinite(value)
    }
  last = metrics.pop('step', None)
  return {
    'status': status.get('status', 'unfinished'),
    'step': status.get('step', last),
    'message': status.get('message', ''),
    'config': config,
    'metrics': metrics,
    'evaluation': _evaluation(workdir),
  }


def _leaves(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from _leaves(inner, f'{path}.{name}' if path else name)
  else:
    yield path, value


def _evaluation(workdir: pathlib.Path) -> dict[str, float]:
  """'last/accuracy', 'last/gradient/topk/kendall', … -> mean."""
  found = {}
  for path in sorted((workdir / 'evaluation').glob('*.json')):
    try:
      value = json.loads(path.read_text())
      found[f'{path.stem}/accuracy'] = value['clean']['accuracy']
      for row in value['rows']:
        prefix = f'{path.stem}/{row["attribution"]}/{row["attack"]}'
        for metric, interval in row['metrics'].items():
          found[f'{prefix}/{metric}'] = interval['mean']
    except (OSError, ValueError, KeyError, TypeError):
      continue  # cut short by a kill; the run will write it again
  return found


def _write_csv(path: pathlib.Path, rows: list[Row]) -> None:
  settings = [
    name
    for name in _names(rows, 'config')
    if len({json.dumps(row['config'].get(name)) for row in rows}) > 1
  ]
  metrics, evaluation = _names(rows, 'metrics'), _names(rows, 'evaluation')
  lines = [['run', 'status', 'step', *settings, *metrics, *evaluation]]
  for row in rows:
    lines.append(
      [
        *(row[name] for name in ('run', 'status', 'step')),
        *(row['config'].get(name) for name in settings),
        *(row['metrics'].get(name) for name in metrics),
        *(row['evaluation'].get(name) for name in evaluation),
      ]
    )
  draft = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
  with draft.open('w', newline='') as file:
    csv.writer(file).writerows(lines)
  os.replace(draft, path)


def _names(rows: list[Row], part: str) -> list[str]:
  return list(dict.fromkeys(name for row in rows for name in row[part]))
