"""Pages from jinja2 templates: one file of HTML that needs no other."""

import base64
import pathlib
from typing import Any

from implicit_attr.runs import records


def write(folder: pathlib.Path, name: str, /, **values: Any) -> pathlib.Path:
  """Writes folder/report.html from the template `name`; never half of it.

  Every value is escaped; a value that the template asks for has to be there.

  Raises:
    InputError: the folder cannot be written.
  """
  import jinja2
  import markupsafe

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('implicit_attr', 'report'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['embed'] = _embed
  environment.filters['single_quoted'] = _single_quoted
  environment.filters['maths'] = lambda text: markupsafe.escape(text).replace(
    'λ_max', markupsafe.Markup('λ<sub>max</sub>')
  )
  text = environment.get_template(name).render(**values) + '\n'
  path = folder / 'report.html'
  records.write_file(path, lambda file: file.write(text.encode()))
  return path


def _single_quoted(text: str) -> str:
  """Escaped between single quotes: JSON is full of the double ones."""
  import markupsafe

  for mark, code in (('&', '&amp;'), ("'", '&#39;'), ('<', '&lt;')):
    text = text.replace(mark, code)
  return markupsafe.Markup(text)


def _embed(path: pathlib.Path) -> str:
  """A PNG or SVG as a data: address."""
  code = base64.b64encode(path.read_bytes()).decode('ascii')
  kind = 'svg+xml' if path.suffix == '.svg' else 'png'
  return f'data:image/{kind};base64,{code}'
