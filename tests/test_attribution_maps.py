"""Are reductions, controls and faithfulness numbers what they say they are?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors

A = np.array([[[[3.0, -4.0], [0.0, 0.0]], [[1.0, 1.0], [-2.0, 0.5]]]])


def test_reductions_are_what_their_names_say():
  a = jnp.asarray(A)
  wanted = {
    'sum_abs': [[7, 0], [2, 2.5]],
    'abs_sum': [[1, 0], [2, 1.5]],
    'max_abs': [[4, 0], [1, 2]],
    'l2': [[5, 0], [2**0.5, 4.25**0.5]],
  }
  for name, value in wanted.items():
    found = getattr(attribution, name)(a)
    np.testing.assert_allclose(found[0], value, rtol=1e-6)


def test_reductions_have_a_finite_gradient_where_the_map_is_zero():
  for name in ('sum_abs', 'abs_sum', 'max_abs', 'l2'):
    total = lambda a: getattr(attribution, name)(a).sum()
    assert np.all(np.isfinite(jax.grad(total)(jnp.zeros((1, 2, 2, 3)))))


# Controls


def additive(params, x):
  """One logit: a weighted sum of the pixels; the other is its negative."""
  score = jnp.sum(x * params[None], axis=(1, 2, 3))
  return jnp.stack([score, -score], axis=1), {}


@pytest.fixture
def images(x64):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.uniform(0.1, 1, size=(2, 5, 4, 2)))
  return jnp.asarray(rng.normal(size=(5, 4, 2))), x, jnp.array([0, 1])


def test_occlusion_by_one_pixel_is_the_share_of_the_pixel(images):
  params, x, y = images
  found = attribution.occlusion(additive, params, x, y, window=1, stride=1)
  signs = np.array([1, -1])[:, None, None]
  np.testing.assert_allclose(
    found.sum(-1), signs * (x * params[None]).sum(-1), rtol=1e-10
  )


def test_occlusion_is_the_mean_over_the_windows_that_cover_a_pixel(images):
  params, x, y = images
  found = attribution.occlusion(
    additive, params, x, y, window=3, stride=2, baseline=0.3
  )
  total, count = np.zeros((2, 5, 4)), np.zeros((5, 4))
  whole = np.asarray(additive(params, x)[0])[[0, 1], y]
  for i in (0, 2):
    for j in (0, 1):  # the last window ends at the edge
      covered = x.at[:, i : i + 3, j : j + 3].set(0.3)
      lost = whole - np.asarray(additive(params, covered)[0])[[0, 1], y]
      total[:, i : i + 3, j : j + 3] += lost[:, None, None]
      count[i : i + 3, j : j + 3] += 1
  np.testing.assert_allclose(found.sum(-1), total / count, rtol=1e-10)


def test_edges_of_a_ramp_are_its_slope_and_of_a_constant_zero(images):
  params, x, y = images
  ramp = jnp.broadcast_to(jnp.arange(4.0)[None, None, :, None], x.shape) / 3
  found = attribution.edges(additive, params, ramp, y)
  np.testing.assert_allclose(found[:, :, 1:3], 1 / 3, atol=1e-3)
  turned = attribution.edges(
    additive, params.swapaxes(0, 1), ramp.swapaxes(1, 2), y
  )
  np.testing.assert_allclose(turned, found.swapaxes(1, 2))
  flat = jnp.full_like(x, 0.7)
  slope = jax.grad(lambda x: attribution.edges(additive, params, x, y).sum())
  assert not np.any(attribution.edges(additive, params, flat, y))
  assert np.all(np.isfinite(slope(flat)))


# Faithfulness


def brightness(params, x):
  """logit_0 = the mean pixel, of all channels."""
  score = jnp.mean(x, axis=(1, 2, 3))
  return jnp.stack([score, jnp.zeros_like(score)], axis=1), {}


def test_the_curve_deletes_the_most_important_pixels_first(images):
  _, x, _ = images
  y = jnp.zeros(2, int)
  a = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
  found = attribution.replacement_curve(
    brightness, None, x, y, a, target='logit', steps=20
  )
  for b in range(2):
    left = np.array(x[b])
    order = np.argsort(-np.abs(a[b]).sum(-1).ravel(), kind='stable')
    wanted = [left.mean()]
    for pixel in order:
      left[pixel // 4, pixel % 4] = 0
      wanted.append(left.mean())
    np.testing.assert_allclose(found[b], wanted, rtol=1e-10, atol=1e-14)


def test_equal_pixels_leave_in_reading_order():
  x = jnp.arange(1.0, 5.0).reshape(1, 2, 2, 1)
  found = attribution.replacement_curve(
    brightness, None, x, jnp.array([0]), jnp.ones((1, 2, 2)).at[0, 1, 1].set(0),
    target='logit', steps=4,
  )  # fmt: skip
  np.testing.assert_allclose(found[0], np.array([10, 9, 7, 4, 0]) / 4)


def test_deletion_and_insertion_of_an_additive_network_add_up(images):
  """What is gone from one is in the other: exact for a linear score."""
  _, x, _ = images
  y = jnp.zeros(2, int)
  a = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
  both = [
    fun(brightness, None, x, y, a, target='logit', baseline=0.2, steps=7)
    for fun in (attribution.deletion_auc, attribution.insertion_auc)
  ]
  ends = np.mean(x, axis=(1, 2, 3)) + 0.2
  np.testing.assert_allclose(sum(both), ends, rtol=1e-10)


def test_the_best_map_has_the_lowest_deletion_and_highest_insertion(images):
  _, x, _ = images
  y = jnp.zeros(2, int)
  rng = np.random.default_rng(2)
  kwargs = {'target': 'logit'}
  deletion = lambda a: np.asarray(
    attribution.deletion_auc(brightness, None, x, y, a, **kwargs)
  )
  insertion = lambda a: np.asarray(
    attribution.insertion_auc(brightness, None, x, y, a, **kwargs)
  )
  for _ in range(5):
    other = jnp.asarray(rng.normal(size=x.shape))
    assert np.all(deletion(x) <= deletion(other))
    assert np.all(insertion(x) >= insertion(other))


def test_blurring_keeps_a_constant_and_the_shape_of_a_point(x64):
  np.testing.assert_allclose(
    attribution.blurred(jnp.ones((1, 5, 3, 2)), 2.0), 1
  )
  point = jnp.zeros((1, 15, 15, 1)).at[0, 7, 7, 0].set(1)
  found = attribution.blurred(point, 1.5)[0, :, :, 0]
  np.testing.assert_allclose(found.sum(), 1)
  np.testing.assert_allclose(found, found.T, atol=1e-15)
  assert found[7, 8] / found[7, 7] == pytest.approx(np.exp(-0.5 / 1.5**2))


def test_mask_numbers_are_those_counted_by_hand():
  a = jnp.array([[[4.0, -3.0], [2.0, 1.0]]] * 2 + [[[0.0, 0.0], [0.0, 0.0]]])
  mask = np.zeros((3, 2, 2), bool)
  mask[0, 0] = True  # 4 and 3
  mask[1, 1] = True  # 2 and 1
  mask[2, 0, 0] = True
  mask = jnp.asarray(mask)
  np.testing.assert_allclose(
    attribution.mask_mass(a, mask), [0.7, 0.3, np.nan], rtol=1e-6
  )
  # Maps without channels are ranked as they are: 4, 2, 1, -3.
  np.testing.assert_allclose(attribution.mask_rank(a, mask), [0.5, 0.5, np.nan])
  np.testing.assert_array_equal(
    attribution.pointing_game(a, mask), [1, 0, np.nan]
  )
  # Maps with channels by their absolute sum: 4, 3, 2, 1.
  np.testing.assert_allclose(
    attribution.mask_rank(a[..., None], mask), [1, 0, np.nan]
  )


def test_an_empty_mask_scores_zero_everywhere():
  a, mask = jnp.eye(2)[None], jnp.zeros((1, 2, 2), bool)
  for fun in ('mask_mass', 'mask_rank', 'pointing_game'):
    assert getattr(attribution, fun)(a, mask)[0] == 0


def test_bad_input_names_the_argument(images):
  params, x, y = images
  a = jnp.ones((2, 5, 4))
  bad = [
    ('map', lambda: attribution.deletion_auc(additive, params, x, y, a[:, 1:])),
    (
      'steps',
      lambda: attribution.deletion_auc(additive, params, x, y, a, steps=0),
    ),
    ('mask', lambda: attribution.mask_mass(a, jnp.ones((2, 5, 4)))),
    ('window', lambda: attribution.occlusion(additive, params, x, y, window=5)),
    ('stride', lambda: attribution.occlusion(additive, params, x, y, stride=9)),
    ('sigma', lambda: attribution.blurred(x, 0)),
  ]
  for named, call in bad:
    with pytest.raises(errors.InputError, match=named):
      call()
