"""The table of all checks: which hold, how tightly, where they come from."""

import json
import pathlib
from collections.abc import Iterable

import jax

from implicit_attr import errors
from implicit_attr.theory import (
  first_layer,
  invariance,
  kernels,
  maps,
  softmax,
  stability,
  transfer,
  weight_sharing,
)
from implicit_attr.theory.check import Check, CheckResult, named

CHECKS: dict[str, Check] = named(
  *(
    check
    for part in (
      first_layer, weight_sharing, transfer, stability, maps, softmax,
      invariance, kernels,
    )
    for check in part.CHECKS.values()
  )
)  # fmt: skip

Row = tuple[Check, CheckResult]


def run(workdir: pathlib.Path | None) -> str:
  """Runs all checks on random networks; the table, one line a check.

  Args:
    workdir: where theory.json is written, every field of every check beside
      its result; None writes nothing.

  Raises:
    InputError: the folder cannot be written.
  """
  key = jax.random.key(0)
  rows = [(check, check.run(key)) for check in CHECKS.values()]
  if workdir is not None:
    write(workdir / 'theory.json', rows)
  return text(rows)


def text(rows: Iterable[Row]) -> str:
  """The table: verdict, both sides at the worst draw, slack, statement."""
  rows = list(rows)
  lines = [
    f'{"check":30} {"":4} {"worst lhs":>11} {"":2} {"worst rhs":>11} '
    f'{"slack":>9} {"median":>9}  statement'
  ]
  for check, r in rows:
    lines.append(
      f'{check.name:30} {"ok" if r.holds else "FAIL":4} {r.lhs:11.4g} '
      f'{check.relation:2} {r.rhs:11.4g} {r.slack:9.1e} {r.typical:9.1e}  '
      f'{check.statement} [{check.source}]'
    )
  held = sum(r.holds for _, r in rows)
  lines.append(
    f'{held} of {len(rows)} hold. slack: relative, at the worst of the draws; '
    "for '==' minus the error; median: over draws."
  )
  return '\n'.join(lines)


def write(path: pathlib.Path, rows: Iterable[Row]) -> None:
  """Writes a list of objects: name, statement, source, assumptions, relation,
  tol, lhs, rhs, slack, holds, typical, draws.

  Raises:
    InputError: the folder cannot be written.
  """
  fields = ('name', 'statement', 'source', 'assumptions', 'relation', 'tol')
  values = [
    {f: getattr(check, f) for f in fields} | result._asdict()
    for check, result in rows
  ]
  for value in values:
    # JSON knows no infinity; -inf is the slack of a side that is not finite.
    value.update({
      key: None for key, v in value.items()
      if isinstance(v, float) and not abs(v) < float('inf')
    })  # fmt: skip
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + '\n')
  except OSError as e:
    raise errors.InputError(
      f'--workdir={str(path.parent)!r} must be a folder that can be written '
      f'({e.strerror})'
    ) from e
