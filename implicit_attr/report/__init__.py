"""What happened in a run, for someone who was not there?

`write(workdir)` reads the files of a run directory, and nothing else, and
leaves `figures/*.png` and one self-contained `report.html` in it.
"""

from implicit_attr.report.maps import draw_alone as draw_maps
from implicit_attr.report.page import write
from implicit_attr.report.read import Evaluation, Run, load
from implicit_attr.report.tables import as_text

__all__ = ['Evaluation', 'Run', 'as_text', 'draw_maps', 'load', 'write']
