"""How does a script become the notebook beside it?

  python launch/colab/pair.py

writes the .ipynb of every script in this folder. A script is in percent format:
`# %%` begins a cell of code, `# %% [markdown]` one of text. Two cells come
before it: a badge that opens the notebook in Colab, and what installs the
package where it is missing. Change scripts, never notebooks.
"""

import json
import pathlib

FOLDER = pathlib.Path(__file__).parent

# A placeholder: the code has no public address yet. This line is the only one
# to change; then run this file.
REPOSITORY = 'OWNER/implicit_attr'

BADGE = (
  '[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]'
  '(https://colab.research.google.com/github/{repository}/blob/main/'
  'launch/colab/{name}.ipynb)'
)
INSTALL = """\
# In a fresh Colab: fetches the repository and what it needs. Elsewhere nothing.
import importlib.util
import pathlib
import subprocess
import sys

here = pathlib.Path.cwd()
above = (here, *here.parents)
sys.path += [str(p) for p in above if (p / 'implicit_attr').is_dir()]
if importlib.util.find_spec('implicit_attr') is None:
  url = 'https://github.com/{repository}'
  clone = here / 'implicit_attr_clone'
  if not clone.is_dir():
    subprocess.run(['git', 'clone', '--depth=1', url, str(clone)], check=True)
  pip = [sys.executable, '-m', 'pip', 'install', '-q', str(clone)]
  subprocess.run(pip, check=True)
  sys.path.insert(0, str(clone))
  importlib.invalidate_caches()
"""


def cells(script: str) -> list[tuple[str, str]]:
  """(kind, text) of each cell of a script, 'code' or 'markdown'.

  Raises:
    ValueError: there is something before the first cell.
  """
  found = []
  for line in script.splitlines():
    if line in ('# %%', '# %% [markdown]'):
      found.append(('markdown' if 'markdown' in line else 'code', []))
    elif found:
      text = found[-1][0] == 'markdown'
      found[-1][1].append(line.removeprefix('#')[1:] if text else line)
    else:
      raise ValueError(f'a script begins with # %%, not with {line!r}')
  return [(kind, '\n'.join(lines).strip('\n')) for kind, lines in found]


def notebook(script: str, name: str) -> str:
  """The .ipynb (nbformat 4.5) of a script, without outputs."""
  header = [('markdown', BADGE), ('code', INSTALL.rstrip())]
  header = [
    (kind, text.replace('{repository}', REPOSITORY).replace('{name}', name))
    for kind, text in header
  ]
  made = []
  for i, (kind, text) in enumerate([*header, *cells(script)]):
    cell = {'cell_type': kind, 'id': f'{name}-{i}', 'metadata': {}}
    cell['source'] = text.splitlines(keepends=True)
    if kind == 'code':
      cell |= {'execution_count': None, 'outputs': []}
    made.append(cell)
  kernel = {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
  value = {
    'cells': made,
    'metadata': {'kernelspec': kernel, 'language_info': {'name': 'python'}},
    'nbformat': 4,
    'nbformat_minor': 5,
  }
  return json.dumps(value, indent=1, ensure_ascii=False) + '\n'


def scripts() -> list[pathlib.Path]:
  """The scripts that have a notebook: all of this folder but this one."""
  return sorted(p for p in FOLDER.glob('*.py') if p.name != 'pair.py')


def main() -> None:
  for path in scripts():
    path.with_suffix('.ipynb').write_text(notebook(path.read_text(), path.stem))
    print(path.with_suffix('.ipynb').name)


if __name__ == '__main__':
  main()
