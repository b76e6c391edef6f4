"""Does every objective train on what it says, and on nothing else?"""

import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import errors, losses, models, objectives, train
from implicit_attr.objectives import OBJECTIVES
from implicit_attr.objectives import inner_maximization as inner

KEY = jax.random.key(3)
CE = losses.make('cross_entropy')
NAMES = [name for name in OBJECTIVES if name != 'none']

# Enough of everything to see each term, and quick to compile.
OPTIONS = {
  'hessian_penalty': {'draws': 2},
  'cure': {'h': 0.3},
  'scorpio': {'eps': 0.1, 'norm': 'l2'},
  'llr': {'eps': 0.2, 'steps': 2},
  'gradient_alignment': {'eps': 0.2},
  'ig_norm': {'eps': 0.2, 'steps': 2, 'points': 3, 'inner_points': 2},
  'ig_sum_norm': {
    'eps': 0.2, 'steps': 2, 'points': 3, 'inner_points': 2, 'chunk': 2,
  },
  'art': {'eps': 0.1, 'k': 5, 'steps': 2},
  'aat': {'eps': 0.1, 'steps': 2},
  'adv_aat': {'eps': 0.1, 'steps': 2, 'norm': 'l2'},
  'igr': {'eps': 0.1, 'steps': 2, 'robust': 'trades'},
  'fgsm': {'eps': 0.1},
  'pgd': {'eps': 0.3, 'norm': 'l2', 'steps': 2, 'attack': 'cw'},
  'trades': {'eps': 0.1, 'steps': 2},
}  # fmt: skip
MORE = {
  'gradient_penalty': [{'norm': 'linf', 'target': 'logit'}],
  'hessian_penalty': [{'hvp': 'fd', 'target': 'loss'}],
  'cure': [{'hvp': 'exact', 'squared': False}],
  'scorpio': [{'eps': 0.1, 'hvp': 'exact'}],
}
CASES = [(name, OPTIONS.get(name, {})) for name in NAMES]
CASES += [(name, options) for name, more in MORE.items() for options in more]


@pytest.fixture(autouse=True, scope='module')
def quick():
  """These tests are all compilation: XLA need not optimise."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def network(activation='softplus', classes=3):
  module = models.build(
    'mlp', widths=(5,), num_classes=classes, activation=activation, beta=3.0
  )
  return train.frozen(module, {}), module


def draw(dtype=float, n=3):
  """(params of a network far from linear, a batch of images)."""
  _, module = network()
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, KEY, jnp.zeros((1, 3, 2, 1)))['params']
  params = jax.tree.map(
    lambda a: jnp.asarray(rng.normal(0, 1.2, a.shape), dtype), shapes
  )
  return params, {
    'image': jnp.asarray(rng.uniform(0.2, 0.8, (n, 3, 2, 1)), dtype),
    'label': jnp.asarray(rng.integers(0, 3, n), jnp.int32),
  }


def term(loss_fn, params, batch, key=KEY):
  """The loss of each example, as one program."""
  return jax.jit(lambda p, b, k: loss_fn(p, b, k)[0])(params, batch, key)


def freezing(monkeypatch, recorded=None):
  """Keeps what is held fixed in a list, or puts `recorded` in its place."""
  seen = []

  def stop(value):
    # A scale that cancels, inside of loops too, is not a piece held fixed.
    module = sys._getframe(1).f_globals['__name__']
    if module.endswith(('input_derivatives', 'similarity.maps')):
      return freeze(value)
    if recorded is None:
      seen.append(freeze(value))
    else:
      seen.append(recorded[len(seen)])
    return seen[-1]

  monkeypatch.setattr(jax.lax, 'stop_gradient', stop)
  return seen


freeze = jax.lax.stop_gradient


@pytest.mark.parametrize(
  'name, options', CASES, ids=lambda v: v if isinstance(v, str) else None
)
def test_parameter_gradients_are_finite_differences_at_fixed_inner_pieces(
  name, options, x64, monkeypatch
):
  params, batch = draw()
  apply_fn, _ = network()

  def total(params, weight):
    loss_fn = OBJECTIVES[name](apply_fn, CE, weight=weight, **options)
    return jnp.sum(loss_fn(params, batch, KEY)[0])

  def both(params, weight):
    with monkeypatch.context() as patch:
      seen = freezing(patch)
      value = total(params, weight)
    return value, list(seen)

  @jax.jit
  def differentiated(params, weight):
    (value, seen), grad = jax.value_and_grad(both, has_aux=True)(params, weight)
    return value, grad, seen

  @jax.jit
  def replayed(params, weight, recorded):
    with monkeypatch.context() as patch:
      freezing(patch, recorded)
      # Where a walk ends is in the record.
      patch.setattr(inner, 'ascend', lambda key, gain, x, **walk: x)
      return total(params, weight)

  # A traced weight: one program serves a sweep.
  weight = jnp.asarray(0.7)
  value, grad, recorded = differentiated(params, weight)
  rng, h = np.random.default_rng(1), 1e-5
  for _ in range(3):
    u = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
    ends = [
      replayed(
        jax.tree.map(lambda p, u: p + s * h * u, params, u), weight, recorded
      )
      for s in (1, -1)
    ]
    quotient = (ends[0] - ends[1]) / (2 * h)
    parts = jax.tree.map(lambda g, u: jnp.sum(g * u), grad, u)
    np.testing.assert_allclose(
      sum(jax.tree.leaves(parts)), quotient, rtol=2e-6, atol=1e-8
    )
  np.testing.assert_allclose(
    replayed(params, weight, recorded), value, rtol=1e-9
  )


def test_weight_0_is_plain_training_bit_for_bit():
  _, module = network()
  params, batch = draw(jnp.float32)
  tx = train.optimizer(momentum=0.9)

  def program(name):
    make = objectives.make(name, CE, weight=0.0, options=OPTIONS.get(name))

    def step(batch):
      state = train.State(jnp.zeros((), jnp.int32), params, {}, tx.init(params))
      sums = train.make_sums(module, make)(params, {}, batch, KEY)
      return train.make_update(tx)(state, sums, jnp.float32(0.1)).params

    return jax.jit(step).lower(batch)

  plain = program('none')
  for name in NAMES:
    found = program(name)
    assert found.as_text() == plain.as_text(), name
  jax.tree.map(
    np.testing.assert_array_equal,
    found.compile()(batch),
    plain.compile()(batch),
  )


def test_weight_none_is_the_published_one_and_terms_are_not_nothing(x64):
  params, batch = draw()
  apply_fn, _ = network()
  plain = term(OBJECTIVES['none'](apply_fn, CE), params, batch)
  for name in ('gradient_penalty', 'sam'):
    default = inspect.signature(OBJECTIVES[name]).parameters['weight'].default
    found, given = (
      term(objectives.make(name, CE, weight=w)(apply_fn), params, batch)
      for w in (None, default)
    )
    np.testing.assert_array_equal(found, given)
    assert (abs(found - plain) > 1e-6).all(), name


def test_aux_holds_the_logits_and_the_state_of_one_pass_for_any_loss():
  params, batch = draw(jnp.float32)
  inner, _ = network()
  square = losses.make('squared_error', label_smoothing=0.1)

  def apply_fn(params, x):
    logits, out = inner(params, x)
    return logits, {**out, 'model_state': {'mean': jnp.mean(logits)}}

  for name in OBJECTIVES:
    weight = {} if name == 'none' else {'weight': 0.5}
    options = OPTIONS.get(name, {})
    loss_fn = OBJECTIVES[name](apply_fn, square, **weight, **options)
    per_example, aux = jax.eval_shape(loss_fn, params, batch, KEY)
    assert per_example.shape == (3,), name
    assert aux['logits'].shape == (3, 3), name
    assert aux['model_state']['mean'].shape == (), name


def test_randomness_is_a_function_of_the_key():
  params, batch = draw(jnp.float32)
  apply_fn, _ = network()
  drawn = []
  for name in ('hessian_penalty', 'fgsm'):
    loss_fn = OBJECTIVES[name](
      apply_fn, CE, weight=1.0, **OPTIONS.get(name, {})
    )
    run = jax.jit(lambda key: loss_fn(params, batch, key)[0])
    a, b, c = run(KEY), run(KEY), run(jax.random.key(4))
    np.testing.assert_array_equal(a, b)
    drawn.append(not np.array_equal(a, c))
  assert all(drawn)


def test_images_of_a_batch_do_not_see_each_other(x64):
  params, batch = draw(n=3)
  apply_fn, _ = network()
  for name in ('scorpio',):
    loss_fn = OBJECTIVES[name](apply_fn, CE, weight=1.0)
    whole = term(loss_fn, params, batch)
    one = term(loss_fn, params, jax.tree.map(lambda a: a[1:2], batch))
    np.testing.assert_allclose(whole[1:2], one, rtol=1e-10)


def made(name, weight=1.0, **options):
  return lambda: objectives.make(name, CE, weight=weight, options=options)


@pytest.mark.parametrize(
  'make, message',
  [
    *[(made(n, -0.1), 'objective.weight=-0.1 must be .*>= 0') for n in NAMES],
    (made('pgd', 1.5), 'objective.weight=1.5 must be a number >= 0 and <= 1'),
    (made('scorpio', iterations=0), 'options.iterations=0 must be an integer'),
    (made('scorpio', norm='l3'), "options.norm='l3' is not known.*l2, linf"),
    (made('pgd', norm='l0'), "options.norm='l0' is not known"),
    (made('pgd', steps=0), 'options.steps=0 must be an integer >= 1'),
    (made('pgd', eps=-0.1), 'options.eps=-0.1 must be a number >= 0'),
    (made('pgd', step=0.0), 'options.step=0.0 must be a number > 0'),
    (made('pgd', attack='ace'), "options.attack='ace'.*did you mean 'ce'"),
    (made('gradient_penalty', norm='l0'), "options.norm='l0'"),
    (made('gradient_penalty', target='logits'), "did you mean 'logit'"),
    (made('cure', h=0.0), 'options.h=0.0 must be a number > 0'),
    (made('cure', hvp='fdd'), "options.hvp='fdd'.*did you mean 'fd'"),
    (made('cure', squared='yes'), "options.squared='yes'"),
    (made('cure', power=1), "objective.options='power' is not known.*squared"),
    (made('hessian_penalty', draws=0), 'options.draws=0'),
    (made('ig_norm', points=0), 'options.points=0'),
    (made('ig_sum_norm', chunk=0), 'options.chunk=0'),
    (made('igr', robust='mart'), "options.robust='mart'"),
    (made('aat', method='gradients'), "options.method='gradients'"),
    (made('aat', method_options={'step': 3}), 'options.method_options'),
    (made('art', k=0), 'options.k=0'),
    (made('llr', slope=-1.0), 'options.slope=-1.0'),
    (made('scorpo'), "did you mean 'scorpio'"),
    (made('none', 1.0), "weight=1.0 must be 0 while objective.name='none'"),
    (made('none', 0.0, eps=1), "objective.options='eps' is not known"),
  ],
)
def test_bad_input_is_one_line_before_anything_is_traced(make, message):
  with pytest.raises(errors.InputError, match=message) as raised:
    make()
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  'name, model',
  [('hessian_penalty', 'cnn'), ('aat', 'mlp'), ('adv_aat', 'mlp')],
)
def test_a_piecewise_linear_network_is_refused_where_nothing_would_happen(
  name, model
):
  sizes = {'widths': (4,)} if model == 'mlp' else {'width': 2, 'depth': 2}
  _, batch = draw(jnp.float32)

  def run(activation, **options):
    module = models.build(model, activation=activation, num_classes=3, **sizes)
    params = jax.eval_shape(module.init, KEY, batch['image'])['params']
    loss_fn = OBJECTIVES[name](train.frozen(module, {}), CE, **options)
    jax.eval_shape(jax.jit(loss_fn), params, batch, KEY)

  run('gelu')
  with pytest.raises(errors.InputError, match='model.activation.*smooth'):
    run('relu')
  if name == 'hessian_penalty':
    run('relu', hvp='fd')
    run('relu', target='loss')


def test_one_program_serves_all_radii_and_weights():
  params, batch = draw(jnp.float32)
  apply_fn, _ = network()
  traces = []

  @jax.jit
  def run(weight, eps):
    traces.append(1)
    total = 0.0
    for name in ('fgsm', 'scorpio'):
      loss_fn = OBJECTIVES[name](apply_fn, CE, weight=weight, eps=eps)
      total += jnp.sum(loss_fn(params, batch, KEY)[0])
    return total

  found = {float(run(0.1 * i, 0.05 * i)) for i in range(3)}
  assert len(traces) == 1
  assert len(found) == 3


def precisions(loss_fn, params, batch):
  """Of all products that the loss and its gradient are traced with."""
  total = lambda p: jnp.sum(loss_fn(p, batch, KEY)[0])
  text = str(jax.make_jaxpr(jax.grad(total))(params))
  lines = [part for part in text.split('dot_general[')[1:]]
  return ['HIGHEST' in part.split(']\n')[0].split('] ')[0] for part in lines]


def test_an_objective_of_ones_own_is_traced_exactly(monkeypatch):
  """Unless it is listed as first-order, as plain training is."""

  def own(apply_fn, loss, *, weight=1.0):
    def loss_fn(params, batch, key):
      value = lambda x: jnp.sum(loss(apply_fn(params, x)[0], batch['label']))
      grad = jax.grad(value)(batch['image'])
      logits, out = apply_fn(params, batch['image'])
      term = jnp.sum(jnp.square(grad), (1, 2, 3))
      return loss(logits, batch['label']) + weight * term, out

    return loss_fn

  monkeypatch.setitem(OBJECTIVES, 'own', own)
  params, batch = draw(jnp.float32)
  apply_fn, _ = network()
  make = lambda name: objectives.make(name, CE, weight=1.0)(apply_fn)
  found = precisions(make('own'), params, batch)
  assert len(found) > 8 and all(found)
  monkeypatch.setattr(objectives, 'FIRST_ORDER', ('own',))
  assert not any(precisions(make('own'), params, batch))


def test_first_order_objectives_are_names_of_the_registry():
  assert set(objectives.FIRST_ORDER) < set(OBJECTIVES)
