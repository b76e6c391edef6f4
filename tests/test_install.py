"""Is the built wheel, alone in an empty folder, the whole program?"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from implicit_attr import __version__, main
from implicit_attr.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent
OWN = """
from implicit_attr.configs import common
def get_config(arg=None):
  config = common.base()
  config.model.update({'name': 'mlp', 'widths': (8,)})
  return common.smoke(config)
"""


def test_a_config_is_found_by_name_by_path_and_with_its_argument(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  mlp, lr = main.CONFIGS / 'digits_mlp.py', main.CONFIGS / 'sweeps/lr_batch.py'
  for name in (
    'digits_mlp', 'digits_mlp.py', 'configs/digits_mlp.py',
    'implicit_attr/configs/digits_mlp',
  ):  # fmt: skip
    assert main.located(name) == str(mlp)
  assert main.located('digits_mlp:smoke') == f'{mlp}:smoke'
  assert main.located('sweeps/lr_batch:small') == f'{lr}:small'
  (tmp_path / 'digits_mlp.py').write_text(OWN)  # one's own goes first
  assert main.located('digits_mlp:a=b') == 'digits_mlp.py:a=b'


def test_a_config_that_is_nowhere_is_one_line_with_those_there_are():
  with pytest.raises(InputError, match='digits_cmm.*digits_cnn.*sweeps/edge'):
    main.located('digits_cmm')


@pytest.mark.parametrize(
  'given', (['--config=digits_mlp:smoke'], ['--config', 'digits_mlp:smoke'])
)
def test_either_form_of_the_flag_takes_a_name(given):
  code = f"""
from implicit_attr import main
main.parse(['x', *{given!r}])
assert main._CONFIG.value.data.batch_size == 16
assert main._workdir().name == 'digits_mlp-smoke'
"""
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


def test_the_top_folder_of_configs_is_that_of_the_package():
  assert (ROOT / 'configs').is_symlink()
  assert (ROOT / 'configs').resolve() == main.CONFIGS.resolve()


def installed(tmp_path):
  """A folder with what pip installs of the wheel of this tree."""
  source, site = tmp_path / 'source', tmp_path / 'site'
  shutil.copytree(ROOT / 'implicit_attr', source / 'implicit_attr')
  for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  pip = [sys.executable, '-m', 'pip']
  run = lambda *args: subprocess.run([*pip, *args], check=True)
  run('wheel', '-q', '--no-deps', '-w', tmp_path, source)
  (wheel,) = tmp_path.glob('*.whl')
  run('install', '-q', '--no-deps', '--target', site, wheel)
  return site


@pytest.mark.slow  # builds, which asks a registry for setuptools, and trains
def test_the_wheel_alone_trains_by_a_config_of_ones_own(tmp_path):
  site, empty = installed(tmp_path), tmp_path / 'empty'
  files = lambda root: {
    p.relative_to(root).as_posix()
    for p in (root / 'implicit_attr').rglob('*')
    if p.is_file() and '__pycache__' not in p.parts
  }
  assert files(site) == files(ROOT)
  empty.mkdir()
  (empty / 'mine.py').write_text(OWN)
  start = lambda *args: subprocess.run(
    [site / 'bin' / 'implicit_attr', *args],
    cwd=empty, capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': str(site)},
  )  # fmt: skip
  assert start('--version').stdout == f'implicit_attr {__version__}\n'
  for name in ('mine', 'digits_mlp:smoke'):
    done = start(f'--config={name}', '--config.train.duration=4 steps')
    assert done.returncode == 0, done.stderr
    folder = empty / 'runs' / name.replace(':', '-')
    assert (folder / 'report.html').is_file()


@pytest.mark.slow  # as above
def test_three_commands_lead_from_the_wheel_to_a_report_of_ones_own(tmp_path):
  """docs/your_network.md as it stands, but for the length of the run."""
  page = (ROOT / 'docs' / 'your_network.md').read_text()
  commands = page.split('<!-- commands -->')[1].split('```')[1].splitlines()[1:]
  install, train, report = map(str.split, commands)
  assert (
    install
    == f'pip install implicit_attr-{__version__}-py3-none-any.whl'.split()
  )
  site, empty = installed(tmp_path), tmp_path / 'empty'
  empty.mkdir()
  for name in ('mine', 'nets', 'make_npz'):
    code = page.split(f'```python\n# {name}.py\n')[1].split('```')[0]
    (empty / f'{name}.py').write_text(code)
  env = {**os.environ, 'PYTHONPATH': str(site)}
  start = lambda command, *args: subprocess.run(
    [*command, *args], cwd=empty, env=env, check=True
  )
  start([sys.executable, 'make_npz.py'])
  short = [f'--config.{field}' for field in (
    'train.duration=4 steps', 'track.examples=8', 'evaluation.examples=8',
    'evaluation.steps=2', 'evaluation.restarts=1', 'evaluation.radii=()',
    "evaluation.attributions=('gradient',)", 'compile=quick',
  )]  # fmt: skip
  start([site / 'bin' / train[0], *train[1:]], *short)
  written = empty / 'runs' / 'mine' / 'report.html'
  written.unlink()
  start([site / 'bin' / report[0], *report[1:]])
  assert written.is_file()
