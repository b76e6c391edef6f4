"""Do imports go down the floors only, and stay light where they must?"""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'implicit_attr'

# Module or folder -> floor; what a floor may see is everything below it,
# unless SEES says otherwise.
FLOORS = {
  'types': 0, 'keys': 0, 'numerics': 0, 'errors': 0, 'losses': 0,
  'by_path': 0,
  'curvature': 1, 'attribution': 1, 'attacks': 1, 'similarity': 1,
  'models': 1, 'theory': 1,
  'objectives': 2, 'probes': 2, 'diagnostics': 2,
  'data': 3, 'runs': 3, 'runtime': 3,
  'train': 4,
  'evaluation': 5,
  'sweeps': 6, 'claims': 6, 'report': 6, 'audit': 6, 'run': 6,
  'configs': 6,
  'main': 7,
}  # fmt: skip
SEES = {
  0: set(),
  1: {0},
  2: {0, 1},
  3: {0},
  4: {0, 1, 2, 3},
  5: {0, 1, 2, 3, 4},
  6: {0, 1, 2, 3, 4, 5},
  7: {0, 1, 2, 3, 4, 5, 6},
}
NEIGHBOURS = {
  'numerics': {'types'},
  'losses': {'errors', 'types'},
  'by_path': {'errors'},
  'attacks': {'similarity'},
  'theory': {'curvature'},
  'sweeps': {'report'},
  'report': {'claims'},
  'audit': {'report'},
}
# A heavy library and the only files that may name it.
ONLY_IN = {
  'flax': {'models'},
  'equinox': {'models'},
  'orbax': {'runs'},
  'tensorboardX': {'runs'},
  'wandb': {'runs'},
  'mlflow': {'runs'},
  'trackio': {'runs'},
  'tensorflow_datasets': {'data'},
  'sklearn': {'data'},
  'matplotlib': {'report'},
  'jinja2': {'report'},
  'ml_collections': {'configs', 'main', 'sweeps'},
  'scipy': {'claims', 'evaluation'},
}


def part(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(path: pathlib.Path, top_level: bool = False) -> set[str]:
  """Dotted names that `path` imports, at any depth or at its top alone."""
  tree, found = ast.parse(path.read_text()), set()
  for node in tree.body if top_level else ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


FILES = sorted(PACKAGE.rglob('*.py'))


def test_every_module_has_a_floor():
  assert {part(f) for f in FILES} - {'__init__'} == set(FLOORS)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.name))
def test_imports_go_down_the_floors(path):
  here = part(path)
  if here == '__init__':
    assert not imports(path)
    return
  for name in imports(path):
    if not name.startswith('implicit_attr.'):
      continue
    there = name.split('.')[1]
    if there == here:
      continue
    allowed = FLOORS[there] in SEES[FLOORS[here]]
    allowed |= there in NEIGHBOURS.get(here, ())
    assert allowed, f'{path.name} on floor {FLOORS[here]} imports {name}'


@pytest.mark.parametrize('library', ONLY_IN)
def test_a_heavy_library_is_named_in_one_place(library):
  users = {
    part(f)
    for f in FILES
    if any(name.split('.')[0] == library for name in imports(f))
  }
  assert users <= ONLY_IN[library]


def test_floors_0_to_2_import_with_jax_flax_optax_and_numpy_alone():
  wanted = [m for m, floor in FLOORS.items() if floor in (0, 1, 2)]
  barred = [
    'tensorboardX', 'tensorflow_datasets', 'array_record', 'sklearn', 'PIL',
    'matplotlib', 'jinja2', 'ml_collections',
  ]  # fmt: skip
  # absl and orbax are not barred: flax itself brings and imports them.
  code = f"""
import sys
class Bar:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in {barred!r}:
      raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Bar())
import importlib
for name in {wanted!r}:
  importlib.import_module('implicit_attr.' + name)
"""
  run = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True
  )
  assert run.returncode == 0, run.stderr


def test_no_module_waits_for_itself():
  """Whichever module of the package is imported first, the others follow."""
  modules = {
    '.'.join(f.relative_to(PACKAGE.parent).with_suffix('').parts): f
    for f in FILES
  }
  waits = {}
  for module, file in modules.items():
    names = imports(file, top_level=True)
    names |= {name.rpartition('.')[0] for name in names}
    waits[module] = names & set(modules)
  graphlib.TopologicalSorter(waits).prepare()  # raises CycleError


def test_no_file_is_over_300_lines():
  long = {
    f.name: n for f in FILES if (n := len(f.read_text().split('\n'))) > 301
  }
  assert not long
