"""Anything of one's own by its path, 'package.module:name'.

Modules are looked for as Python does: in the current folder, then among what is
installed.
"""

import importlib
import re
from typing import Any

from implicit_attr import errors

FORM = re.compile(r'[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*')


def is_path(name: str) -> bool:
  """Whether `name` has the form 'package.module:name'."""
  return FORM.fullmatch(name) is not None


def find(field: str, path: str) -> Any:
  """What is called `name` in the module, of `path` 'package.module:name'.

  Raises:
    InputError: another form, no such module or name, or a module that cannot
      be imported; the line begins with `field`.
  """
  form = "of the form 'package.module:name'"
  errors.require(field, path, is_path(path), form)
  where, _, name = path.partition(':')
  try:
    module = importlib.import_module(where)
  except ModuleNotFoundError as e:
    inside = e.name is not None and f'{where}.'.startswith(f'{e.name}.')
    if not inside:  # the module is there, what it imports is not
      raise _failed(field, path, where, e) from e
    raise errors.InputError(
      f'{field}={path!r} names a module that is not there ({e}); modules are '
      'looked for in the current folder and among what is installed'
    ) from e
  except Exception as e:  # whatever a module does when it is imported
    raise _failed(field, path, where, e) from e
  if not hasattr(module, name):
    public = [n for n, v in vars(module).items() if callable(v)]
    public = [n for n in public if not n.startswith('_')]
    errors.choose(field, path, {f'{where}:{n}' for n in public})
  return getattr(module, name)


def _failed(
  field: str, path: str, where: str, e: Exception
) -> errors.InputError:
  return errors.InputError(
    f'{field}={path!r}: importing {where} failed ({errors.said(e)})'
  )
