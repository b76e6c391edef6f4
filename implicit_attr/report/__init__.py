"""Reports of a run or a sweep: figures and one self-contained page.

`write(workdir)` reads the files of a run directory, or of a folder of them,
and nothing else, and leaves `figures/*.png` and `*.svg` and one self-contained
`report.html` in it.
"""

import pathlib

from implicit_attr import errors
from implicit_attr.report import page
from implicit_attr.report.maps import draw_alone as draw_maps
from implicit_attr.report.sweep import write_sweep
from implicit_attr.report.tables import as_text
from implicit_attr.runs import reading
from implicit_attr.runs.reading import Evaluation, Run, load

__all__ = [
  'Evaluation',
  'Run',
  'as_text',
  'draw_maps',
  'load',
  'write',
  'write_sweep',
]


def write(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes the page of a run, or of a sweep for a folder that holds runs.

  Returns:
    The path of report.html.

  Raises:
    InputError: `workdir` is neither, or cannot be written.
  """
  path = pathlib.Path(workdir)
  first = next(reading.folders(path), None)
  errors.require(
    '--workdir', str(workdir), first is not None, 'a run, or a folder of runs'
  )
  return page.write(path) if first == path else write_sweep(path)
