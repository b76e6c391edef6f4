"""Are the modified backward rules right?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors, models
from implicit_attr.attribution import graph, rectifiers

B, N, CLASSES = 4, 6, 3


def layers(act):
  def network(params, x):
    h = act(x @ params['a'] + params['b'][None])
    h = act(h @ params['c'])
    return h @ params['d'], {}

  return network


relu = layers(jax.nn.relu)


@pytest.fixture
def problem(x64):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  params = {
    'a': draw(N, 7), 'b': draw(7), 'c': draw(7, 5), 'd': draw(5, CLASSES),
  }  # fmt: skip
  return params, draw(B, N), jnp.array([0, 2, 1, 2])


def by_hand(params, x, y, rule):
  """rule(signal, z) at each of the two rectifiers, in numpy."""
  a, b, c, d = (np.asarray(params[k]) for k in 'abcd')
  z1 = np.asarray(x) @ a + b
  z2 = np.maximum(z1, 0) @ c
  signal = rule(d.T[np.asarray(y)], z2)
  return rule(signal @ c.T, z1) @ a.T


HANDS = {
  'gradient': lambda s, z: s * (z > 0),
  'guided_backprop': lambda s, z: np.maximum(s, 0) * (z > 0),
  'deconvnet': lambda s, z: np.maximum(s, 0),
}


@pytest.mark.parametrize('name', HANDS)
def test_signals_pass_as_their_papers_say(problem, name):
  params, x, y = problem
  found = attribution.METHODS[name](relu, params, x, y)
  wanted = by_hand(params, x, y, HANDS[name])
  np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def test_deeplift_sums_to_the_change_of_the_logit(problem):
  params, x, y = problem
  base = jnp.linspace(-1, 1, N)
  found = attribution.deeplift(relu, params, x, y, baseline=base)
  logits = relu(params, x)[0] - relu(params, base[None])[0]
  np.testing.assert_allclose(found.sum(1), logits[np.arange(B), y], rtol=1e-10)


def test_deeplift_passes_the_slope_of_the_chord(problem):
  params, x, y = problem
  a, b, c, d = (np.asarray(params[k]) for k in 'abcd')
  r = lambda z: np.maximum(z, 0)
  z1, o1 = np.asarray(x) @ a + b, b[None]
  z2, o2 = r(z1) @ c, r(o1) @ c
  m2 = d.T[np.asarray(y)] * (r(z2) - r(o2)) / (z2 - o2)
  m1 = m2 @ c.T * (r(z1) - r(o1)) / (z1 - o1)
  found = attribution.deeplift(relu, params, x, y)
  np.testing.assert_allclose(found, x * (m1 @ a.T), rtol=1e-9)


def test_deeplift_at_the_baseline_is_zero_and_finite(problem):
  params, x, y = problem
  fun = lambda z: attribution.deeplift(relu, params, z, y, baseline=x)
  slope = jax.grad(lambda z: fun(z).sum())(x)
  assert not np.any(fun(x)) and np.all(np.isfinite(slope))


def test_deeplift_can_follow_a_baseline_that_depends_on_x(problem):
  params, x, y = problem
  smooth = layers(jax.nn.softplus)

  def score(x):
    a = attribution.deeplift(smooth, params, x, y, baseline=jnp.sin(x))
    return jnp.sum(a**2)

  move = jnp.cos(3 * x)
  wanted = (score(x + 1e-5 * move) - score(x - 1e-5 * move)) / 2e-5
  found = jnp.vdot(jax.grad(score)(x), move)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_lrp_without_epsilon_is_gradient_times_input(problem):
  params, x, y = problem
  found = attribution.lrp_epsilon(relu, params, x, y, epsilon=0.0)
  wanted = attribution.gradient_x_input(relu, params, x, y)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_lrp_absorbs_epsilon_at_every_layer(problem):
  params, x, y = problem
  a, b, c, d = (np.asarray(params[k]) for k in 'abcd')
  r = lambda z: np.maximum(z, 0)
  z1 = np.asarray(x) @ a + b
  z2 = r(z1) @ c
  z3 = r(z2) @ d
  keep = lambda z: z + 0.1 * np.sign(z)
  relevance = np.where(np.arange(CLASSES) == np.asarray(y)[:, None], z3, 0)
  relevance = r(z2) * ((relevance / keep(z3)) @ d.T)
  relevance = r(z1) * ((relevance / keep(z2)) @ c.T)
  relevance = np.asarray(x) * ((relevance / keep(z1)) @ a.T)
  found = attribution.lrp_epsilon(relu, params, x, y, epsilon=0.1)
  np.testing.assert_allclose(found, relevance, rtol=1e-10, atol=1e-14)


RULED = (
  'guided_backprop', 'deconvnet', 'deeplift', 'lrp_epsilon', 'lrp_gamma',
  'lrp_zplus',
)  # fmt: skip


@pytest.mark.parametrize('name', RULED)
def test_the_softplus_surrogate_tends_to_relu(problem, name):
  params, x, y = problem
  # An epsilon > 0 is in units of beta z for a surrogate.
  options = {'epsilon': 0.0} if name == 'lrp_epsilon' else {}
  fun = functools.partial(attribution.METHODS[name], **options)
  wanted = fun(relu, params, x, y)
  gaps = []
  for beta in (10.0, 100.0, 3000.0):
    soft = layers(lambda z: models.centred_softplus(z, beta))
    found = fun(soft, params, x, y)
    gaps.append(np.abs(found - wanted).max() / np.abs(wanted).max())
  if name == 'deconvnet':
    assert max(gaps) < 1e-12  # it never looks at the rectifier
  else:
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-3


def test_calls_are_seen_through(problem):
  params, x, y = problem

  def mapped(params, x):
    one = lambda x: relu(params, x[None])[0][0]
    return jax.vmap(one)(x), {}

  wanted = attribution.guided_backprop(relu, params, x, y)
  for network in (jax.jit(relu), jax.checkpoint(relu), mapped):
    found = attribution.guided_backprop(network, params, x, y)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_every_named_rectifier_is_recognised(problem):
  _, x, _ = problem
  for name in rectifiers.NAMES:
    seen = []

    def rule(i, fun, *args):
      seen.append(i)
      return fun(*args)

    network = lambda params, x: (getattr(jax.nn, name)(x), {})
    found, _ = graph.with_rectifiers(network, rule)(None, x)
    np.testing.assert_array_equal(found, getattr(jax.nn, name)(x))
    assert seen == [0], name


def test_the_zero_floor_of_a_variance_is_no_rectifier(problem):
  _, x, _ = problem
  seen = []

  def network(params, x):
    var = jnp.maximum(0.0, (x**2).mean(1, keepdims=True))
    return jax.nn.relu(x) / jnp.sqrt(var), {}

  rule = lambda i, fun, x: seen.append(x.shape) or fun(x)
  graph.with_rectifiers(network, rule)(None, x)
  assert seen == [x.shape]


def test_a_network_whose_rectifiers_are_out_of_reach_is_refused(problem):
  params, x, y = problem

  def looped(params, x):
    step = lambda h, w: (jax.nn.relu(h @ w), None)
    return jax.lax.scan(step, x, jnp.ones((2, N, N)))[0], {}

  with pytest.raises(errors.InputError, match='scan'):
    attribution.guided_backprop(looped, params, x, y)
  with pytest.raises(errors.InputError, match='rectifiers'):
    attribution.guided_backprop(layers(jnp.tanh), params, x, y)


@pytest.mark.parametrize(
  ('name', 'method', 'options'),
  [
    ('cnn', 'guided_grad_cam', {'depth': 2}),
    ('resnet8', 'deeplift', {'norm': 'group'}),
  ],
)
def test_networks_of_flax_need_nothing_special(name, method, options):
  module = models.build(name, num_classes=3, width=8, **options)
  x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
  params = jax.jit(module.init)(jax.random.key(1), x)
  apply_fn = lambda params, x: module.apply(params, x)
  y = jnp.array([1])
  fun = lambda x: attribution.METHODS[method](apply_fn, params, x, y)
  a = jax.jit(fun)(x)
  assert a.shape == x.shape and np.all(np.isfinite(a)) and np.any(a != 0)
