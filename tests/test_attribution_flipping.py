"""Is pixel flipping what its paper defines?"""

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


def test_an_unknown_order_is_refused(problem):
  params, x, a = problem
  with pytest.raises(errors.InputError, match='order'):
    attribution.pixel_flipping(linear, params, x, Y, a, order='mrf')
