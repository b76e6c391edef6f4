"""Are attacks right where networks are sure, maps tiny or dead, logits one?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, errors
from implicit_attr.attacks import inputs, map_losses, margins, measures, search

KEY = jax.random.key(0)
B, SHAPE, CLASSES, EPS = 3, (4, 4, 1), 3, 0.1
DRAW = np.random.default_rng(0)
W = jnp.asarray(DRAW.normal(size=(16, 8)), jnp.float32)
V = jnp.asarray(DRAW.normal(size=(8, CLASSES)), jnp.float32)
X = jnp.asarray(DRAW.uniform(size=(B, *SHAPE)), jnp.float32)


def predict(x):
  """Sums in the same order for every image, whatever the batch."""
  hidden = jnp.tanh(jnp.sum(x.reshape(len(x), 16, 1) * W[None], 1))
  return jnp.sum(hidden[..., None] * V[None], 1)


def explain(x, y):
  picked = lambda x: jnp.sum(predict(x) * jax.nn.one_hot(y, CLASSES))
  return jax.grad(picked)(x)


Y = jnp.argmax(predict(X), -1)
ON_LABELS = {
  'pgd': lambda predict, x, y, **kw: attacks.pgd(
    KEY, predict, x, y, steps=5, **kw
  ),
  'fgsm': attacks.fgsm,
  'apgd': lambda predict, x, y, **kw: attacks.apgd(
    KEY, predict, x, y, steps=8, **kw
  ),
  'square': lambda predict, x, y, **kw: attacks.square(
    KEY, predict, x, y, queries=20, **kw
  ),
}
ON_MAPS = {
  'attack_attribution': functools.partial(
    attacks.attack_attribution, steps=4, restarts=2
  ),
  'attack_black_box': functools.partial(attacks.attack_black_box, queries=20),
  'random_sign': attacks.random_sign,
  'random_sign_walk': functools.partial(attacks.random_sign_walk, steps=4),
}
ALL = (*ON_LABELS, *ON_MAPS, 'worst_sensitivity')


def attack(name, predict=predict, x=X, y=Y, **options):
  options = {'eps': EPS, **options}
  if name in ON_LABELS:
    return ON_LABELS[name](predict, x, y, **options)
  if name == 'worst_sensitivity':
    radius = options.pop('eps')
    return attacks.worst_sensitivity(
      KEY, explain, x, y, radius=radius, steps=4, **options
    )
  options = {'k': 4, 'select': 'cosine', **options}
  return ON_MAPS[name](KEY, explain, predict, x, y, **options)


@pytest.mark.parametrize('clean', [5, 20, 60, 300])
@pytest.mark.parametrize('name', ['fgsm', 'pgd', 'apgd'])
def test_a_sure_network_falls_as_far_as_one_in_doubt(name, clean):
  # Linear, two classes: the least margin is that of the corner.
  w = np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)
  d = w[:, 0] - w[:, 1]
  bias = jnp.array([[clean - 0.5 * d.sum(), 0]], jnp.float32)
  linear = lambda x: x.reshape(len(x), 16) @ jnp.asarray(w) + bias
  x, y = jnp.full((1, *SHAPE), 0.5), jnp.zeros(1, int)
  result = jax.jit(lambda x: attack(name, linear, x, y, loss='ce'))(x)
  np.testing.assert_allclose(
    result.margin, [clean - EPS * np.abs(d).sum()], rtol=1e-4
  )
  assert not np.any(result.stalled)


def test_log_odds_have_the_slopes_of_float64_at_any_margin():
  z = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
  z[np.arange(4), np.arange(4)] += [0, 10, 40, 200]
  y = np.arange(4)
  with jax.enable_x64(True):
    rest = np.exp(z.astype(np.float64))
    rest[np.arange(4), y] = 0
    want = -rest / rest.sum(1, keepdims=True)
    want[np.arange(4), y] = 1
  total = lambda z: jnp.sum(margins.log_odds(z, jnp.asarray(y)))
  np.testing.assert_allclose(jax.grad(total)(z), want, rtol=1e-5, atol=1e-30)


def losses(name, a):
  target = {'target_region': np.arange(16).reshape(1, 4, 4) % 3 == 0}
  target = np.tile(target['target_region'], (len(a), 1, 1))
  given = {'target_region': target, 'target_map': a[::-1]}.get(name)
  return map_losses.make(name, a, k=4, key=KEY, target=given)


@pytest.mark.parametrize('name', map_losses.OBJECTIVES)
def test_an_objective_is_free_of_scale_and_of_loud_neighbours(name):
  draw = np.random.default_rng(4)
  a, b = draw.normal(size=(2, 3, *SHAPE)).astype(np.float32)
  scale = np.array([1e-20, 1, 1e20], np.float32)
  wide = scale[:, None, None, None]

  def both(a, b):
    loss = losses(name, a)
    return loss(b), jax.grad(lambda b: jnp.sum(loss(b)))(b)

  value, slope = both(jnp.asarray(a), jnp.asarray(b))
  got_value, got_slope = both(jnp.asarray(a * wide), jnp.asarray(b * wide))
  if name in ('l1', 'l2'):  # in the units of the maps
    value = value * scale
    slope = slope * wide
  np.testing.assert_allclose(got_value, value, rtol=1e-5)
  np.testing.assert_allclose(got_slope * wide, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', map_losses.OBJECTIVES)
def test_maps_of_bytes_are_attacked_as_their_values(name):
  a, b = DRAW.integers(0, 256, (2, 2, *SHAPE)).astype(np.uint8)
  want = losses(name, a.astype(np.float32))(jnp.asarray(b, jnp.float32))
  np.testing.assert_array_equal(losses(name, a)(jnp.asarray(b)), want)


@pytest.mark.parametrize('objective', ['topk', 'cosine', 'pearson'])
@pytest.mark.parametrize('select', measures.MEASURES)
def test_an_undefined_similarity_leaves_x_alone_and_harms_no_other(
  select, objective
):
  alive = jnp.array([0.0, 1, 1])[:, None, None, None]
  dead = lambda x, y: alive * explain(x, y)
  run = jax.jit(  # silent about the one that stalls
    lambda x: attacks.attack_attribution(
      KEY, dead, predict, x, Y, eps=EPS, k=4, steps=3, restarts=1,
      objective=objective, select=select,
    )
  )  # fmt: skip
  result = run(X)
  assert np.isnan(result.score[0]) and np.isnan(result.clean_score[0])
  np.testing.assert_array_equal(result.x_adv[0], X[0])
  assert np.isfinite(result.x_adv).all()
  assert np.all(result.score[1:] <= 1) and result.score[1] < 1
  assert not np.any(result.stalled[1:])


def test_a_score_that_is_undefined_on_the_way_is_never_the_best():
  yes = jnp.ones(B, bool)
  best = search.Best(X, jnp.full(B, 0.5), ~yes, ~yes)
  kept = search.keep(best, X + 1, search.Verdict(jnp.full(B, jnp.nan), yes))
  np.testing.assert_array_equal(kept.x, X)
  np.testing.assert_array_equal(kept.score, 0.5)


@pytest.mark.parametrize('name', [*ON_LABELS, *ON_MAPS])
def test_a_single_logit_is_refused_with_the_mend(name):
  one = lambda x: predict(x)[:, :1]
  with pytest.raises(errors.InputError, match=r'logits.shape.*\[0, z\]'):
    attack(name, one, y=Y * 0)
  with pytest.raises(errors.InputError, match=r'logits.shape=\(3,\)'):
    attack(name, lambda x: one(x)[:, 0], y=Y * 0)
  with pytest.raises(errors.InputError, match='y=3 must be labels < 3'):
    attack(name, y=Y * 0 + 3)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
@pytest.mark.parametrize('name', ALL)
def test_what_is_found_for_an_image_does_not_depend_on_its_place(
  name, norm, x64
):
  # In float64: a comparison that rounding decides sends a search elsewhere.
  x = jnp.asarray(X, 'float64')
  run = jax.jit(lambda x, y: attack(name, x=x, y=y, norm=norm).x_adv)
  together = run(x, Y)
  np.testing.assert_allclose(run(x[::-1], Y[::-1])[::-1], together, atol=1e-9)
  np.testing.assert_allclose(run(x[1:2], Y[1:2]), together[1:2], atol=1e-9)
  moved = np.asarray(together - x).reshape(B, -1)
  order = np.inf if norm == 'linf' else 2
  assert 0 < np.linalg.norm(moved, order, axis=1).max() <= EPS + 1e-9


def test_images_draw_from_their_own_pixels_alone():
  keys = lambda x: jax.random.key_data(attacks.inputs.images.keys(KEY, x))
  all_keys = np.asarray(keys(X))
  assert len(np.unique(all_keys, axis=0)) == B
  np.testing.assert_array_equal(keys(X[1:]), all_keys[1:])
  for i in range(16):  # a change of any one pixel is another image
    moved = X.reshape(B, 16).at[:, i].multiply(1.001).reshape(X.shape)
    assert np.all(np.any(keys(moved) != all_keys, -1))


@pytest.mark.parametrize('name', ALL)
def test_a_radius_beyond_the_range_of_a_pixel_is_refused(name):
  with pytest.raises(errors.InputError, match=r'eps=8.0 .*8/255'):
    attack(name, eps=8)
  with pytest.raises(errors.InputError, match=r'x.shape=\(0, '):
    attack(name, x=X[:0], y=Y[:0])


def test_only_balls_of_pixel_ranges_are_held_to_that_of_the_box():
  check = functools.partial(inputs.check, X, Y)
  check(eps=8, norm='l2', bounds=(0, 1))
  check(eps=8, norm='l0', bounds=(0, 1))
  check(eps=8, norm='linf', bounds=(0, 255))
  with pytest.raises(errors.InputError, match='eps=8.0'):
    check(eps=8, norm='patch', bounds=(0, 1))


def test_numbers_of_numpy_are_counts_and_radii():
  given = {'eps': np.float32(EPS), 'steps': np.int64(2)}
  found = attacks.pgd(KEY, predict, X, Y, restarts=np.int32(1), **given)
  want = attacks.pgd(KEY, predict, X, Y, restarts=1, eps=EPS, steps=2)
  np.testing.assert_allclose(found.x_adv, want.x_adv, atol=1e-6)
  attack('random_sign', k=np.float32(0.25))


@pytest.mark.parametrize('scale', [1e-20, 1e20])
@pytest.mark.parametrize('quantity', ['distance', 'relative', 'lipschitz'])
def test_the_worst_case_of_a_tiny_map_is_that_of_the_map(quantity, scale):
  scaled = lambda x, y: jnp.float32(scale) * explain(x, y)
  run = lambda explain: attacks.worst_sensitivity(
    KEY, explain, X, Y, radius=EPS, quantity=quantity, steps=5
  )
  want, got = run(explain), run(scaled)
  size = 1 if quantity == 'relative' else scale
  np.testing.assert_allclose(got.value / size, want.value, rtol=1e-3)
  assert not np.any(got.stalled)
