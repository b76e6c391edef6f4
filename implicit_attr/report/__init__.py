"""What happened in a run, for someone who was not there?

`write(workdir)` reads the files of a run directory, and nothing else, and
leaves `figures/*.png` and one self-contained `report.html` in it.
"""

from implicit_attr.report.page import write
from implicit_attr.report.read import Evaluation, Run, load

__all__ = ['Evaluation', 'Run', 'load', 'write']
