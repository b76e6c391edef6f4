"""Summaries of all runs under a folder: summary.json and summary.csv.

Runs that have not changed since the last table are not read again.
"""

import csv
import io
import json
import pathlib
from typing import Any

from implicit_attr.runs import reading, records

Row = dict[str, Any]
"""'run' (path under the root), 'status', 'step', 'message', 'config' {a.b:
value}, 'metrics' {name: last finite value}, 'evaluation' {name: mean},
'problems' {file: what could not be read}, and 'stamp', by which a change is
seen."""


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
  known = _before(root)
  rows = []
  for workdir in reading.folders(root):
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


def _before(root: pathlib.Path) -> dict[str, Row]:
  """The rows that are known already, by run; none if the file is damaged."""
  try:
    rows = json.loads((root / 'summary.json').read_text())
    return {row['run']: row for row in rows if _whole(row)}
  except (OSError, ValueError, TypeError, KeyError):
    return {}


def _whole(row: Row) -> bool:
  """Has it everything, so that it need not be read again?"""
  parts = ('config', 'metrics', 'evaluation', 'problems')
  return all(isinstance(row[part], dict) for part in parts) and all(
    name in row for name in ('status', 'step', 'message', 'stamp')
  )


def _files(workdir: pathlib.Path) -> list[pathlib.Path]:
  names = ('config.json', 'status.json', 'metrics.jsonl')
  evaluation = sorted((workdir / 'evaluation').glob('*.json'))
  return [*(workdir / name for name in names), *evaluation]


def _stamp(workdir: pathlib.Path) -> list[list[Any]]:
  return [
    [path.name, path.stat().st_size, path.stat().st_mtime_ns]
    for path in _files(workdir)
    if path.exists()
  ]


def _read(workdir: pathlib.Path) -> Row:
  run = reading.load(workdir, arrays=lambda name: False)
  evaluation = {}
  for name, at in run.evaluations.items():
    if 'accuracy' in at.clean:
      evaluation[f'{name}/accuracy'] = at.clean['accuracy']
    for row in at.rows:
      prefix = f'{name}/{row["attribution"]}/{row["attack"]}'
      for metric, estimate in row['metrics'].items():
        if reading.finite(estimate['mean']):
          evaluation[f'{prefix}/{metric}'] = estimate['mean']
  last = run.lines[-1]['step'] if run.lines else None
  return {
    'status': run.status.get('status', 'unfinished'),
    'step': run.status.get('step', last),
    'message': run.status.get('message', ''),
    'config': dict(records.leaves(run.config)),
    'metrics': run.ends,
    'evaluation': evaluation,
    'problems': run.damages,
  }


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
  text = io.StringIO(newline='')
  csv.writer(text).writerows(lines)
  records.write_file(path, lambda file: file.write(text.getvalue().encode()))


def _names(rows: list[Row], part: str) -> list[str]:
  return list(dict.fromkeys(name for row in rows for name in row[part]))
