"""Are infidelity, sensitivity-n and pixel flipping what their papers define?"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors

B, H, W, C, CLASSES = 3, 4, 5, 2, 3
Y = jnp.array([0, 2, 1])


def linear(params, x):
  return x.reshape(x.shape[0], -1) @ params['w'] + params['b'][None], {}


def curved(params, x):
  logits, _ = linear(params, jnp.sin(3 * x))
  return logits**2, {}


@pytest.fixture
def problem(x64):
  rng = np.random.default_rng(0)
  params = {
    'w': jnp.asarray(rng.normal(size=(H * W * C, CLASSES))),
    'b': jnp.asarray(rng.normal(size=CLASSES)),
  }
  x = jnp.asarray(rng.uniform(0.1, 1, size=(B, H, W, C)))
  return params, x, jnp.asarray(rng.normal(size=x.shape))


def logit(network, params, x, y=Y):
  return np.asarray(network(params, x)[0])[np.arange(len(y)), y]


# Infidelity


def changes_of(kind, x):
  if kind == 'squares':
    return attribution.squares(x, window=2, baseline=0.3)
  return attribution.noisy_baselines(jax.random.key(0), x, draws=9)


@pytest.mark.parametrize('kind', ['squares', 'noise'])
def test_infidelity_of_the_weights_of_a_linear_network_is_zero(problem, kind):
  params, x, noise = problem
  changes = changes_of(kind, x)
  score = lambda a: np.asarray(
    attribution.infidelity(linear, params, x, Y, a, changes)
  )
  weights = attribution.gradient(linear, params, x, Y)
  assert score(weights).max() < 1e-25
  assert score(weights + 0.1 * noise).min() > 1e-3
  product = attribution.gradient_x_input(linear, params, x, Y)
  assert score(product).min() > 1e-3
  assert score(attribution.per_unit(product, x)).max() < 1e-25


@pytest.mark.parametrize('scaled', [False, True])
def test_infidelity_is_the_mean_over_a_loop(problem, scaled):
  params, x, a = problem
  changes = changes_of('noise', x)
  found = attribution.infidelity(
    curved, params, x, Y, a, changes, scaled=scaled
  )
  lost = np.array([
    logit(curved, params, x) - logit(curved, params, x - change)
    for change in changes
  ])  # fmt: skip
  foretold = np.array([(c * a).sum((1, 2, 3)) for c in changes])
  if scaled:
    # One number per example, by least squares.
    for b in range(B):
      best = np.linalg.lstsq(foretold[:, b : b + 1], lost[:, b], rcond=None)[0]
      foretold[:, b] *= best
  wanted = np.mean((foretold - lost) ** 2, axis=0)
  np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_the_scale_of_a_map_does_not_matter_when_scaled(problem):
  params, x, a = problem
  changes = changes_of('squares', x)
  score = lambda a, **kw: attribution.infidelity(
    curved, params, x, Y, a, changes, **kw
  )
  one, other = (score(s * a, scaled=True) for s in (1, -7))
  np.testing.assert_allclose(one, other, rtol=1e-9)
  assert np.all(one <= score(a) + 1e-12)
  # A map of zeros foretells nothing; it has no scale that is better.
  zero = score(0 * a, scaled=True)
  np.testing.assert_allclose(zero, score(0 * a), rtol=1e-12)


def test_changes_may_be_shared_by_all_examples(problem):
  params, x, a = problem
  shared = jax.random.normal(jax.random.key(1), (4, 1, H, W, C))
  whole = jnp.broadcast_to(shared, (4, *x.shape))
  one, other = (
    attribution.infidelity(curved, params, x, Y, a, changes)
    for changes in (shared, whole)
  )
  np.testing.assert_allclose(one, other, rtol=1e-12)


def test_every_square_is_removed_once(problem):
  _, x, _ = problem
  found = attribution.squares(x, window=3, stride=2, baseline=0.25)
  wanted = []
  for i, j in itertools.product((0,), (0, 2)):
    change = np.zeros(x.shape)
    change[:, i : i + 3, j : j + 3] = x[:, i : i + 3, j : j + 3] - 0.25
    wanted.append(change)
  np.testing.assert_allclose(found, wanted)
  # All squares of one pixel give back the difference, each pixel once.
  single = attribution.squares(x, window=1, baseline=0.25)
  assert len(single) == H * W
  np.testing.assert_allclose(single.sum(0), x - 0.25)


def test_noisy_baselines_end_at_noise_around_the_baseline(problem):
  _, x, _ = problem
  changes = attribution.noisy_baselines(
    jax.random.key(0), x, draws=4000, sigma=0.5, baseline=0.3
  )
  rest = x[None] - changes
  np.testing.assert_allclose(rest.mean(0), 0.3, atol=0.05)
  np.testing.assert_allclose(rest.std(0), 0.5, rtol=0.06)


# Sensitivity-n


def test_a_linear_network_is_foretold_for_every_n(problem):
  params, x, noise = problem
  a = attribution.gradient_x_input(linear, params, x, Y)
  for n in (1, 7, H * W - 1):
    subsets = attribution.random_subsets(jax.random.key(n), (H, W), n, draws=30)
    score = lambda a: attribution.sensitivity_n(
      linear, params, x, Y, a, subsets
    )
    np.testing.assert_allclose(score(a), 1, rtol=1e-9)
    np.testing.assert_allclose(score(-2 * a), -1, rtol=1e-9)
    assert np.abs(score(noise)).max() < 0.99


def test_sensitivity_n_is_the_correlation_over_a_loop(problem):
  params, x, a = problem
  subsets = attribution.random_subsets(jax.random.key(0), (H, W), 6, draws=25)
  found = attribution.sensitivity_n(
    curved, params, x, Y, a, subsets, target='log_prob', baseline=0.2
  )
  log_prob = lambda x: np.asarray(
    jax.nn.log_softmax(curved(params, x)[0])
  )[np.arange(B), Y]  # fmt: skip
  foretold, lost = [], []
  for subset in np.asarray(subsets):
    without = np.array(x)
    without[:, subset] = 0.2
    lost.append(log_prob(x) - log_prob(jnp.asarray(without)))
    foretold.append(np.asarray(a)[:, subset].sum((1, 2)))
  for b in range(B):
    wanted = np.corrcoef(np.array(foretold)[:, b], np.array(lost)[:, b])[0, 1]
    assert found[b] == pytest.approx(wanted, rel=1e-9)


def test_sensitivity_n_of_sums_that_do_not_vary_is_nan(problem):
  params, x, a = problem
  some = attribution.random_subsets(jax.random.key(0), (H, W), 6, draws=25)
  whole = attribution.random_subsets(jax.random.key(0), (H, W), H * W, draws=5)
  score = lambda a, subsets: attribution.sensitivity_n(
    curved, params, x, Y, a, subsets
  )
  constant = jnp.full((B, H, W), 0.1)
  assert np.all(np.isnan(score(constant, some)))
  assert np.all(np.isnan(score(a, whole)))
  assert np.all(np.isfinite(score(constant.at[:, 0, 0].add(1e-6), some)))


def test_random_subsets_have_exactly_n_pixels():
  subsets = jax.jit(
    lambda n: attribution.random_subsets(
      jax.random.key(0), (H, W), n, draws=2000
    )
  )
  for n in (0, 1, 13, H * W):
    found = subsets(n)
    assert found.shape == (2000, H, W) and found.dtype == bool
    assert np.all(found.sum((1, 2)) == n)
    np.testing.assert_allclose(found.mean(0), n / (H * W), atol=0.06)


# Pixel flipping


@pytest.mark.parametrize('order', ['morf', 'lerf'])
def test_pixels_are_flipped_one_by_one_by_their_sign(problem, order):
  params, x, a = problem
  found = attribution.pixel_flipping(
    curved, params, x, Y, a, order=order, baseline=0.1
  )
  assert found.shape == (B, H * W + 1)
  for b in range(B):
    sums = np.asarray(a[b]).sum(-1).ravel()
    assert sums.min() < 0 < sums.max()
    left, wanted = np.array(x[b : b + 1]), []
    for pixel in [None, *np.argsort(-sums if order == 'morf' else sums)]:
      if pixel is not None:
        left[0, pixel // W, pixel % W] = 0.1
      wanted += [logit(curved, params, jnp.asarray(left), Y[b : b + 1])[0]]
    np.testing.assert_allclose(found[b], wanted, rtol=1e-9)
    area = np.mean(wanted[0] - np.array(wanted))
    assert attribution.flipping_area(found)[b] == pytest.approx(area)


def test_groups_are_every_other_point_of_the_whole_curve(problem):
  params, x, a = problem
  whole, half = (
    attribution.pixel_flipping(curved, params, x, Y, a, steps=steps)
    for steps in (None, H * W // 2)
  )
  np.testing.assert_allclose(half, whole[:, ::2], rtol=1e-12)


def test_flipping_differs_from_deletion_where_a_map_has_both_signs(problem):
  params, x, _ = problem
  a = attribution.gradient_x_input(linear, params, x, Y)
  positive = jnp.abs(a).sum(-1)
  curve = lambda a: attribution.pixel_flipping(
    linear, params, x, Y, a, steps=10
  )
  kwargs = {'target': 'logit', 'steps': 10}
  area = attribution.deletion_auc(linear, params, x, Y, positive, **kwargs)
  by_hand = lambda c: np.trapezoid(c, dx=0.1, axis=1)
  np.testing.assert_allclose(by_hand(curve(positive)), area, rtol=1e-10)
  # Of all orders the signed one lowers a linear logit fastest.
  assert np.all(by_hand(curve(a)) < area - 1e-6)


def test_the_best_order_has_the_largest_area_and_its_reverse_the_smallest(
  problem,
):
  params, x, _ = problem
  a = attribution.gradient_x_input(linear, params, x, Y)
  area = lambda a, order: np.asarray(
    attribution.flipping_area(
      attribution.pixel_flipping(linear, params, x, Y, a, order=order)
    )
  )
  most, least = area(a, 'morf'), area(a, 'lerf')
  for key in jax.random.split(jax.random.key(0), 4):
    other = area(jax.random.normal(key, x.shape), 'morf')
    assert np.all(least < other) and np.all(other < most)
  np.testing.assert_allclose(area(-a, 'morf'), least, rtol=1e-9)


def test_bad_input_names_the_argument(problem):
  params, x, a = problem
  subsets = jnp.zeros((4, H, W), bool)
  infidelity = lambda a, changes: attribution.infidelity(
    linear, params, x, Y, a, changes
  )
  sensitivity = lambda a, subsets: attribution.sensitivity_n(
    linear, params, x, Y, a, subsets
  )
  bad = [
    ('map', lambda: infidelity(a.sum(-1), x[None])),
    ('changes', lambda: infidelity(a, x)),
    ('changes', lambda: infidelity(a, x[None][:0])),
    ('map', lambda: sensitivity(a[:, 1:], subsets)),
    ('subsets.shape', lambda: sensitivity(a, subsets[:1])),
    ('subsets.shape', lambda: sensitivity(a, subsets[:, 1:])),
    ('subsets.dtype', lambda: sensitivity(a, subsets.astype(int))),
    ('window', lambda: attribution.squares(x, window=H + 1)),
    ('stride', lambda: attribution.squares(x, window=1, stride=0)),
    ('draws', lambda: attribution.noisy_baselines(None, x, draws=0)),
    (
      'order',
      lambda: attribution.pixel_flipping(linear, params, x, Y, a, order='mrf'),
    ),
  ]
  for named, call in bad:
    with pytest.raises(errors.InputError, match=named):
      call()
