"""Are the commands that we publish the ones that are run here?"""

import pathlib
import re

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent


def test_every_config_and_file_that_the_readme_names_is_there():
  text = (ROOT / 'README.md').read_text()
  named = set(
    re.findall(r'(?:configs|docs|benchmarks|launch|studies)/[\w./]+\w', text)
  )
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


def readme():
  return (ROOT / 'README.md').read_text()


def test_the_readme_has_at_most_150_lines_and_its_links_lead_somewhere():
  assert len(readme().splitlines()) <= 150
  links = re.findall(r'\]\((?!http)([^)#]+)\)', readme())
  assert len(links) > 25 and all((ROOT / link).exists() for link in links)


MADE = {
  'flax linen': """
from flax import linen as nn
flat = lambda x: x.reshape(len(x), -1)
layers = nn.Dense(8), nn.gelu, nn.BatchNorm(use_running_average=True)
model = nn.Sequential([flat, *layers, nn.Dense(3)])
""",
  'flax nnx': """
from flax import nnx
rngs = nnx.Rngs(0)
flat = lambda x: x.reshape(len(x), -1)
layers = nnx.Linear(64, 8, rngs=rngs), nnx.gelu, nnx.BatchNorm(8, rngs=rngs)
model = nnx.Sequential(flat, *layers, nnx.Linear(8, 3, rngs=rngs))
model.eval()
""",
  'equinox': """
import equinox as eqx
flat = eqx.nn.Lambda(lambda x: x.ravel())
layers = eqx.nn.MLP(64, 3, 8, 1, jax.nn.gelu, key=key)
model = eqx.nn.Sequential([flat, layers])
""",
}
FRAMEWORKS = [
  'flax linen', 'flax nnx', pytest.param('equinox', marks=pytest.mark.peers)
]  # fmt: skip


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_the_audit_of_a_model_of_any_framework(
  framework, tmp_path, monkeypatch, capsys
):
  """The row of the table, then the snippet above it, on a small network."""
  monkeypatch.chdir(tmp_path)
  (row,) = re.findall(rf'^\| {framework} \|(.*)\|$', readme(), re.M)
  split, apply_fn = (re.findall('`(.*?)`', c) for c in row.split(' | '))
  (snippet,) = re.findall(r'```python\n(.*?)```', readme(), re.S)
  few = "eps=8 / 255, attributions=('gradient',), steps=2, restarts=1"
  assert 'eps=8 / 255' in snippet
  images = np.random.default_rng(0).random((16, 8, 8, 1), np.float32)
  scope = {'jax': jax, 'key': jax.random.key(0), 'images': images,
           'labels': np.arange(16) % 3}  # fmt: skip
  exec(MADE[framework], scope)
  exec('\n'.join(split), scope)
  exec(f'apply_fn = {apply_fn[0]}', scope)
  exec(snippet.replace('eps=8 / 255', few), scope)
  assert 'random signs' in capsys.readouterr().out
  assert (tmp_path / 'pictures' / 'maps_gradient.png').stat().st_size > 5000
  leaves = jax.tree.leaves_with_path(scope['params'])
  text = ' '.join(jax.tree_util.keystr(path) for path, _ in leaves)
  assert 'kernel' in text or framework == 'equinox'
  assert 'mean' not in text and 'var' not in text  # of batch norm
