"""Do the pages on your own network show code that runs, and say all?"""

import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from implicit_attr import audit
from implicit_attr.curvature import flat

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
FRAMEWORKS = ['linen', 'nnx', 'equinox', 'haiku']


def page(name):
  return (DOCS / f'{name}.md').read_text()


def snippet(name, framework):
  """The one snippet of a page for a framework; at most 12 lines."""
  snippets = re.findall(r'```python\n(.*?)```', page(name), re.S)
  assert len(snippets) == len(FRAMEWORKS)
  (code,) = [s for s in snippets if framework in s.split('implicit_attr')[0]]
  assert len([line for line in code.splitlines() if line]) <= 12
  return code


@pytest.mark.parametrize('framework', ['linen', 'equinox', 'haiku'])
def test_the_curvature_of_a_model_of_any_framework(framework):
  found = {}
  exec(snippet('curvature_of_yours', framework), found)
  top = found['values'][0]
  assert np.isfinite(found['values']).all() and found['residuals'][0] < 0.1
  assert abs(found['mean']) < 20 * top
  mass = np.trapezoid(found['density'], found['grid'])
  np.testing.assert_allclose(mass, 1, atol=0.02)


def test_the_curvature_of_an_nnx_model_is_by_its_parameters_only():
  """On a network with batch norm and dropout, against the dense Hessian."""
  made = """model = nnx.Sequential(
  nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(1)),
  nnx.Dropout(0.5, rngs=nnx.Rngs(2)), nnx.Linear(4, 3, rngs=nnx.Rngs(3)))
model.eval()"""
  code, count = re.subn(
    r'model = nnx.*', lambda _: made, snippet('curvature_of_yours', 'nnx')
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
  code = snippet('audit', framework)
  few = "eps=8 / 255, attributions=('gradient',), steps=2, restarts=1"
  assert code.count('eps=8 / 255') == 1
  exec(code.replace('eps=8 / 255', few), {})
  assert 'random signs' in capsys.readouterr().out
  assert (tmp_path / 'pictures' / 'maps_gradient.png').stat().st_size > 5000


def test_the_page_on_audits_has_every_option_and_every_text():
  text = page('audit')
  options = list(inspect.signature(audit.audit).parameters)[4:]
  assert len(options) == 17
  for name in options:
    assert f'`{name}`' in text, name
  code = inspect.getsource(audit) + inspect.getsource(flat)
  said = re.sub(r"'\s+f?'", '', code)  # texts that go on in the next line
  table = text.split('## What it says')[1].split('\n\n')[1]
  rows = re.findall(r'^\| (.*?) \|', table, re.M)[1:]
  rows = [row for row in rows if row.strip('-')]
  assert len(rows) == 6
  for row in rows:
    assert row.replace('params', '{field}') in said, row


@pytest.mark.parametrize('name', ['audit', 'curvature_of_yours'])
def test_every_file_that_a_page_names_is_there(name):
  files = {DOCS / f for f in re.findall(r'\]\((\w+\.md)\)', page(name))}
  files |= {DOCS.parent / f for f in re.findall(r'tests/\w+\.py', page(name))}
  assert files and all(f.exists() for f in files), files
