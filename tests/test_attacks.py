"""Does the attack on maps keep its guarantees on a small smooth network?"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, errors, similarity

B, SHAPE, CLASSES = 4, (5, 5, 2), 3
K = 5
KEY = jax.random.key(0)


def network(activation, seed=0):
  """(explain, predict) of a two-layer network; the map is a logit's gradient.

  Labels flip easily, so that the label rule has work to do.
  """
  first, second = (
    jax.random.normal(jax.random.key(seed + n), shape) / shape[0] ** 0.5
    for n, shape in enumerate([(50, 12), (12, CLASSES)])
  )

  def predict(x):
    hidden = activation(3 * x.reshape(x.shape[0], -1) @ first - 0.5)
    return hidden @ second

  def explain(x, y):
    picked = lambda x: jnp.sum(predict(x) * jax.nn.one_hot(y, CLASSES))
    return jax.grad(picked)(x)

  return explain, predict


EXPLAIN, PREDICT = network(lambda u: jax.nn.softplus(5 * u) / 5)
X = jax.random.uniform(jax.random.key(9), (B, *SHAPE), minval=0.02)
Y = jnp.argmax(PREDICT(X), -1)
MASK = np.zeros(SHAPE[:2], bool)
MASK[1:4, 2:] = True


@functools.cache
def attack(**options):
  """The attack compiled once for each set of static options."""

  def run(key, x, y, eps, step_size):
    return attacks.attack_attribution(
      key,
      EXPLAIN,
      PREDICT,
      x,
      y,
      eps=eps,
      step_size=step_size,
      k=K,
      **{'steps': 12, 'restarts': 2, **options},
      mask=MASK if options.get('norm') == 'patch' else None,
    )

  return jax.jit(run)


RADII = {'linf': 0.1, 'l2': 0.5, 'l0': 4.0, 'patch': 0.3}


@pytest.fixture(scope='module', params=RADII)
def attacked(request):
  norm = request.param
  step = 0.5 if norm == 'l0' else RADII[norm] / 4
  return norm, attack(norm=norm)(KEY, X, Y, RADII[norm], step)


def test_the_attacked_image_is_inside_the_ball(attacked):
  norm, result = attacked
  delta = np.asarray(result.x_adv - X, np.float64)
  assert np.abs(delta).max() > 0
  if norm == 'l0':
    changed = np.any(delta != 0, -1).sum((1, 2))
    assert changed.max() <= RADII[norm]
    return
  size = np.abs(delta).max((1, 2, 3))
  if norm == 'l2':
    size = np.sqrt(np.square(delta).sum((1, 2, 3)))
  if norm == 'patch':
    assert not np.any(delta[:, ~MASK])
  assert size.max() <= RADII[norm] + 1e-6


def test_the_attacked_image_is_inside_the_pixel_box(attacked):
  _, result = attacked
  assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1


def test_the_attacked_image_keeps_the_predicted_label(attacked):
  _, result = attacked
  np.testing.assert_array_equal(jnp.argmax(PREDICT(result.x_adv), -1), Y)
  assert np.all(result.kept)


def test_the_score_is_that_of_the_true_network(attacked):
  _, result = attacked
  clean, found = (
    similarity.magnitude(EXPLAIN(x, Y)) for x in (X, result.x_adv)
  )
  want = similarity.topk_intersection(clean, found, K)
  np.testing.assert_allclose(result.score, want, atol=1e-6)
  np.testing.assert_allclose(result.clean_score, 1)


def test_the_best_score_never_rises_and_ends_at_the_result(attacked):
  _, result = attacked
  assert result.curve.shape == (12, B)
  assert np.all(np.diff(result.curve, axis=0) <= 0)
  assert np.all(np.asarray(result.curve) <= 1)
  np.testing.assert_array_equal(result.curve[-1], result.score)
  np.testing.assert_array_equal(result.restart_score.min(0), result.score)
  assert result.score.min() < 1 and not np.any(result.stalled)


@pytest.mark.parametrize('norm', RADII)
def test_a_ball_without_radius_returns_the_image_itself(norm):
  result = attack(norm=norm)(KEY, X, Y, 0.0, 0.1)
  np.testing.assert_array_equal(result.x_adv, X)
  np.testing.assert_array_equal(result.score, 1)
  assert np.all(result.kept) and not np.any(result.stalled)


def test_more_steps_never_worsen_the_score():
  few = attack(norm='linf')(KEY, X, Y, 0.1, 0.01)
  many = attack(steps=25)(KEY, X, Y, 0.1, 0.01)
  np.testing.assert_array_equal(many.curve[:12], few.curve)
  assert np.all(many.score <= few.score)


def test_more_restarts_never_worsen_the_score():
  few = attack(norm='linf')(KEY, X, Y, 0.1, 0.02)
  many = attack(restarts=4)(KEY, X, Y, 0.1, 0.02)
  np.testing.assert_array_equal(many.restart_score[:2], few.restart_score)
  assert np.any(many.restart_score[2] != many.restart_score[3])
  assert np.all(many.score <= few.score)


def test_the_same_key_gives_the_same_attack():
  run = attack(norm='linf')
  np.testing.assert_array_equal(
    run(KEY, X, Y, 0.1, 0.02).x_adv, run(KEY, X, Y, 0.1, 0.02).x_adv
  )


def test_the_attack_beats_random_signs_of_the_same_size():
  found = attack(steps=25)(KEY, X, Y, 0.1, 0.01).score.mean()
  for name in ('random_sign', 'random_sign_walk'):
    noise = getattr(attacks, name)
    other = noise(KEY, EXPLAIN, PREDICT, X, Y, eps=0.1, k=K)
    assert found < other.score.mean() - 0.1, name


def test_new_radii_steps_and_betas_do_not_recompile():
  traces = []

  def smooth(x, y, beta):
    traces.append(beta)
    act = lambda u: jax.nn.softplus(beta * u) / beta
    return network(act)[0](x, y)

  @jax.jit
  def run(eps, step_size, low, high):
    return attacks.attack_attribution(
      KEY,
      EXPLAIN,
      PREDICT,
      X,
      Y,
      eps=eps,
      step_size=step_size,
      betas=(low, high),
      surrogate=smooth,
      steps=4,
      restarts=1,
    ).x_adv

  one = run(0.1, 0.01, 10.0, 100.0)
  count = len(traces)
  other = run(0.05, 0.02, 5.0, 50.0)
  assert len(traces) == count and np.any(one != other)


def test_a_relu_network_stalls_and_the_warning_says_what_to_do():
  explain, predict = network(jax.nn.relu)
  y = jnp.argmax(predict(X), -1)
  with pytest.warns(UserWarning, match='surrogate='):
    result = attacks.attack_attribution(
      KEY, explain, predict, X, y, eps=0.05, k=K, steps=3, restarts=1
    )
  assert np.all(result.stalled)


def test_a_smooth_surrogate_attacks_the_relu_network_itself():
  explain, predict = network(jax.nn.relu)
  y = jnp.argmax(predict(X), -1)

  def smooth(x, y, beta):
    act = lambda u: jax.nn.softplus(beta * u) / beta
    return network(act)[0](x, y)

  run = functools.partial(
    attacks.attack_attribution, KEY, explain, predict, X, y, eps=0.1, k=K
  )
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    without = run(steps=12, restarts=1)
  # So smooth that its own map is another one.
  with_it = run(steps=12, restarts=1, surrogate=smooth, betas=(1.0, 3.0))
  own = run(steps=12, restarts=1, surrogate=smooth)
  given = run(steps=12, restarts=1, surrogate=smooth, betas=(5.0, 50.0))
  np.testing.assert_array_equal(own.x_adv, given.x_adv)  # 0.5 and 5 over eps
  assert not np.any(with_it.stalled)
  assert with_it.score.mean() < without.score.mean()
  clean, found = (
    similarity.magnitude(explain(x, y)) for x in (X, with_it.x_adv)
  )
  want = similarity.topk_intersection(clean, found, K)
  np.testing.assert_allclose(with_it.score, want, atol=1e-6)


def test_rejection_never_returns_another_label_and_penalty_may():
  reject = attack(norm='linf')(KEY, X, Y, 0.5, 0.1)
  both = attack(label_rule='both')(KEY, X, Y, 0.5, 0.1)
  for result in (reject, both):
    label = jnp.argmax(PREDICT(result.x_adv), -1)
    np.testing.assert_array_equal(label, Y)
  free = attack(label_rule='penalty', penalty=0.0)(KEY, X, Y, 0.5, 0.1)
  same = jnp.argmax(PREDICT(free.x_adv), -1) == Y
  np.testing.assert_array_equal(free.kept, same)
  assert not np.all(same)  # or the rule had nothing to do in this test


def test_without_an_admissible_image_the_image_itself_is_returned():
  # Only X itself has the label 0.
  odd = lambda z: jax.nn.one_hot(jnp.any(z != X, (1, 2, 3)).astype(int), 3)
  result = attacks.attack_attribution(
    KEY, EXPLAIN, odd, X, Y, eps=0.1, k=K, steps=3, restarts=1
  )
  assert not np.any(result.kept)
  np.testing.assert_array_equal(result.x_adv, X)
  np.testing.assert_array_equal(result.score, result.clean_score)


@pytest.mark.parametrize('norm', RADII)
def test_projection_is_idempotent_and_random_starts_need_none(norm):
  mask = MASK if norm == 'patch' else None
  space = attacks.balls.ball(X, eps=RADII[norm], norm=norm, mask=mask)
  far = X + jax.random.normal(KEY, X.shape)
  once = attacks.balls.project(space, far)
  again = attacks.balls.project(space, once)
  np.testing.assert_allclose(again, once, atol=1e-6)
  start = attacks.balls.random_start(KEY, space)
  again = attacks.balls.project(space, start)
  np.testing.assert_allclose(again, start, atol=1e-6)
  assert np.all(np.any(start != X, (1, 2, 3)))


BAD = {
  'x.shape': {'x': X[0]},
  'y.shape': {'y': Y[:2]},
  'y': {'y': Y + CLASSES},
  'x': {'x': X + 1},
  'x.shape ': {'x': X[:0], 'y': Y[:0]},
  'x ': {'x': X.at[0, 0, 0, 0].set(jnp.nan)},
  'k': {'k': 26},
  'eps': {'eps': -0.1},
  'eps ': {'eps': 8},
  'norm': {'norm': 'l3'},
  'objective': {'objective': 'top'},
  'select': {'select': 'tau'},
  'label_rule': {'label_rule': 'none'},
  'rule': {'rule': 'newton'},
  'steps': {'steps': 0},
  'restarts': {'restarts': 0},
  'mask.shape': {'norm': 'patch'},
  'mask': {'mask': MASK},
  'target.shape': {'objective': 'target_map'},
  'target': {'target': MASK},
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_ends_with_one_line_that_names_it(name):
  given = {'x': X, 'y': Y, 'eps': 0.1, 'k': K, **BAD[name]}
  x, y = given.pop('x'), given.pop('y')
  with pytest.raises(errors.InputError) as caught:
    attacks.attack_attribution(KEY, EXPLAIN, PREDICT, x, y, **given)
  assert str(caught.value).startswith(f'{name.strip()}=')
  assert '\n' not in str(caught.value)
