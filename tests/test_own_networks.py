"""Does a network that someone else wrote train and explain as ours do?"""

import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import strangers
from flax import nnx

from implicit_attr import errors, models, run, train
from implicit_attr.configs import common
from implicit_attr.evaluation import evaluate
from implicit_attr.models import own
from implicit_attr.runtime import dist
from implicit_attr.train import advance, experiment
from implicit_attr.train.feed import Feed
from implicit_attr.train.lanes import Lanes

EQUINOX = pytest.mark.peers
NETWORKS = {
  'strangers:ResNet5': {},
  'strangers:Deterministic': {'n_out': 10},
  'strangers:Field': {},
  'strangers:Plain': {},
  'strangers:NnxCNN': {'width': 8},
  'strangers_equinox:CNN': {},
  'strangers_equinox:MLP': {},
}
ALL = [
  pytest.param(path, marks=EQUINOX if 'equinox' in path else ())
  for path in NETWORKS
]
DROPOUT = [p for p in ALL if not p.values[0].endswith((':Plain', ':MLP'))]
STATE = ('ResNet5', 'Field', 'NnxCNN', 'CNN')
IMAGES = np.random.default_rng(0).random((6, 8, 8, 1), np.float32)


def config(path, **changes):
  made = common.smoke(common.base())
  made.model = {'name': path, 'mean': 0.3, 'std': 0.4, **NETWORKS[path]}
  made.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return made.to_dict()


@pytest.fixture(scope='module')
def made():
  """path -> (network, its variables), made once."""
  known = {}

  def make(path):
    if path not in known:
      network = models.build(path, num_classes=10, **NETWORKS[path])
      init = jax.jit(lambda key: network.init(key, IMAGES[:1]))
      known[path] = network, init(jax.random.key(1))
    return known[path]

  return make


def carried(variables):
  return [name for name in variables if name != 'params']


def trained(network, variables, key, x=IMAGES):
  (logits, _), new = network.apply(
    variables, x, train=True, mutable=carried(variables), rngs={'dropout': key}
  )
  return logits, new


def differ(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return any(not np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize('path', ALL)
def test_in_evaluation_examples_do_not_see_each_other(path, made):
  network, variables = made(path)
  logits, out = network.apply(variables, IMAGES)
  assert logits.shape == (6, 10) and isinstance(out, dict)
  alone, _ = network.apply(variables, IMAGES[2:3])
  np.testing.assert_allclose(alone[0], logits[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('path', DROPOUT)
def test_dropout_is_a_function_of_the_key_and_of_training_only(path, made):
  network, variables = made(path)
  one, _ = trained(network, variables, jax.random.key(1))
  again, _ = trained(network, variables, jax.random.key(1))
  other, _ = trained(network, variables, jax.random.key(2))
  np.testing.assert_array_equal(one, again)
  assert differ(one, other)
  assert differ(one, network.apply(variables, IMAGES)[0])


@pytest.mark.parametrize('path', ALL)
def test_statistics_keep_their_types_in_a_bfloat16_pass(path, made):
  network, variables = made(path)
  half = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)
  low = variables | {'params': half(variables['params'])}
  step = lambda low, x: trained(network, low, jax.random.key(1), x)
  _, new = jax.eval_shape(step, low, half(IMAGES))
  old = {name: variables[name] for name in carried(variables)}
  types = lambda tree: jax.tree.map(lambda a: a.dtype, tree)
  assert types(new) == types(old)


@pytest.mark.parametrize('path', ALL)
def test_statistics_change_in_training_and_keep_their_form(path, made):
  network, variables = made(path)
  _, new = trained(network, variables, jax.random.key(1))
  old = {name: variables[name] for name in carried(variables)}
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, old)
  assert bool(old) == path.endswith(STATE)
  if old:
    assert differ(old, new)


def test_a_linen_network_gives_what_flax_gives(made):
  network, variables = made('strangers:ResNet5')
  module = strangers.ResNet5(num_classes=10)
  wanted, new = module.apply(
    variables, IMAGES, train=True, mutable=['batch_stats'],
    rngs={'dropout': jax.random.key(3)},
  )  # fmt: skip
  logits, ours = trained(network, variables, jax.random.key(3))
  np.testing.assert_array_equal(logits, wanted)
  jax.tree.map(np.testing.assert_array_equal, ours, new)


def test_an_nnx_network_gives_what_nnx_gives(made):
  network, variables = made('strangers:NnxCNN')
  module = strangers.NnxCNN(8, 10, rngs=nnx.Rngs(jax.random.key(1)))
  module.eval()
  logits, _ = network.apply(variables, IMAGES)
  np.testing.assert_allclose(logits, module(IMAGES), rtol=1e-4, atol=1e-5)
  params = nnx.state(module, nnx.Param)
  sizes = lambda tree: sorted(a.size for a in jax.tree.leaves(tree))
  assert sizes(variables['params']) == sizes(params)
  order: list[str] = []  # as they were made, which jit forgets
  init = lambda key: order.extend(network.init(key, IMAGES)['params'])
  jax.eval_shape(init, jax.random.key(0))
  assert order == ['stem', 'norm', 'blocks', 'head']
  module.train()  # and batch norm moves as it does in nnx
  module(IMAGES)
  _, new = trained(network, variables, jax.random.key(3))
  mean = new['carried']['norm']['mean']
  np.testing.assert_allclose(mean, module.norm.mean[...], rtol=1e-4, atol=1e-6)
  assert new['carried']['calls'] == 1


@EQUINOX
def test_an_equinox_network_gives_what_equinox_gives(made):
  import equinox as eqx
  import strangers_equinox

  network, variables = made('strangers_equinox:CNN')
  module, state = eqx.nn.make_with_state(strangers_equinox.CNN)(
    10, key=jax.random.key(1)
  )
  module = eqx.nn.inference_mode(module)
  logits, _ = network.apply(variables, IMAGES)
  wanted, _ = jax.vmap(
    lambda x: module(x, state, jax.random.key(0)), out_axes=(0, None),
    axis_name='batch',
  )(IMAGES.transpose(0, 3, 1, 2))  # fmt: skip
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-6)
  assert set(variables['params']) == {'conv', 'norm', 'head'}
  assert variables['arrays']['offsets'].dtype == np.int32


def test_pixels_are_standardised_before_the_network():
  plain = models.build('strangers:Plain')
  scaled = models.build('strangers:Plain', mean=(0.2,), std=0.5)
  variables = plain.init(jax.random.key(0), IMAGES)
  a, _ = plain.apply(variables, (IMAGES - np.float32(0.2)) / 0.5)
  b, _ = scaled.apply(variables, IMAGES)
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def advanced(lanes, lengths):
  """The state after spans of these lengths."""
  program, feed = advance.make_program(lanes), Feed(lanes, max(lengths))
  state, step = lanes.template.mesh.replicate(lanes.init()), 0
  for n in lengths:
    rates = np.zeros((*lanes.lead, max(lengths)), np.float32)
    rates[..., :n] = lanes.rates[..., step : step + n]
    state, _ = program(
      lanes.values,
      np.ones(lanes.lead, bool),
      state,
      rates,
      feed(step, n),
      np.int32(n),
      feed.table,
    )
    step += n
  return jax.device_get(state)


@pytest.mark.parametrize(
  'path', [p for p in ALL if p.values[0].endswith(('NnxCNN', ':CNN'))]
)
def test_a_span_has_the_bits_of_its_parts_with_batch_norm_and_dropout(path):
  lanes = Lanes.of([experiment.build(config(path))])
  evaluate.check(lanes.template)
  jax.tree.map(
    np.testing.assert_array_equal,
    advanced(lanes, (3,)),
    advanced(lanes, (1, 2)),
  )


@pytest.mark.parametrize(
  'path',
  ['strangers:Field', pytest.param('strangers:NnxCNN', marks=pytest.mark.slow)],
)
def test_a_lane_of_a_network_of_ones_own_is_its_single_run(path):
  configs = [config(path, seed=seed, optim__lr=0.1 * seed) for seed in (1, 2)]
  built = [experiment.build(one) for one in configs]
  lanes = Lanes.of(built)
  assert lanes.mapped == (path == 'strangers:NnxCNN')
  together = advanced(lanes, (2,))
  for i, one in enumerate(built):
    alone = advanced(Lanes.of([one]), (2,))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      lanes.take(together, i), alone,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_of_a_relu_network_has_all_records_and_an_attack_gradient(
  tmp_path,
):
  changes = {'train__duration': '4 steps', 'data__subset': 64}
  lanes = run.build([config('strangers:ResNet5', **changes)])
  assert lanes.template.softens
  run.train(lanes, [tmp_path])
  found = json.loads((tmp_path / 'evaluation' / 'last.json').read_text())
  assert all(row['n_stalled'] == 0 for row in found['rows'])
  lines = [
    json.loads(line)
    for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ]
  assert 'param/lambda_max' in lines[-1] and 'input/lambda_max' in lines[-1]
  # Which layer touches the pixels is not known of a stranger's network.
  assert 'param/w1_norm' not in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize('path', ALL)
def test_a_run_of_any_network_goes_to_its_end(path, tmp_path):
  run.train(run.build([config(path)]), [tmp_path])
  assert (tmp_path / 'evaluation' / 'last.json').is_file()
  state = evaluate.find(experiment.build(config(path)), tmp_path, 'last')
  assert int(state.step) == 20


def test_the_surrogate_of_a_network_of_ones_own_nears_it(made):
  built = experiment.build(config('strangers:ResNet5'))
  state = jax.jit(built.draw)(0)
  smooth = built.smooth_apply_fn(state.model_state)
  x = IMAGES[:2]
  wanted, _ = train.frozen(built.module, state.model_state)(state.params, x)
  far = [
    float(jnp.abs(smooth(state.params, x, beta=b)[0] - wanted).max())
    for b in (3.0, 1e4)
  ]
  assert far[1] < 1e-3 < far[0]
  for path in ('strangers:Plain', 'strangers:Deterministic'):
    assert experiment.build(config(path)).smooth_apply_fn({}) is None


def test_the_first_layer_is_measured_where_it_is_called_first():
  from implicit_attr import probes

  networks = {'strangers:Deterministic': True, 'strangers:Plain': False}
  for path, known in networks.items():
    built = experiment.build(config(path))
    assert probes.has_first_layer(built.like().params) == known
  assert not probes.has_first_layer({'first': {'scale': 1}})


@pytest.mark.parametrize(
  'path, options, said',
  [
    ('nowhere:Net', {}, "No module named 'nowhere'"),
    ('strangers:ResNet55', {}, "did you mean 'strangers:ResNet5'"),
    ('strangers:', {}, "'package.module:name'"),
    ('strangers.py:ResNet', {}, 'not there'),
    ('strangers:NETS', {}, 'is not known'),
    ('strangers:no_network', {}, 'must be a class'),
    ('strangers:broken', {}, 'RuntimeError: a shape'),
    ('strangers:ResNet', {}, 'model.stages=None must be given'),
    ('strangers:ResNet5', {'widht': 3}, "did you mean 'width'"),
    ('strangers:ResNet5', {'rngs': 3}, 'allowed: num_classes, stages, width'),
    ('strangers:ResNet5', {'activation': 'relu'}, "option='activation' is not"),
    ('strangers:NnxCNN', {'width': 'x'}, 'must be a class'),
    ('strangers:Headless', {}, 'logits [B, 10]'),
    ('strangers:Deterministic', {'n_out': 3}, 'it gives (2, 3)'),
    ('strangers:Weightless', {}, 'one with parameters'),
    ('strangers:Plain', {'std': 0.0}, 'model.std'),
    ('strangers:Plain', {'num_classes': 10}, 'left out'),
  ],
)  # fmt: skip
def test_what_is_no_network_for_this_set_is_one_line(path, options, said):
  made = common.smoke(common.base())
  made.model = {'name': path, 'mean': 0.0, 'std': 1.0, **options}
  with pytest.raises(errors.InputError) as e:
    experiment.build(made.to_dict())
  text = str(e.value)
  assert said in text and 'model' in text and '\n' not in text, text


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'halfway.py').write_text('import not_installed_at_all')
  (tmp_path / 'wrong.py').write_text('1 / 0')
  for name, said in (
    ('halfway', 'not_installed_at_all'),
    ('wrong', 'division'),
  ):
    with pytest.raises(errors.InputError, match=said) as e:
      models.build(f'{name}:Net')
    assert f'importing {name} failed' in str(e.value)


def test_what_every_config_says_of_a_model_is_no_option_of_a_stranger():
  base = common.base().to_dict()['model']
  assert {name: base[name] for name in own.COMMON} == own.COMMON
  known = set(inspect.signature(own.build).parameters)
  assert set(base) - set(own.COMMON) - {'name'} <= known


def test_pmap_is_refused_for_statistics_of_the_global_batch(monkeypatch):
  monkeypatch.setattr(dist, 'mesh', lambda mode, mesh=dist.mesh: (
    dataclasses.replace(mesh('jit'), mode=mode)
  ))  # fmt: skip
  made = {**config('strangers:Field'), 'parallel': 'pmap'}
  with pytest.raises(errors.InputError, match="parallel='pmap' must be 'jit'"):
    experiment.build(made)
  made['model'] = {'name': 'strangers:Plain'}
  experiment.build(made)
