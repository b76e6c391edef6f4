"""Does every sweep build, and do its arms give the claims what they ask for?"""

import importlib
import itertools
import json
import pathlib

import numpy as np
import pytest

from implicit_attr import claims
from implicit_attr.configs.sweeps import ablations, cost, explicit
from implicit_attr.runtime import cadence
from implicit_attr.sweeps import sweep
from implicit_attr.train import experiment
from implicit_attr.train.lanes import groups
from implicit_attr.train.settings import read

FOLDER = pathlib.Path(__file__).parent.parent / 'configs' / 'sweeps'
NAMES = sorted(path.stem for path in FOLDER.glob('*.py'))
RULES = ('last', 'train_loss', 'test_accuracy')
STEPS_PER_EPOCH = 23
"""Of digits in batches of 64."""


def built(name: str, argument: str | None) -> list[sweep.Arm]:
  """The arms, each override applied to its base; [] if there is no such."""
  module = importlib.import_module(f'implicit_attr.configs.sweeps.{name}')
  try:
    found = module.get_config(argument)
  except ValueError as e:
    assert 'config argument' in str(e)
    return []
  return sweep.arms(found)  # refuses unknown fields and names given twice


@pytest.fixture(scope='module')
def small() -> dict[str, list[sweep.Arm]]:
  return {
    'cost': built('cost', 'small'),
    'ablations': built('ablations', 'small'),
    'target_loss': built('ablations', 'small_target_loss'),
  }


def write_run(root: pathlib.Path, arm: sweep.Arm, rate=100.0, kept=0.5):
  """What a claim reads of a run, without the run."""
  folder = root / arm.name
  (folder / 'evaluation').mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps({'config': arm.config}))
  line = {'step': 900, 'time/steps_per_s': rate}
  (folder / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
  row = {'n': 8, 'metrics': {'topk': {'mean': kept}}}
  value = {
    'step': 900,
    'clean': {'accuracy': 0.9, 'train_loss': 0.1},
    'settings': arm.config['evaluation'],
    'rows': [
      row | {'attribution': name, 'attack': attack}
      for name in arm.config['evaluation']['attributions']
      for attack in (*arm.config['evaluation']['attacks'], 'random_sign')
    ],
  }
  for rule in RULES:
    (folder / f'evaluation/{rule}.json').write_text(json.dumps(value))


@pytest.mark.parametrize('name', NAMES)
def test_every_sweep_builds_with_names_of_its_own(name):
  arguments = [None, 'small']
  if name == 'explicit':
    arguments += [a for a in explicit.ARGUMENTS if a != 'small']
  if name == 'transformers':
    arguments += ['small,kernels']
  if name == 'interpolation':
    arguments += ['cifar', 'small,maps', 'small,relu,maps']
    arguments += ['mnist10k,maps']
  found = {a: arms for a in arguments if (arms := built(name, a))}
  assert found
  for arms in found.values():
    assert len({arm.name for arm in arms}) == len(arms)
    assert len({json.dumps(arm.config) for arm in arms}) == len(arms)


@pytest.mark.parametrize('name', NAMES)
def test_what_the_arms_name_is_there(name):
  """Networks, losses, objectives, optimisers and attacks, without data."""
  seen = set()
  for arm in built(name, None) or built(name, 'small'):
    config = arm.config
    kind = json.dumps({**config, 'seed': 0, 'data': None})
    if kind in seen:
      continue
    seen.add(kind)
    experiment.parts(read(config), num_classes=10)


def test_arms_of_cost_and_ablations_are_experiments(small):
  seen = set()
  for arm in itertools.chain(*small.values()):
    setting = arm.name.partition('/')[0]
    if setting not in seen:
      experiment.build(arm.config)
    seen.add(setting)
  assert len(seen) == 4 + len(ablations.ABLATIONS)


@pytest.mark.parametrize('name', NAMES)
def test_small_is_the_smaller(name):
  whole, little = built(name, None), built(name, 'small')
  if whole and little:
    assert len(little) < len(whole)


def test_small_cost_and_small_ablations_are_minutes(small):
  for name, most in (('cost', 35), ('ablations', 200)):
    assert len(small[name]) <= most
    for arm in small[name]:
      duration = arm.config['train']['duration']
      steps = cadence.steps('', duration, per_epoch=STEPS_PER_EPOCH)
      assert steps <= 1000 and arm.config['data']['name'] == 'digits'
  # Compiling is what ablations cost: arms have to share programs.
  assert len(groups([arm.config for arm in small['ablations']], 30)) <= 18


def c3(root: pathlib.Path) -> claims.Verdict:
  return claims.judge_one(claims.CLAIMS['C3'], claims.read(root)[0])


@pytest.mark.parametrize('slow, said', [(1.0, 'supported'), (0.5, None)])
def test_cost_gives_c3_a_verdict(small, tmp_path, slow, said):
  """Larger rates at half the speed: reversed there, and only there."""
  for arm in small['cost']:
    large = arm.config['optim']['lr'] == max(cost.SMALL['rates'])
    write_run(tmp_path, arm, 100 * slow if large else 100)
  found = c3(tmp_path)
  cells = {(c.fields['factor'], c.fields['rule']): c for c in found.cells}
  assert set(cells) == {(f, r) for f in claims.registry.FACTORS for r in RULES}
  for (factor, _), cell in cells.items():
    assert cell.seeds == len(cost.SEEDS) >= claims.SEEDS
    value = np.log(slow) if factor == 'lr' else 0
    np.testing.assert_allclose(cell.estimate.value, value, atol=1e-12)
  assert found.verdict == (said or 'depends on factor')


def test_explicit_routes_of_cost_stand_beside_plain_descent(small, tmp_path):
  """Same rate and batch as one of the explicit base; no part of C3."""
  routes = [arm for arm in small['cost'] if not arm.name.startswith('none/')]
  assert {a.config['objective']['name'] for a in routes} == set(cost.ROUTES[:3])
  for arm in small['cost']:
    write_run(tmp_path, arm, 1 if arm in routes else 100)
  assert c3(tmp_path).verdict == 'supported'
  whole = built('cost', None)
  plain = {a.name for a in whole if a.name.startswith('none/')}
  for arm in whole:
    assert f'none/{arm.name.partition("/")[2]}' in plain


def test_each_ablation_can_be_judged_by_itself(small, tmp_path):
  for arm in (*small['ablations'], *small['target_loss']):
    lr = arm.config['optim']['lr']
    name = arm.name.partition('/')[0]
    scale = ablations.ABLATIONS[name].get('scale', 1)
    large = lr > scale * np.mean(ablations.RATES)
    write_run(tmp_path, arm, kept=0.6 if large else 0.5)
  for name in ablations.ABLATIONS:
    records, problems = claims.read(tmp_path / name)
    cells = claims.judge_one(claims.CLAIMS['C1'], records).cells
    assert not problems and len(cells) == len(RULES)
    for cell in cells:
      assert (cell.fields['factor'], cell.seeds) == ('lr', 5)
      np.testing.assert_allclose(cell.estimate.value, 0.1)


def test_an_ablation_changes_one_thing_and_the_rate(small):
  arms = (*small['ablations'], *small['target_loss'])
  one = {a.name: a.config for a in arms if 'seed_0' in a.name}
  of = lambda name: [c for n, c in one.items() if n.startswith(f'{name}/')]
  for name, overrides in ablations.ABLATIONS.items():
    start = 'resnet' if name in ablations.RESNETS else 'base'
    for mine, plain in zip(of(name), of(start), strict=True):
      changed = {
        f'{section}.{field}'
        for section, values in plain.items()
        if isinstance(values, dict)
        for field, value in values.items()
        if mine[section][field] != value
      }
      wanted = {*overrides} - {'scale'}
      wanted |= {'optim.lr'} if 'scale' in overrides else set()
      assert changed == wanted, name
