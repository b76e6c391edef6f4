"""Are the commands that we publish the ones that are run here?"""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent


def test_every_config_and_file_that_the_readme_names_is_there():
  text = (ROOT / 'README.md').read_text()
  named = set(re.findall(r'(?:configs|docs|benchmarks|launch)/[\w./]+\w', text))
  assert named and all((ROOT / name).exists() for name in named), named


def test_ci_runs_the_test_command_of_the_readme():
  script = (ROOT / '.ci' / 'run').read_text()
  assert 'README.md' in script and 'eval "$command"' in script
  block = (ROOT / 'README.md').read_text().split('<!-- tests -->')[1]
  assert '-m pytest' in block.split('```')[1]


def test_no_tracked_text_names_a_machine_or_a_registry():
  private = re.compile(r'(^|[^\w.])/(work|root)/|find-links|index-url')
  for path in ROOT.rglob('*'):
    skip = {'.git', '.venv', 'runs'} & set(path.parts)
    if skip or path.suffix not in {'.py', '.md', '.sh', '.toml', '.cff'}:
      continue
    if path.name != 'test_readme.py':
      assert not private.search(path.read_text()), path
