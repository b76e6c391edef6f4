"""Does docs/your_network.md work as it stands, from an empty folder?"""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from implicit_attr import run

PAGE = pathlib.Path(__file__).parent.parent / 'docs' / 'your_network.md'
BLOCKS = {
  name: f'# {name}.py\n{code}'
  for name, code in re.findall(
    r'```python\n# (\w+)\.py\n(.*?)```', PAGE.read_text(), re.S
  )
}


def write(folder, *names):
  """The files of the page as a reader would have them, and their sets."""
  for name in names:
    (folder / f'{name}.py').write_text(BLOCKS[name])
    if name.startswith('make_'):
      subprocess.run([sys.executable, f'{name}.py'], cwd=folder, check=True)


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  yield tmp_path
  for name in BLOCKS:  # others may have files of these names
    sys.modules.pop(name, None)


def config(here):
  write(here, 'mine')
  made = importlib.import_module('mine').get_config('smoke')
  made.model.width = 8
  return made


def test_each_part_is_about_ten_lines():
  assert set(BLOCKS) == {
    'mine', 'nets', 'nnx_nets', 'equinox_nets', 'make_npz', 'make_folder',
    'sets',
  }  # fmt: skip
  for name, code in BLOCKS.items():
    lines = [line for line in code.splitlines()[1:] if line.strip()]
    about = [line for line in lines if 'import' not in line]
    assert len(about) <= 11, name


def test_the_page_trains_from_an_empty_folder(tmp_path):
  write(tmp_path, 'mine', 'nets', 'make_npz')
  # As `python -m` does, and as the console script does.
  command = [sys.executable, '-m', 'implicit_attr.main']
  root = PAGE.parent.parent
  done = subprocess.run(
    [*command, '--config', 'mine.py:smoke', '--config.train.duration=4 steps'],
    cwd=tmp_path, capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': str(root), 'JAX_PLATFORMS': 'cpu'},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  folder = tmp_path / 'runs' / 'mine-smoke'
  assert (folder / 'report.html').is_file()
  found = json.loads((folder / 'evaluation' / 'last.json').read_text())
  # A ReLU network has an attack gradient; a fifth of 1,797 digits is held out.
  assert found['rows'] and all(r['n_stalled'] == 0 for r in found['rows'])
  assert found['clean']['n'] == 360
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  assert 'param/lambda_max' in json.loads(lines[-1])


@pytest.mark.parametrize(
  'nets', ['nnx_nets', pytest.param('equinox_nets', marks=pytest.mark.peers)]
)
def test_the_networks_of_the_other_frameworks_are_built_and_attacked(
  here, nets
):
  write(here, nets, 'make_npz')
  made = config(here)
  made.model.name = f'{nets}:Small'
  built = run.build([made.to_dict()]).template
  assert built.softens and built.like().model_state


def test_the_folder_of_the_page_is_the_set_of_its_arrays(here):
  write(here, 'make_npz', 'make_folder', 'nets')
  made = config(here)
  images = []
  for name in ('npz:mine.npz', 'folder:photos'):
    made.data.name = name
    built = run.build([made.to_dict()]).template
    assert (len(built.train_set), len(built.test_set)) == (1437, 360)
    assert (built.train_set.num_classes, built.train_set.shape) == (
      10, (8, 8, 1),
    )  # fmt: skip
    whole = np.concatenate(
      [
        source.examples(range(len(source)))['image']
        for source in (built.train_set, built.test_set)
      ]
    )
    images.append(sorted(np.rint(16 * x).tobytes() for x in whole))
  assert images[0] == images[1]


def test_the_function_of_the_page_gets_the_options_of_the_section(here):
  write(here, 'sets', 'nets')
  made = config(here)
  made.data.update({'name': 'sets:digits', 'classes': 3})
  built = run.build([made.to_dict()]).template
  assert built.train_set.num_classes == 3
