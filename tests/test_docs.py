"""Do the pages speak of what is in the code, and is the site whole?"""

import importlib
import pathlib
import re

import pytest

from implicit_attr import attacks, claims, theory
from implicit_attr.configs import common

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ('argument', 'extending', 'protocol', 'your_network')


def page(name):
  return (ROOT / 'docs' / f'{name}.md').read_text()


@pytest.mark.parametrize('name', PAGES)
def test_every_file_that_a_page_names_is_there(name):
  text = page(name)
  files = set(
    re.findall(r'(?:configs|docs|launch|studies|tests)/[\w./]+\w', text)
  )
  files |= {f'docs/{link}' for link in re.findall(r'\]\((\w+\.md)\)', text)}
  assert files and all((ROOT / file).exists() for file in files), files


def test_every_check_that_the_argument_names_is_run():
  names = set(re.findall(r'`([a-z0-9]+(?:_[a-z0-9]+)+)`', page('argument')))
  assert len(names) > 25 and names <= set(theory.CHECKS)
  # 'saturation' and 'interlacing' have no underscore to be found by.
  assert 'saturation' in theory.CHECKS


def test_every_number_that_the_argument_names_is_logged():
  found = r'`((?:param|input|input_loss|align|attention)/(\w+))`'
  names = set(re.findall(found, page('argument')))
  code = ''.join(p.read_text() for p in ROOT.glob('implicit_attr/**/*.py'))
  assert len(names) > 6
  for key, tail in names:  # some are put together from a prefix and a name
    joined = (f"'{key}'", f"f'{{name}}/{tail}'", f"'{tail}':")
    assert any(text in code for text in joined), key


def test_the_claims_that_the_argument_names_are_those_that_are_judged():
  assert set(re.findall(r'\bC\d\b', page('argument'))) == set(claims.CLAIMS)


def test_the_protocol_has_the_defaults_of_the_configs():
  config, text = common.base(), ' '.join(page('protocol').split())
  found = config.evaluation
  for said in (
    f'{found.examples} test images',
    f'≤ {found.eps} in every pixel',
    f'{found.steps} steps along the signs of a momentum',
    f'{found.restarts} restarts',
    f'≤ {config.train.milestones.train_loss} |',
    f'≥ {config.train.milestones.test_accuracy} |',
    f'every {config.train.eval_every.replace("%", " %")} of a run',
    f'Tracked on {config.track.examples} training images',
    f'at most {config.track.order} Lanczos products',
    f'residual of {100 * config.track.tol:g} %',
    f'{config.track.draws} random draws',
    f'at most {config.track.input_order} products',
    f'or {100 * config.track.input_tol:.0f} %',
  ):
    assert said in text, said
  assert (found.k, found.target, found.norm) == (0.1, 'logit', 'linf')
  assert tuple(found.attacks) == ('border',)
  assert tuple(found.checkpoints) == ('last', 'train_loss', 'test_accuracy')
  assert 'diffkendall' in attacks.OBJECTIVES


def test_every_page_is_in_the_menu_of_the_site():
  docs = ROOT / 'docs'
  pages = {p.relative_to(docs).as_posix() for p in docs.rglob('*.md')}
  menu = (ROOT / 'mkdocs.yml').read_text().split('\nnav:')[1]
  assert set(re.findall(r'([\w/]+\.md)$', menu, re.M)) == pages


API = ROOT / 'docs' / 'api'
SHOWN = re.findall(
  r'^::: ([\w.]+)$', ''.join(p.read_text() for p in API.glob('*.md')), re.M
)


@pytest.mark.parametrize('name', SHOWN)
def test_what_has_the_name_of_its_file_is_shown_by_itself(name):
  """Documented from the source, `curvature.trace` is a file, no function."""
  try:
    module = importlib.import_module(name)
  except ImportError:
    module, _, inner = name.rpartition('.')
    assert hasattr(importlib.import_module(module), inner)
    return
  folder = pathlib.Path(module.__file__).parent
  for public in getattr(module, '__all__', ()):
    package = module.__file__.endswith('__init__.py')
    hidden = package and (folder / f'{public}.py').exists()
    alone = f'{name}.{public}.{public}', f'{name}.{public}'
    assert not hidden or set(alone) & set(SHOWN), public


def test_the_library_is_in_the_api():
  library = {
    'curvature', 'attribution', 'attacks', 'similarity', 'models', 'theory',
    'objectives', 'probes', 'diagnostics', 'audit',
  }  # fmt: skip
  assert {f'implicit_attr.{name}' for name in library} <= set(SHOWN)
