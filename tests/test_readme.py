"""Are the commands that we publish the ones that are run here?"""

import pathlib
import re

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


def snippets():
  return re.findall(
    r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S
  )


FRAMEWORKS = ['linen', 'nnx', pytest.param('equinox', marks=pytest.mark.peers)]


def snippet(framework, about):
  """The snippet of one framework about curvature or audit; at most 12 lines."""
  (code,) = [
    s
    for s in snippets()
    if framework in s.split('implicit_attr')[0] and about in s
  ]
  assert len([line for line in code.splitlines() if line]) <= 12
  return code


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_the_curvature_of_a_model_of_any_framework(framework):
  found = {}
  exec(snippet(framework, 'curvature'), found)
  top = found['values'][0]
  assert np.isfinite(found['values']).all() and found['residuals'][0] < 0.1
  assert abs(found['mean']) < 20 * top
  mass = np.trapezoid(found['density'], found['grid'])
  np.testing.assert_allclose(mass, 1, atol=0.02)


def test_the_recipe_for_nnx_differentiates_parameters_only():
  """On a network with batch norm and dropout, against the dense Hessian."""
  import jax
  import jax.numpy as jnp
  from flax import nnx
  from jax.flatten_util import ravel_pytree

  made = """model = nnx.Sequential(
  nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(1)),
  nnx.Dropout(0.5, rngs=nnx.Rngs(2)), nnx.Linear(4, 3, rngs=nnx.Rngs(3)))
model.eval()"""
  code, count = re.subn(
    r'model = nnx.*', lambda _: made, snippet('nnx', 'curvature')
  )
  code = code.replace('jnp.ones((32, 8))', 'jax.random.normal(KEY, (32, 8))')
  assert count == 1
  scope = {'KEY': jax.random.key(5), 'nnx': nnx}
  exec(code, scope)
  flat, unravel = ravel_pytree(scope['params'])
  assert flat.size == 8 * 4 + 4 + 2 * 4 + 4 * 3 + 3  # no mean, no variance
  dense = jax.hessian(lambda v: scope['loss'](unravel(v)))(flat)
  top = jnp.linalg.eigvalsh(dense)[-1]
  np.testing.assert_allclose(scope['values'][0], top, rtol=1e-3)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_the_robustness_of_a_model_of_any_framework(
  framework, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  code = snippet(framework, 'audit')
  few = "eps=8 / 255, attributions=('gradient',), steps=2, restarts=1"
  exec(code.replace('eps=8 / 255', few), {})
  assert 'random signs' in capsys.readouterr().out
  assert (tmp_path / 'pictures' / 'maps_gradient.png').stat().st_size > 5000
