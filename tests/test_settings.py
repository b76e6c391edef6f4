"""Are settings values: hashed, copied, read back, and no false refusal?

What is refused of the fields that every config has is in test_refusals.
"""

import copy
import dataclasses
import importlib
import inspect
import json
import math
import pathlib
import pickle

import numpy as np
import pytest

from implicit_attr import errors, models
from implicit_attr.configs import common
from implicit_attr.runtime import cadence
from implicit_attr.sweeps import sweep
from implicit_attr.train import experiment, settings
from implicit_attr.train.checks import Frozen

FOLDER = pathlib.Path(__file__).parent.parent / 'configs'
CONFIGS = sorted(path.stem for path in FOLDER.glob('*_*.py'))
SWEEPS = sorted(path.stem for path in (FOLDER / 'sweeps').glob('*.py'))
BASE = common.base().to_dict()


def changed(field: str, value, config: dict = BASE) -> dict:
  config = copy.deepcopy(config)
  section, _, name = field.rpartition('.')
  (config[section] if section else config)[name] = value
  return config


def refused(fun, *said: str) -> None:
  with pytest.raises(errors.InputError) as e:
    fun()
  text = str(e.value)
  assert '\n' not in text
  for part in said:
    assert part in text, text


def of_json(config: dict) -> settings.Settings:
  return settings.read(json.loads(json.dumps(config)))


@pytest.mark.parametrize('argument', [None, 'smoke'])
@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_read_back_from_json_is_the_same_and_hashes_the_same(
  name, argument
):
  module = importlib.import_module(f'implicit_attr.configs.{name}')
  config = module.get_config(argument).to_dict()
  read, again = settings.read(config), of_json(config)
  assert read == again and hash(read) == hash(again)
  assert read != settings.read(changed('optim.lr', 0.123, config))


@pytest.mark.parametrize('name', SWEEPS)
def test_every_arm_of_every_sweep_is_read_and_read_back(name):
  module = importlib.import_module(f'implicit_attr.configs.sweeps.{name}')
  known = getattr(module, 'ARGUMENTS', ())
  for argument in (None, 'small', *known):
    try:
      arms = sweep.arms(module.get_config(argument))
    except ValueError as e:  # some have no such argument, or need one
      assert 'config argument' in str(e)
      continue
    for arm in arms:
      assert settings.read(arm.config) == of_json(arm.config), arm.name


def test_a_run_from_before_a_field_has_its_default():
  config = copy.deepcopy(BASE)
  for section, name in (('train', 'resident_bytes'), ('evaluation', 'sanity')):
    del config[section][name]
  assert settings.read(config) == settings.read(BASE)


def test_settings_are_copied_pickled_and_printed_as_values():
  read = settings.read(BASE)
  assert pickle.loads(pickle.dumps(read)) == read == copy.deepcopy(read)
  assert dataclasses.asdict(read)['optim'] == BASE['optim']
  assert "options={'activation': 'gelu'" in repr(read)


def test_nothing_in_settings_can_be_changed():
  config = copy.deepcopy(BASE)
  read = settings.read(config)
  with pytest.raises(dataclasses.FrozenInstanceError):
    read.seed = 1
  for options in (read.model.options, read.train.milestones,
                  read.evaluation.options,
                  read.evaluation.options['smoothgrad']):  # fmt: skip
    with pytest.raises(TypeError):
      options['more'] = 1
  config['evaluation']['options']['smoothgrad']['samples'] = 99
  config['model']['beta'] = 99.0
  assert read == settings.read(BASE)


def test_a_frozen_mapping_is_equal_to_its_dict_in_any_order():
  a, b = Frozen({'x': 1, 'y': (2, 3)}), Frozen({'y': (2, 3), 'x': 1})
  assert a == b == {'x': 1, 'y': (2, 3)} and hash(a) == hash(b)
  assert a != Frozen({'x': 1}) and dict(**a) == {**a}


def build(config: dict) -> None:
  """All of a config, but no set that is not embedded."""
  read = settings.read(config)
  experiment.parts(read, num_classes=10)
  if read.data.name in ('digits', 'planted'):
    experiment.build(config)


def own_fields() -> list[tuple[str, str]]:
  """(config, field) of what a config has beside the fields of all."""
  found = []
  for name in CONFIGS:
    module = importlib.import_module(f'implicit_attr.configs.{name}')
    config = module.get_config('smoke')
    for section, value in config.to_dict().items():
      if isinstance(value, dict) and section in ('model', 'data'):
        more = value.keys() - BASE[section].keys()
        found += [(name, f'{section}.{key}') for key in sorted(more)]
  return found


@pytest.mark.parametrize(
  'bad', [None, '', math.nan, -1, 10**20, [None, 1], 'no such thing'], ids=repr
)
@pytest.mark.parametrize('name, field', own_fields())
def test_a_bad_value_of_a_field_of_one_config_is_refused_by_name(
  name, field, bad
):
  module = importlib.import_module(f'implicit_attr.configs.{name}')
  config = module.get_config('smoke')
  given = changed(field, bad, config.to_dict())
  refused(lambda: build(given), field.rpartition('.')[2])


@pytest.mark.parametrize('section', ['model', 'data'])
def test_a_key_named_options_is_no_way_around_the_check(section):
  given = changed(f'{section}.options', {'width': 3})
  refused(lambda: build(given), 'options')


@pytest.mark.parametrize(
  'number', [10**400, -(10**400), 10**5000], ids=['400', '-400', '5000']
)
@pytest.mark.parametrize(
  'field', ['optim.lr', 'model.mean', 'track.draws', 'seed']
)
def test_an_integer_beyond_all_floats_is_refused(field, number):
  refused(lambda: settings.read(changed(field, number)), f'{field}=')


def test_a_bound_is_written_in_full():
  low, high = (1 << 24) + 1, (1 << 24) + 3
  bounds = '>= 16777217 and <= 16777219'
  refused(lambda: errors.number('n', -1, low, high), bounds)


@pytest.mark.parametrize(
  'words, per_epoch, updates',
  [('50000 steps', 50_000, 50_000), ('2000000 steps', 1563, 2_000_000),
   ('2147483647 steps', 1563, 2**31 - 1), ('2 epochs', 50_000, 100_000)],
)  # fmt: skip
def test_steps_are_counted_whatever_an_epoch_is(words, per_epoch, updates):
  assert cadence.steps('t', words, per_epoch=per_epoch) == updates


def test_more_updates_than_a_state_can_count_are_refused():
  for words, per_epoch in (('2147483648 steps', 1), ('2 epochs', 2**30)):
    refused(
      lambda w=words, n=per_epoch: cadence.steps('t', w, per_epoch=n),
      f't={words!r}', '2147483647',
    )  # fmt: skip
  every = cadence.steps('t', '50%', per_epoch=10**8, total=2_000_000)
  assert every == 1_000_000


def map_options(options: dict) -> settings.Settings:
  return settings.read(changed('evaluation.options', options))


@pytest.mark.parametrize('name', settings.maps())
def test_the_defaults_of_a_map_may_be_written_as_its_options(name):
  known = inspect.signature(settings.maps()[name]).parameters.values()
  options = {
    p.name: p.default
    for p in known
    if p.kind == p.KEYWORD_ONLY and p.name not in ('key', 'target')
  }
  assert map_options({name: options}).evaluation.options[name] == options


@pytest.mark.parametrize(
  'name, option, bad',
  [
    *(('grad_cam', 'rectify', bad) for bad in ('no', 1, None)),
    *(('smoothgrad', 'samples', bad) for bad in ('8', 2.5, None, True, 10**20)),
    *(('smoothgrad', 'sigma', bad) for bad in ('x', None, True, 1e-50, 1e39)),
    *(('integrated_gradients', 'baseline', bad) for bad in (None, 'black')),
    ('integrated_gradients', 'chunk', 10**20),
    ('rollout', 'heads', 5),
  ],
)
def test_an_option_of_a_map_has_the_type_of_its_default(name, option, bad):
  field = f'evaluation.options.{name}.{option}='
  refused(lambda: map_options({name: {option: bad}}), field)


def test_an_option_of_a_map_may_be_an_array_or_one_number_a_channel():
  black = np.zeros(3, np.float32)
  given = map_options({'integrated_gradients': {'baseline': black}})
  assert given.evaluation.options['integrated_gradients']['baseline'] is black
  map_options({'integrated_gradients': {'baseline': [0.1, 0.2, 0.3]}})


@pytest.mark.parametrize(
  'name, option, bad',
  [('pgd', 'steps', 10**20), ('pgd', 'eps', 1e-50), ('pgd', 'eps', math.inf),
   ('hessian_penalty', 'draws', 10**7), ('ig_norm', 'chunk', 10**20)],
)  # fmt: skip
def test_counts_of_an_objective_are_bounded(name, option, bad):
  objective = {'name': name, 'weight': None, 'options': {option: bad}}
  refused(
    lambda: settings.read({**BASE, 'objective': objective}),
    f'objective.options.{option}=',
  )


def test_eps_is_at_most_what_images_are_apart():
  l2 = changed('evaluation.norm', 'l2')
  assert settings.read(changed('evaluation.eps', 60.0, l2)).evaluation.eps == 60
  refused(
    lambda: settings.read(changed('evaluation.eps', 1e30, l2)),
    'evaluation.eps=', '4096',
  )  # fmt: skip


def test_a_network_is_no_deeper_than_can_be_built():
  with pytest.raises(errors.InputError, match='last width'):
    models.build('cnn', depth=60)
  with pytest.raises(errors.InputError, match='<= 1000'):
    models.build('vit', depth=1001)
  assert models.build('cnn', width=16, depth=13).depth == 13  # 65536 wide
