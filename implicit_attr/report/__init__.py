"""What happened in a run, or in a sweep, for someone who was not there?

`write(workdir)` reads the files of a run directory, or of a folder of them,
and nothing else, and leaves `figures/*.png` and one self-contained
`report.html` in it.
"""

import pathlib

from implicit_attr import errors
from implicit_attr.report import page
from implicit_attr.report.maps import draw_alone as draw_maps
from implicit_attr.report.read import Evaluation, Run, load
from implicit_attr.report.sweep import write_sweep
from implicit_attr.report.sweep_runs import holds_runs
from implicit_attr.report.tables import as_text

__all__ = [
  'Evaluation',
  'Run',
  'as_text',
  'draw_maps',
  'load',
  'write',
  'write_sweep',
]


_OF_A_RUN = (
  'config.json', 'metrics.jsonl', 'status.json', 'evaluation', 'spectrum'
)  # fmt: skip


def write(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes the page of a run, or of a sweep for a folder that holds runs.

  Returns:
    The path of report.html.

  Raises:
    InputError: `workdir` is neither, or cannot be written.
  """
  path = pathlib.Path(workdir)
  some = any((path / name).exists() for name in _OF_A_RUN)
  errors.require(
    '--workdir', str(workdir), some or holds_runs(path),
    'a run, or a folder of runs',
  )  # fmt: skip
  return write_sweep(path) if holds_runs(path) else page.write(path)
