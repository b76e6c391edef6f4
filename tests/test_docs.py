"""Do the pages on argument and protocol speak of what is in the code?"""

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
    f'{found.steps} steps of 2.5 ε / {found.steps} along signs',
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
  assert tuple(found.attacks) == ('topk',)
  assert tuple(found.checkpoints) == ('last', 'train_loss', 'test_accuracy')
  assert 'diffkendall' in attacks.OBJECTIVES
