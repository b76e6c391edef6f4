"""Do the notebooks run, show pictures, and say what their scripts say?"""

import ast
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import jax
import matplotlib
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'launch' / 'colab'
NAMES = (
  'quickstart', 'explore_a_run', 'bring_your_own_model', 'reproduce_a_figure',
)  # fmt: skip


@pytest.fixture(scope='module')
def pair():
  spec = importlib.util.spec_from_file_location('pair', FOLDER / 'pair.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def cells(name, kind):
  found = json.loads((FOLDER / f'{name}.ipynb').read_text())['cells']
  return [''.join(c['source']) for c in found if c['cell_type'] == kind]


def test_every_notebook_is_what_its_script_generates(pair):
  assert sorted(NAMES) == [path.stem for path in pair.scripts()]
  assert {p.stem for p in FOLDER.glob('*.ipynb')} == set(NAMES)
  for path in pair.scripts():
    made = path.with_suffix('.ipynb').read_text()
    assert made == pair.notebook(path.read_text(), path.stem), path.name


def test_a_script_and_its_notebook_hold_the_same_code(pair):
  """Read by a parser that is not the one that wrote them."""
  for path in pair.scripts():
    code = '\n'.join(cells(path.stem, 'code')[1:])
    tree = lambda text: ast.dump(ast.parse(text))
    assert tree(code) == tree(path.read_text())
    text = re.sub(r'\s', '', ''.join(cells(path.stem, 'markdown')[1:]))
    said = [s for s in path.read_text().splitlines() if s.startswith('#')]
    said = [s[1:] for s in said if not s.startswith('# %%')]
    assert text == re.sub(r'\s', '', ''.join(said))


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_begins_with_a_badge_for_its_own_address(pair, name):
  badge = cells(name, 'markdown')[0]
  assert badge.startswith('[![Open in Colab]')
  address = re.search(r'\((https://colab\.[^)]*ipynb)\)$', badge)[1]
  tail = f'github/{pair.REPOSITORY}/blob/main/launch/colab/{name}.ipynb'
  assert address.endswith(tail)
  named = [p for p in FOLDER.glob('*.py') if pair.REPOSITORY in p.read_text()]
  assert [p.name for p in named] == ['pair.py']  # in one place


def test_the_first_cell_installs_where_the_package_is_missing(
  pair, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [*sys.path])
  ran = []
  monkeypatch.setattr(subprocess, 'run', lambda c, check: ran.append(c))
  code = cells('quickstart', 'code')[0]
  exec(code, {})
  assert not ran  # everything is here: nothing to do
  found = {'implicit_attr': None}
  monkeypatch.setattr(importlib.util, 'find_spec', found.get)
  exec(code, {})
  (git, *_, url, clone), (python, *_, target) = ran
  assert (git, python) == ('git', sys.executable)
  assert url == f'https://github.com/{pair.REPOSITORY}'
  assert clone == target == sys.path[0] and clone.startswith(str(tmp_path))


def test_the_first_cell_finds_a_checkout_around_it(monkeypatch):
  monkeypatch.chdir(FOLDER)
  monkeypatch.setattr(sys, 'path', [p for p in sys.path if p])
  exec(cells('quickstart', 'code')[0], {})
  assert str(FOLDER.parent.parent) in sys.path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """One folder for all notebooks: the second explores the run of the first."""
  return tmp_path_factory.mktemp('colab')


@pytest.fixture
def here(folder, monkeypatch):
  from matplotlib import pyplot as plt

  monkeypatch.chdir(folder)
  monkeypatch.setattr(sys, 'path', [*sys.path])
  shown = []

  def show():  # a notebook shows a figure and begins another
    shown.append(plt.gcf())
    plt.close()

  monkeypatch.setattr(plt, 'show', show)
  jax.config.update('jax_disable_most_optimizations', True)
  with matplotlib.rc_context({'backend': 'Agg'}):
    yield shown
  jax.config.update('jax_disable_most_optimizations', False)


def execute(name):
  """Runs the cells as a notebook does; the images that it would show."""
  found, images = {'__name__': '__main__'}, []
  for code in cells(name, 'code'):
    code = re.sub(r'(?m)^SMALL = False$', 'SMALL = True', code)
    *body, last = ast.parse(code).body
    shows = isinstance(last, ast.Expr)
    module = ast.Module(body if shows else [*body, last], [])
    exec(compile(module, name, 'exec'), found)
    if shows:
      value = eval(compile(ast.Expression(last.value), name, 'eval'), found)
      if hasattr(value, '_repr_png_'):
        images.append(value._repr_png_())
  assert found['SMALL'] is True
  return images


PICTURES = {  # of the report, drawn in the notebook
  'quickstart': (3, 0),
  'explore_a_run': (1, 3),
  'bring_your_own_model': (1, 1),
  'reproduce_a_figure': (0, 1),
}
SAYS = {
  'quickstart': 'Top-k kept',
  'explore_a_run': 'learning rate: 0.05',
  'bring_your_own_model': 'random signs',
  'reproduce_a_figure': 'λ_max over the edge',
}


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_runs_and_shows_its_pictures(name, here, capsys):
  images = execute(name)
  assert (len(images), len(here)) == PICTURES[name]
  assert all(len(image) > 5000 for image in images)
  assert all(figure.axes[0].has_data() for figure in here)
  assert SAYS[name] in capsys.readouterr().out


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_ends_with_something_to_change(name):
  assert cells(name, 'markdown')[-1].startswith('## Your turn')
