"""Is relevance shared among inputs as the γ and z⁺ rules say?"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors, models
from implicit_attr.attribution import lrp

B, SIDE, C, D, HIDDEN, CLASSES = 3, 6, 2, 4, 5, 3
Y = jnp.array([0, 2, 1])
EDGE = (SIDE - 3) // 2 + 1


def convolved(x, w):
  return jax.lax.conv_general_dilated(
    x, w, (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def layers(act, bias=True):
  """One convolution and two dense layers."""
  shift = lambda z, b: z + b.reshape((1,) * (z.ndim - 1) + (-1,)) * bias

  def network(params, x):
    x = act(shift(convolved(x, params['k']), params['b0']))
    x = act(shift(x.reshape(x.shape[0], -1) @ params['v'], params['b1']))
    return shift(x @ params['w'], params['b2']), {}

  return network


relu = layers(jax.nn.relu)


@pytest.fixture
def problem(x64):
  rng = np.random.default_rng(0)
  params = {
    'k': rng.normal(size=(3, 3, C, D)) / 3,
    'b0': rng.normal(size=D) / 2,
    'v': rng.normal(size=(EDGE * EDGE * D, HIDDEN)) / 3,
    'b1': rng.normal(size=HIDDEN) / 2,
    'w': rng.normal(size=(HIDDEN, CLASSES)),
    'b2': rng.normal(size=CLASSES) / 2,
  }
  x = jnp.asarray(rng.normal(size=(B, SIDE, SIDE, C)))
  return jax.tree.map(jnp.asarray, params), x


METHODS = {
  'gamma 0.25': functools.partial(attribution.lrp_gamma, gamma=0.25),
  'gamma 3': functools.partial(attribution.lrp_gamma, gamma=3.0),
  'z plus': attribution.lrp_zplus,
}
WEIGHTS = {'gamma 0.25': (1, 0.25), 'gamma 3': (1, 3), 'z plus': (0, 1)}
each_method = pytest.mark.parametrize('name', METHODS)


def shares(parts, bias, base, gamma):
  """What each part of z = Σ parts + bias gets of a relevance of 1."""
  sign = 1 if sum(parts) + bias > 0 else -1
  weigh = lambda part: part * (base + gamma * (part * sign > 0))
  total = sum(map(weigh, parts)) + weigh(bias)
  return [weigh(part) / total for part in parts]


def by_loops(params, x, y, base, gamma):
  """One image, one contribution after the other."""
  p = {name: np.asarray(value) for name, value in params.items()}
  taps = [(i, j, c) for i in range(3) for j in range(3) for c in range(C)]
  places = [(i, j, d) for i in range(EDGE) for j in range(EDGE)
            for d in range(D)]  # fmt: skip
  patch = lambda i, j, d: [
    x[2 * i + m, 2 * j + n, c] * p['k'][m, n, c, d] for m, n, c in taps
  ]
  a1 = np.array([max(sum(patch(*at)) + p['b0'][at[2]], 0) for at in places])
  a2 = np.maximum(a1 @ p['v'] + p['b1'], 0)
  logit = a2 @ p['w'][:, y] + p['b2'][y]
  r2 = logit * np.array(shares(a2 * p['w'][:, y], p['b2'][y], base, gamma))
  r1 = np.zeros_like(a1)
  for k in range(HIDDEN):
    if a2[k] > 0:
      r1 += r2[k] * np.array(shares(a1 * p['v'][:, k], p['b1'][k], base, gamma))
  found = np.zeros_like(x)
  for at, r, a in zip(places, r1, a1, strict=True):
    if a > 0:
      parts = shares(patch(*at), p['b0'][at[2]], base, gamma)
      for (m, n, c), part in zip(taps, parts, strict=True):
        found[2 * at[0] + m, 2 * at[1] + n, c] += r * part
  return found


@each_method
def test_every_contribution_gets_its_share(problem, name):
  params, x = problem
  found = METHODS[name](relu, params, x, Y)
  logits = np.asarray(relu(params, x)[0])[np.arange(B), Y]
  assert logits.min() < 0 < logits.max()
  for b in range(B):
    wanted = by_loops(params, np.asarray(x[b]), int(Y[b]), *WEIGHTS[name])
    np.testing.assert_allclose(found[b], wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize('act', [jax.nn.relu, jax.nn.leaky_relu])
@each_method
def test_without_biases_relevance_sums_to_the_logit(problem, name, act):
  params, x = problem
  network = layers(act, bias=False)
  found = METHODS[name](network, params, x, Y).sum((1, 2, 3))
  logits = network(params, x)[0][np.arange(B), Y]
  np.testing.assert_allclose(found, logits, rtol=1e-11)


def test_without_gamma_it_is_the_epsilon_rule_with_a_vanishing_epsilon(problem):
  params, x = problem
  found = attribution.lrp_gamma(relu, params, x, Y, gamma=0.0)
  gaps = []
  for epsilon in (1e-3, 1e-6, 0.0):
    limit = attribution.lrp_epsilon(relu, params, x, Y, epsilon=epsilon)
    gaps.append(np.abs(found - limit).max() / np.abs(limit).max())
  assert gaps[0] > 100 * gaps[1] > 0 and gaps[2] < 1e-13


def test_a_growing_gamma_tends_to_z_plus(problem):
  params, x = problem
  limit = attribution.lrp_zplus(relu, params, x, Y)
  gap = lambda gamma: np.abs(
    attribution.lrp_gamma(relu, params, x, Y, gamma=gamma) - limit
  ).max()
  assert gap(1e3) / gap(1e6) == pytest.approx(1e3, rel=0.01)
  assert gap(1e12) < 1e-10


def test_z_plus_has_the_sign_of_the_logit(problem):
  params, x = problem
  signs = np.sign(relu(params, x)[0][np.arange(B), Y])
  found = attribution.lrp_zplus(relu, params, x, Y)
  assert np.all(found * signs[:, None, None, None] >= 0)
  mixed = attribution.lrp_gamma(relu, params, x, Y)
  assert np.any(mixed * signs[:, None, None, None] < 0)


FLAX = {
  'cnn': {'width': 4, 'depth': 2, 'hidden': 0},
  'resnet8': {'width': 4},
  'vit': {'width': 4, 'depth': 1, 'heads': 2},
}


@pytest.mark.parametrize('name', FLAX)
def test_networks_of_flax_need_nothing_special(name):
  module = models.build(name, num_classes=3, **FLAX[name])
  x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
  params = jax.jit(module.init)(jax.random.key(1), x)
  apply_fn = lambda params, x: module.apply(params, x)
  y = jnp.array([1])

  traces = []

  @jax.jit
  def fun(gamma):
    traces.append(gamma)
    return attribution.lrp_gamma(apply_fn, params, x, y, gamma=gamma)

  plain = attribution.gradient_x_input(apply_fn, params, x, y)
  np.testing.assert_allclose(fun(0.0), plain, rtol=1e-3, atol=1e-6)
  assert np.all(np.isfinite(fun(0.25))) and np.any(fun(0.25) != fun(0.0))
  assert len(traces) == 1


def test_both_convolutions_are_linear_layers(problem):
  _, x = problem
  params = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, C, CLASSES)))

  def of(conv):
    fun = lambda w, x: (jax.nn.relu(conv(x, w)).sum((1, 2)), {})
    return attribution.lrp_gamma(fun, params, x, Y)

  plain = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  ours = lambda x, w: models.conv.conv2d(x, w, 2)
  np.testing.assert_allclose(of(ours), of(plain), rtol=1e-10, atol=1e-14)


def test_calls_and_layouts_are_seen_through(problem):
  params, x = problem
  wanted = attribution.lrp_gamma(relu, params, x, Y)

  def mapped(params, x):
    one = lambda x: relu(params, x[None])[0][0]
    return jax.vmap(one)(x), {}

  def turned(params, x):
    x = jax.nn.relu(
      convolved(x, params['k']) + params['b0'].reshape(1, 1, 1, -1)
    )
    # Examples last, the weight first, the bias added after a transpose.
    x = (params['v'].T @ x.reshape(x.shape[0], -1).T).T + params['b1'][None]
    return jax.nn.relu(x) @ params['w'] + params['b2'][None], {}

  for network in (jax.jit(relu), jax.checkpoint(relu), mapped, turned):
    found = attribution.lrp_gamma(network, params, x, Y)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-13)


def test_products_of_two_things_that_move_pass_the_plain_gradient(problem):
  _, x = problem

  def network(params, x):
    x = x.reshape(x.shape[0], -1)
    return jnp.einsum('bi,bj->bij', x, x)[:, 0, :CLASSES] @ params, {}

  square = jnp.asarray(np.random.default_rng(2).normal(size=(CLASSES, CLASSES)))
  found = attribution.lrp_gamma(network, square, x, Y)
  # The last layer conserves the logit; the product passes it to both factors.
  logits = network(square, x)[0][np.arange(B), Y]
  np.testing.assert_allclose(found.sum((1, 2, 3)), 2 * logits, rtol=1e-10)


def test_layers_out_of_reach_are_refused(problem):
  params, x = problem

  def looped(params, x):
    x = x.reshape(x.shape[0], -1)
    step = lambda h, w: (jax.nn.relu(h @ w), None)
    return jax.lax.scan(step, x, jnp.ones((2, x.shape[1], x.shape[1])))[0], {}

  flat = lambda params, x: (x.sum((1, 2)) ** 2, {})
  with pytest.raises(errors.InputError, match='scan'):
    attribution.lrp_gamma(looped, params, x, Y)
  with pytest.raises(errors.InputError, match='linear layers'):
    attribution.lrp_zplus(flat, params, x, Y * 0)
  with pytest.raises(errors.InputError, match='gamma'):
    attribution.lrp_gamma(relu, params, x, Y, gamma=-1)


def test_a_layer_knows_its_positive_contributions(problem):
  params, x = problem
  seen = []

  def stand_in(layer):
    seen.append(layer)
    return layer.z

  logits, _ = lrp.with_layers(relu, stand_in)(params, x)
  np.testing.assert_allclose(logits, relu(params, x)[0], rtol=1e-12)
  parts = np.asarray(x)[0, :3, :3, :, None] * np.asarray(params['k'])
  positive = np.maximum(parts, 0).sum((0, 1, 2)) + np.maximum(params['b0'], 0)
  np.testing.assert_allclose(seen[0].positive[0, 0, 0], positive, rtol=1e-12)
  assert [math.prod(s.z.shape[1:]) for s in seen] == [
    EDGE * EDGE * D, HIDDEN, CLASSES,
  ]  # fmt: skip


@pytest.mark.parametrize('name', METHODS)
def test_a_bias_counts_however_it_is_written(problem, name):
  """x W - (-b) and b - (-x W) are x W + b."""
  params, x = problem
  forms = [
    lambda z, b: z + b, lambda z, b: b + z,
    lambda z, b: z - (-b), lambda z, b: b - (-z),
  ]  # fmt: skip

  def network(form, params, x):
    wide = lambda b, z: b.reshape((1,) * (z.ndim - 1) + (-1,))
    shift = lambda z, b: form(z, wide(b, z))
    x = jax.nn.relu(shift(convolved(x, params['k']), params['b0']))
    x = jax.nn.relu(shift(x.reshape(B, -1) @ params['v'], params['b1']))
    return shift(x @ params['w'], params['b2']), {}

  wanted, *found = (
    METHODS[name](functools.partial(network, form), params, x, Y)
    for form in forms
  )
  for a in found:
    np.testing.assert_allclose(a, wanted, rtol=1e-12, atol=1e-15)
