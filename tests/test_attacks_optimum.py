"""Does the attack follow the true gradient, and reach known optima?"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, errors
from implicit_attr.attacks import map_losses, step_rules

KEY = jax.random.key(1)
SHAPE = (3, 3, 1)


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def affine(q, b):
  """The map Q x + b of the logit ½ xᵀQx + bᵀx, and a label that never flips."""

  def explain(x, y):
    flat = x.reshape(x.shape[0], -1) @ q + b[None]
    return flat.reshape(x.shape)

  return explain, lambda x: jnp.ones((x.shape[0], 1)) * jnp.arange(2.0)[None]


def test_the_l2_attack_reaches_the_top_singular_value_of_a_quadratic(x64):
  q = draw(9, 9)
  explain, predict = affine(q + q.T, draw(9, seed=1))
  x, y = jnp.full((2, *SHAPE), 0.5), jnp.zeros(2, jnp.int32)
  result = attacks.attack_attribution(
    KEY,
    explain,
    predict,
    x,
    y,
    eps=0.1,
    norm='l2',
    objective='l2',
    select='objective',
    steps=300,
    step_size=10.0,  # far beyond the ball: projected power iteration
    restarts=2,
  )
  want = -0.1 * np.linalg.norm(q + q.T, 2)
  np.testing.assert_allclose(result.score, want, rtol=1e-9)
  found = attacks.worst_sensitivity(
    KEY, explain, x, y, radius=0.1, norm='l2', steps=300, step_size=10.0
  )
  np.testing.assert_allclose(found.value, -want, rtol=1e-9)


def test_the_linf_topk_attack_reaches_the_corner_that_is_optimal(x64):
  explain, predict = affine(np.eye(9), np.zeros(9))
  x = jnp.linspace(0.2, 0.8, 9).reshape(1, *SHAPE)
  eps, k = 0.05, 3
  result = attacks.attack_attribution(
    KEY,
    explain,
    predict,
    x,
    jnp.zeros(1, jnp.int32),
    eps=eps,
    k=k,
    objective='topk',
    select='objective',
    rule='sign',
    restarts=1,
  )
  flat = np.linspace(0.2, 0.8, 9)
  inside = flat[-k:].sum() - k * eps
  want = inside / (inside + flat[:-k].sum() + (9 - k) * eps)
  np.testing.assert_allclose(result.score, want, rtol=1e-9)
  far = np.where(np.arange(9) < 9 - k, eps, -eps).reshape(x.shape)
  np.testing.assert_allclose(result.x_adv - x, far, atol=1e-12)


def test_worst_lipschitz_of_a_quadratic_is_its_spectral_norm(x64):
  q = draw(9, 9, seed=3)
  explain, _ = affine(q + q.T, np.zeros(9))
  x, y = jnp.full((2, *SHAPE), 0.5), jnp.zeros(2, jnp.int32)
  run = functools.partial(
    attacks.worst_sensitivity, KEY, explain, x, y, radius=0.2, norm='l2'
  )
  found = run(quantity='lipschitz', steps=200, step_size=0.02)
  top = np.linalg.norm(q + q.T, 2)
  assert np.all(found.value <= top * (1 + 1e-9))
  np.testing.assert_allclose(found.value, top, rtol=1e-3)
  relative = run(quantity='relative', steps=3)
  plain = run(quantity='distance', steps=3)
  size = np.linalg.norm(np.asarray(explain(x, y)).reshape(2, -1), axis=1)
  np.testing.assert_allclose(relative.value * size, plain.value)


def test_no_attack_moves_the_map_of_a_linear_network():
  explain, predict = affine(jnp.zeros((9, 9)), jnp.arange(9.0))
  x, y = jnp.full((2, *SHAPE), 0.5), jnp.zeros(2, jnp.int32)
  with pytest.warns(UserWarning, match='exactly zero for 2 of 2'):
    result = attacks.attack_attribution(
      KEY, explain, predict, x, y, eps=0.1, steps=2
    )
  np.testing.assert_array_equal(result.score, 1)
  found = attacks.worst_sensitivity(KEY, explain, x, y, radius=0.1, steps=2)
  np.testing.assert_array_equal(found.value, 0)
  assert np.all(result.stalled) and np.all(found.stalled)


def curved(beta, classes=3, seed=0):
  """Gradient × input of a two-layer softplus network, whole or cut.

  Cut, the gradient factor is a constant to automatic differentiation, as in
  libraries that detach it.
  """
  first = jax.random.normal(jax.random.key(seed), (32, 16)) / 4
  second = jax.random.normal(jax.random.key(seed + 1), (16, classes)) / 4

  def predict(x):
    hidden = 4 * x.reshape(x.shape[0], -1) @ first
    return jax.nn.softplus(beta * hidden) / beta @ second

  def slope(x, y):
    picked = lambda x: jnp.sum(predict(x) * jax.nn.one_hot(y, classes))
    return jax.grad(picked)(x)

  explain = lambda x, y: x * slope(x, y)
  cut = lambda x, y, _: x * jax.lax.stop_gradient(slope(x, y))
  return explain, cut, predict


def test_the_true_gradient_beats_the_detached_one():
  explain, cut, predict = curved(10.0)
  x = jax.random.uniform(KEY, (16, 4, 4, 2))
  y = jnp.argmax(predict(x), -1)
  run = jax.jit(
    functools.partial(
      attacks.attack_attribution,
      explain=explain,
      predict=predict,
      eps=0.05,
      k=4,
      steps=20,
      restarts=1,
    ),
    static_argnames='surrogate',
  )
  true, detached = run(KEY, x=x, y=y), run(KEY, x=x, y=y, surrogate=cut)
  assert true.score.mean() < detached.score.mean() - 0.05


def test_the_gradient_of_the_objectives_equals_finite_differences(x64):
  explain, _, _ = curved(2.0)
  x = jax.random.uniform(KEY, (2, 4, 4, 2), minval=0.2, maxval=0.8)
  y = jnp.array([0, 1])
  clean = explain(x, y)
  target = {
    'target_region': jnp.zeros((2, 4, 4), bool).at[:, :2].set(True),
    'target_map': clean[::-1],
  }
  made = [
    map_losses.make(name, clean, k=4, key=KEY, target=target.get(name))
    for name in map_losses.OBJECTIVES
    if name != 'border'  # its weights are constants to gradients
  ]

  # One gradient of a sum in which every objective weighs about the same.
  z = x + 0.05 * jnp.asarray(draw(*x.shape, seed=4))
  weights = [1 / jnp.sum(jnp.abs(loss(explain(z, y)))) for loss in made]

  @jax.jit
  def total(z):
    b = explain(z, y)
    parts = [w * jnp.sum(f(b)) for w, f in zip(weights, made, strict=True)]
    return jnp.sum(jnp.stack(parts))

  v = jnp.asarray(draw(*x.shape, seed=5))
  slope, h = jnp.sum(jax.jit(jax.grad(total))(z) * v), 1e-6
  want = (total(z + h * v) - total(z - h * v)) / (2 * h)
  np.testing.assert_allclose(slope, want, rtol=1e-6)


def test_objectives_are_what_their_definitions_say(x64):
  a, b = (jnp.asarray(draw(1, 4, 4, 2, seed=s)) for s in (6, 7))
  weigh = lambda m: np.abs(m).sum(-1)[0] / np.abs(m).sum()
  p, q = weigh(np.asarray(a)), weigh(np.asarray(b))
  top = p >= np.sort(p.ravel())[-4]
  grid = np.mgrid[:4, :4]
  shift = ((q - p) * grid).sum((1, 2))
  region = np.zeros((1, 4, 4), bool)
  region[:, :2] = True
  scale = np.abs(b).sum() / np.abs(a).sum()
  u, v = np.asarray(a).ravel(), np.asarray(b).ravel()
  want = {
    'topk': q[top].sum(),
    'topk_gap': (q[top].sum() - q[~top].sum()) * scale,
    'mass_centre': -np.square(shift).sum(),
    'target_region': -q[:2].sum(),
    'target_map': np.square(q - p).sum(),
    'cosine': u @ v / np.linalg.norm(u) / np.linalg.norm(v),
    'pearson': np.corrcoef(u, v)[0, 1],
    'l1': -np.abs(u - v).sum(),
    'l2': -np.linalg.norm(u - v),
  }
  size = np.abs(np.asarray(b)).sum(-1)[0]
  least, most = (
    size[q >= np.sort(q.ravel())[-4]].min(),
    np.sort(size.ravel())[-5],
  )
  u = 2 * size / (least + most) - 1
  weighed = np.exp(-np.abs(u) / 0.1) * u
  want['border'] = weighed[top].sum() - weighed[~top].sum()
  for name, value in want.items():
    target = {'target_region': region, 'target_map': a}.get(name)
    loss = map_losses.make(name, a, k=4, key=KEY, target=target)
    np.testing.assert_allclose(loss(b), [value], err_msg=name)
  soft = map_losses.make('diffkendall', a, k=4, key=KEY)
  first, second = np.asarray(jax.random.randint(KEY, (2, 5000), 0, 16))
  order = lambda m: np.tanh(
    20 * (m.ravel()[first] - m.ravel()[second]) / m.max()
  )
  np.testing.assert_allclose(soft(b), [np.mean(order(p) * order(q))])


def test_symmetric_objectives_move_only_from_a_random_start():
  explain, _, predict = curved(10.0)
  x = jax.random.uniform(KEY, (2, 4, 4, 2))
  y = jnp.argmax(predict(x), -1)
  loss = map_losses.make('mass_centre', explain(x, y), k=4, key=KEY)
  grad = jax.jit(jax.grad(lambda z: jnp.sum(loss(explain(z, y)))))(x)
  np.testing.assert_allclose(grad, 0, atol=1e-6)
  result = attacks.attack_attribution(
    KEY,
    explain,
    predict,
    x,
    y,
    eps=0.05,
    objective='mass_centre',
    select='objective',
    steps=4,
    restarts=1,
  )
  assert np.all(result.score < result.clean_score)
  assert not np.any(result.stalled)


@pytest.mark.parametrize(
  'rule, select',
  [
    ('sign', 'cosine'),
    ('normalised', 'kendall'),
    ('adam', 'spearman'),
    ('momentum', 'cosine'),
  ],
)
def test_every_step_rule_lowers_every_measure(rule, select):
  explain, _, predict = curved(10.0)
  x = jax.random.uniform(KEY, (2, 4, 4, 2))
  y = jnp.argmax(predict(x), -1)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    result = attacks.attack_attribution(
      KEY,
      explain,
      predict,
      x,
      y,
      eps=0.05,
      objective='cosine',
      select=select,
      rule=rule,
      steps=5,
      restarts=1,
    )
  np.testing.assert_allclose(result.clean_score, 1, atol=1e-6)
  assert np.all(result.score < 1)


def test_maps_of_tokens_are_attacked_and_have_no_centre():
  _, _, predict = curved(10.0)
  weights = jnp.asarray(draw(32, 7, seed=8), jnp.float32)
  explain = lambda x, y: jax.nn.softmax(x.reshape(x.shape[0], -1) @ weights)
  x = jax.random.uniform(KEY, (2, 4, 4, 2))
  y = jnp.argmax(predict(x), -1)
  run = functools.partial(
    attacks.attack_attribution, KEY, explain, predict, x, y, eps=0.1, steps=5
  )
  result = run(k=3, objective='topk', select='objective')
  assert np.all(result.score < result.clean_score)
  with pytest.raises(errors.InputError, match='mass_centre'):
    run(objective='mass_centre')


def test_the_default_attack_is_stronger_than_signs_of_top_k_mass():
  explain, _, predict = curved(10.0)
  x = jax.random.uniform(KEY, (32, 4, 4, 2))
  y = jnp.argmax(predict(x), -1)

  def score(**options):
    run = lambda x: attacks.attack_attribution(
      KEY, explain, predict, x, y, eps=0.03, k=4, steps=20, restarts=2,
      **options,
    )  # fmt: skip
    return jax.jit(run)(x).score.mean()

  assert score() < score(objective='topk', rule='sign') - 0.04


def test_momentum_steps_fall_from_the_radius_to_nearly_none():
  sizes = step_rules.default_size(
    'linf', jnp.float32(0.1), 50, (0, 1), 'momentum'
  )
  assert sizes.shape == (50,) and np.all(np.diff(sizes) < 0)
  np.testing.assert_allclose(sizes[0], 0.102, rtol=1e-5)
  np.testing.assert_allclose(sizes[25], 0.1 * 0.52, rtol=1e-5)
  grad = jnp.array([[3.0, -1.0]])
  state = step_rules.init(grad)
  _, state = step_rules.direction('momentum', 'linf', grad, state)
  move, state = step_rules.direction('momentum', 'linf', -grad / 3, state)
  np.testing.assert_allclose(state.first, -0.5 * grad / 2, rtol=1e-5)
  np.testing.assert_array_equal(move, -jnp.sign(grad))


def test_betas_follow_the_radius_as_a_share_of_the_box():
  schedule = lambda norm, eps, high=1.0: np.asarray(
    step_rules.default_betas(norm, jnp.float32(eps), 5, (0.0, high))
  )
  for eps, first in ((0.01, 10), (0.05, 10), (0.25, 2)):
    found = schedule('linf', eps)
    np.testing.assert_allclose(found[[0, -1]], [first, 5 / eps], rtol=1e-5)
    np.testing.assert_allclose(
      found[1:] / found[:-1], found[1] / found[0], 1e-5
    )
    np.testing.assert_allclose(schedule('linf', 255 * eps, 255.0), found, 1e-5)
  assert np.all(np.isfinite(schedule('linf', 0.0)))
  np.testing.assert_allclose(schedule('l2', 0.5)[[0, -1]], [10, 100], rtol=1e-5)
