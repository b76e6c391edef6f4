"""Do blind and gradient-free attacks keep the guarantees of the others?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks

KEY = jax.random.key(5)
B, SHAPE, EPS, K = 4, (5, 5, 1), 0.1, 5
FIRST = jax.random.normal(jax.random.key(6), (25, 16)) / 2
SECOND = jax.random.normal(jax.random.key(7), (16, 3)) / 4
X = jax.random.uniform(jax.random.key(8), (B, *SHAPE))


def predict(x):
  return jax.nn.relu(x.reshape(x.shape[0], -1) @ FIRST) @ SECOND


def explain(x, y):
  """A map with no useful gradient: ReLU, and rounded."""
  picked = lambda x: jnp.sum(predict(x) * jax.nn.one_hot(y, 3))
  return jnp.round(64 * jax.grad(picked)(x)) / 64


Y = jnp.argmax(predict(X), -1)
BLIND = ('random_sign', 'random_sign_walk')


def call(name, **options):
  options = {'eps': EPS, 'k': K, **options}
  return getattr(attacks, name)(KEY, explain, predict, X, Y, **options)


@pytest.mark.parametrize('name', BLIND)
def test_blind_changes_stay_in_the_ball_and_keep_the_label_or_say_so(name):
  result = call(name)
  assert np.abs(result.x_adv - X).max() <= EPS + 1e-6
  assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
  np.testing.assert_array_equal(jnp.argmax(predict(result.x_adv), -1), Y)
  moved = np.any(np.asarray(result.x_adv != X), (1, 2, 3))
  assert not np.any(moved & ~np.asarray(result.kept))
  assert np.all(result.score <= result.clean_score)


def test_random_sign_has_the_full_size():
  x_adv = attacks.random_sign(
    KEY, explain, predict, X * 0 + 0.5, Y, eps=EPS, k=K
  ).x_adv
  moved = np.abs(x_adv - 0.5)
  kept = moved.max((1, 2, 3)) > 0
  np.testing.assert_allclose(moved[kept], EPS, atol=1e-6)


def test_random_sign_under_l2_has_length_eps():
  flat = lambda x: jnp.ones((x.shape[0], 3)) * jnp.arange(3.0)[None]
  x_adv = attacks.random_sign(
    KEY, explain, flat, X * 0 + 0.5, Y, eps=EPS, norm='l2', k=K
  ).x_adv
  size = np.linalg.norm((x_adv - 0.5).reshape(B, -1), axis=1)
  np.testing.assert_allclose(size, EPS, rtol=1e-5)


def test_a_change_that_flips_the_label_is_replaced_by_the_image():
  odd = lambda z: jax.nn.one_hot(jnp.any(z != X, (1, 2, 3)).astype(int), 3)
  result = attacks.random_sign(KEY, explain, odd, X, Y, eps=EPS, k=K)
  assert not np.any(result.kept)
  np.testing.assert_array_equal(result.x_adv, X)
  np.testing.assert_array_equal(result.score, 1)


@pytest.fixture(scope='module')
def black_box():
  run = functools.partial(
    attacks.attack_black_box, explain=explain, predict=predict, k=K
  )
  return jax.jit(
    run, static_argnames=('norm', 'queries', 'restarts', 'objective')
  )


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_the_black_box_attack_works_where_there_is_no_gradient(black_box, norm):
  eps = EPS if norm == 'linf' else 0.5
  result = black_box(KEY, x=X, y=Y, eps=eps, norm=norm, queries=120)
  delta = np.asarray(result.x_adv - X).reshape(B, -1)
  order = np.inf if norm == 'linf' else 2
  assert np.linalg.norm(delta, order, axis=1).max() <= eps + 1e-6
  assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
  np.testing.assert_array_equal(jnp.argmax(predict(result.x_adv), -1), Y)
  assert np.all(np.diff(result.curve, axis=0) <= 0)
  assert result.curve.shape == (120, B)
  noise = call('random_sign', norm=norm, eps=eps)
  assert result.score.mean() < noise.score.mean() - 0.1


def test_the_black_box_attack_at_radius_zero_is_the_identity(black_box):
  result = black_box(KEY, x=X, y=Y, eps=0.0, norm='linf', queries=120)
  np.testing.assert_array_equal(result.x_adv, X)
  np.testing.assert_array_equal(result.score, 1)
