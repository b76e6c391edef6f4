"""Are rectifiers known in any form, and nothing else taken for one?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from implicit_attr import attribution, errors, models, train
from implicit_attr.attribution import graph
from implicit_attr.models.features import elu1

B, N, CLASSES = 3, 6, 2
Y = jnp.array([0, 1, 1])

FORMS = {
  'max(z, 0)': lambda z: jnp.maximum(z, 0),
  'max(0, z)': lambda z: jnp.maximum(0.0, z),
  'max(z, zeros)': lambda z: jnp.maximum(z, jnp.zeros_like(z)),
  'where(z > 0, z, 0)': lambda z: jnp.where(z > 0, z, 0),
  'where(z <= 0, 0, z)': lambda z: jnp.where(z <= 0, 0.0, z),
  'where(z > 0, z, zeros)': lambda z: jnp.where(z > 0, z, jnp.zeros_like(z)),
  'select': lambda z: jax.lax.select(z >= 0, z, jnp.zeros_like(z)),
  'clip(z, 0, None)': lambda z: jnp.clip(z, 0, None),
  'clamp': lambda z: jax.lax.clamp(0.0, z, jnp.inf),
  'z (z > 0)': lambda z: z * (z > 0),
  'flax': nn.relu,
  'vmap': jax.vmap(lambda z: jnp.where(z > 0, z, 0)),
  'jit': jax.jit(lambda z: jnp.maximum(z, 0)),
}
OTHERS = {
  'relu6': (
    jax.nn.relu6,
    [
      lambda z: jnp.clip(z, 0, 6), lambda z: jnp.minimum(jnp.maximum(z, 0), 6),
      lambda z: jnp.where(z > 0, jnp.where(z > 6, 6.0, z), 0.0),
    ],
  ),
  'leaky_relu': (
    lambda z: jax.nn.leaky_relu(z, 0.1),
    [
      lambda z: jnp.where(z > 0, z, 0.1 * z), lambda z: jnp.maximum(z, 0.1 * z),
    ],
  ),
}  # fmt: skip
METHODS = ('guided_backprop', 'deconvnet', 'deeplift', 'lrp_epsilon')


def layers(*acts, scale=1.0):
  def network(params, x):
    for act, w in zip(acts, params['w'], strict=True):
      x = act(scale * x @ w + params['b'][None])
    return x @ params['v'], {}

  return network


@pytest.fixture
def problem(x64):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  params = {'w': (draw(N, N), draw(N, N)), 'b': draw(N), 'v': draw(N, CLASSES)}
  return params, 3 * draw(B, N)


def kinds(network, params, x):
  """How many rectifiers there are; the network with them is the network."""
  seen = []
  rule = lambda i, fun, *args: seen.append(i) or fun(*args)
  logits, _ = graph.with_rectifiers(network, rule)(params, x)
  np.testing.assert_array_equal(logits, network(params, x)[0])
  return len(seen)


@pytest.mark.parametrize('form', FORMS)
def test_a_relu_in_any_form_beside_one_of_jax_gives_the_same_maps(
  problem, form
):
  params, x = problem
  mixed = layers(jax.nn.relu, FORMS[form])
  assert kinds(mixed, params, x) == 2
  for name in METHODS:
    method = attribution.METHODS[name]
    wanted = method(layers(jax.nn.relu, jax.nn.relu), params, x, Y)
    found = method(mixed, params, x, Y)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('name', OTHERS)
def test_the_other_two_are_known_in_any_form_and_as_one(problem, name):
  params, x = problem
  act, forms = OTHERS[name]
  for form in forms:
    mixed = layers(act, form, scale=2.0)
    assert kinds(mixed, params, x) == 2
    for method in METHODS:
      wanted, found = (
        attribution.METHODS[method](network, params, x, Y)
        for network in (layers(act, act, scale=2.0), mixed)
      )
      np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('form', FORMS)
def test_deeplift_is_complete_however_the_second_relu_is_written(problem, form):
  params, x = problem
  network = layers(jax.nn.relu, FORMS[form])
  a = attribution.deeplift(network, params, x, Y)
  logit = lambda x: network(params, x)[0][jnp.arange(B), Y]
  np.testing.assert_allclose(a.sum(1), logit(x) - logit(0 * x), rtol=1e-10)


UNKNOWN = {
  'max': lambda z: jnp.maximum(z, 0.3),
  'min': lambda z: jnp.minimum(z, 0.0),
  'clip': lambda z: jnp.clip(z, -1, 1),
  'in two parts': lambda z: jnp.maximum(z, 0) + 0.1 * jnp.minimum(z, 0),
  'hard_tanh': jax.nn.hard_tanh,
  'abs by max': lambda z: jnp.maximum(z, -z),
  'gate': lambda z: jnp.where(z > 0, z, jnp.roll(z, 1, axis=1)),
  'bound of the weights': lambda z: jnp.maximum(z, z.shape[0] * z[::-1]),
}


@pytest.mark.parametrize('form', UNKNOWN)
def test_a_kink_of_unknown_meaning_is_named_and_refused(problem, form):
  params, x = problem
  network = layers(jax.nn.relu, UNKNOWN[form])
  with pytest.raises(errors.InputError, match='unknown meaning') as error:
    attribution.guided_backprop(network, params, x, Y)
  said = str(error.value)
  assert any(name in said for name in ('max', 'min', 'clamp', 'select_n'))
  assert '\n' not in said


def test_a_floor_that_is_learned_is_of_unknown_meaning(problem):
  params, x = problem
  floored = lambda params, x: (
    jax.nn.relu(jnp.maximum(x, params['b'][None])),
    {},
  )
  with pytest.raises(errors.InputError, match='max of unknown meaning'):
    attribution.guided_backprop(floored, params, x, Y)


LEFT = {
  'elu + 1': elu1,
  'pairs': lambda z: jnp.repeat(jnp.maximum(z[:, ::2], z[:, 1::2]), 2, axis=1),
  'length': lambda z: z / jnp.maximum(jnp.sum(z**2, 1, keepdims=True), 1e-6),
  'softmax': lambda z: jax.nn.softmax(z),
  'log-sum': lambda z: jnp.logaddexp(z, 0.0),
  'masked': lambda z: jnp.where(jnp.arange(N)[None] > 2, z, 0.0),
  'held': lambda z: z - jax.lax.stop_gradient(jnp.maximum(z, 0.3)),
  'norm': lambda z: nn.LayerNorm(use_scale=False, use_bias=False).apply({}, z),
}


@pytest.mark.parametrize('form', LEFT)
def test_what_is_no_rectifier_is_left_as_it_is(problem, form):
  params, x = problem
  network = layers(jax.nn.relu, LEFT[form])
  assert kinds(network, params, x) == 1


def test_max_pooling_is_left_as_it_is(problem):
  _, x = problem
  images = jnp.tile(x[:, :, None, None], (1, 1, N, 1))

  def network(params, x):
    x = nn.max_pool(jnp.maximum(x, 0), (2, 2), (2, 2))
    return x.reshape(B, -1)[:, :CLASSES], {}

  assert kinds(network, None, images) == 1


def test_what_the_logits_do_not_use_does_not_count(problem):
  params, x = problem

  def network(params, x):
    logits, _ = layers(jax.nn.relu, jax.nn.relu)(params, x)
    return logits, {'other': jnp.clip(jax.nn.relu(x), 0.2, 0.7)}

  assert kinds(network, params, x) == 2


def test_rectifiers_by_value_inside_of_loops_are_refused(problem):
  params, x = problem

  def looped(params, x):
    step = lambda h, w: (FORMS['where(z > 0, z, 0)'](h @ w), None)
    return jax.lax.scan(step, jax.nn.relu(x), jnp.stack(params['w']))[0], {}

  with pytest.raises(errors.InputError, match='rectifiers in scan'):
    attribution.guided_backprop(looped, params, x, Y)

  @jax.custom_jvp
  def own(z):
    return jnp.maximum(z, 0)

  own.defjvps(lambda t, _, z: t * (z > 0))
  with pytest.raises(errors.InputError, match='rectifiers in custom_jvp_call'):
    attribution.guided_backprop(layers(jax.nn.relu, own), params, x, Y)


# Surrogates


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('mlp', {'widths': (8, 8)}),
    ('cnn', {'width': 4, 'depth': 2, 'hidden': 8}),
    ('madry', {'width': 2, 'hidden': 4}),
    ('resnet8', {'width': 4, 'norm': 'group'}),
    ('vit', {'width': 8, 'heads': 2, 'attention': 'linear'}),
  ],
)
def test_a_softened_network_is_the_twin_with_softplus(name, options):
  module = models.build(name, num_classes=3, activation='relu', **options)
  x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
  params = jax.jit(module.init)(jax.random.key(1), x)['params']
  twin = train.frozen(module.clone(activation='softplus'), {})
  soft = graph.softened(train.frozen(module, {}))
  traces = []

  @jax.jit
  def both(beta):
    traces.append(beta)
    apply = lambda x: module.clone(activation='softplus').apply(
      {'params': params}, x, beta=beta
    )[0]
    value = lambda fun: jax.value_and_grad(lambda x: jnp.sum(fun(x)[:, 0]))(x)
    return value(apply), value(lambda x: soft(params, x, beta)[0])

  for beta in (2.0, 30.0):
    (logits, slope), (found, found_slope) = both(beta)
    np.testing.assert_allclose(found, logits, rtol=1e-5)
    scale = np.abs(slope).max()
    np.testing.assert_allclose(found_slope / scale, slope / scale, atol=1e-5)
  assert len(traces) == 1
  del twin


def test_softened_forms_tend_to_what_they_were(problem):
  params, x = problem
  for _, forms in (*OTHERS.values(), (None, list(FORMS.values()))):
    for form in forms:
      network = layers(jax.nn.relu, form)
      wanted, _ = network(params, x)
      gaps = [
        np.abs(graph.softened(network)(params, x, beta)[0] - wanted).max()
        for beta in (10.0, 1e4)
      ]
      assert gaps[0] > 100 * gaps[1] and gaps[1] < 1e-3


def test_a_softened_network_keeps_what_it_does_not_understand(problem):
  params, x = problem
  network = layers(jax.nn.relu, jax.nn.hard_tanh)
  found, _ = graph.softened(network)(params, x, 1e6)
  np.testing.assert_allclose(found, network(params, x)[0], atol=1e-5)
  with pytest.raises(errors.InputError, match='with rectifiers'):
    graph.softened(layers(jnp.tanh, jnp.tanh))(params, x, 1.0)
