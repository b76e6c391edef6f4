"""Do structure and locality mean what they say on a two-dimensional map?"""

import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import errors, similarity


def images(seed, shape=(3, 15, 17)):
  draw = np.random.default_rng(seed)
  a = draw.uniform(size=shape)
  return a, a + 0.3 * draw.normal(size=shape)


def direct_ssim(a, b, span, window, sigma):
  """The definition, one window at a time."""
  offset = np.arange(window) - window // 2
  weight = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
  weight /= weight.sum()
  c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
  found = []
  for i in range(a.shape[0] - window + 1):
    for j in range(a.shape[1] - window + 1):
      p = a[i : i + window, j : j + window]
      q = b[i : i + window, j : j + window]
      mp, mq = (weight * p).sum(), (weight * q).sum()
      vp = (weight * (p - mp) ** 2).sum()
      vq = (weight * (q - mq) ** 2).sum()
      cov = (weight * (p - mp) * (q - mq)).sum()
      top = (2 * mp * mq + c1) * (2 * cov + c2)
      found.append(top / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
  return np.mean(found)


@pytest.mark.parametrize('window, sigma', [(11, 1.5), (7, 1.0)])
def test_ssim_equals_its_definition_window_by_window(x64, window, sigma):
  a, b = images(0)
  want = [
    direct_ssim(p, q, 2.0, window, sigma) for p, q in zip(a, b, strict=True)
  ]
  got = similarity.ssim(a, b, data_range=2.0, window=window, sigma=sigma)
  np.testing.assert_allclose(got, want, atol=1e-10)


def test_ssim_is_one_with_itself_and_free_of_a_common_scale(x64):
  a, b = images(1)
  np.testing.assert_allclose(similarity.ssim(a, a), 1)
  ours = similarity.ssim(a, b)
  np.testing.assert_allclose(similarity.ssim(1e-6 * a, 1e-6 * b), ours)
  np.testing.assert_allclose(similarity.ssim(b, a), ours)
  assert np.all(np.asarray(ours) < 1)


@pytest.mark.parametrize('window', [10, 17, 0, -1])
def test_an_ssim_window_that_does_not_fit_is_refused(window):
  a = jnp.ones((1, 15, 17))
  with pytest.raises(errors.InputError, match='window='):
    similarity.ssim(a, a, window=window)


def spot(row, column, shape=(9, 11)):
  a = np.zeros((1, *shape), np.float32)
  a[0, row, column] = 2
  return a


def test_mass_centre_shift_is_the_distance_moved_unrounded():
  got = similarity.mass_centre_shift(spot(1, 2), spot(4, 6))
  np.testing.assert_allclose(got, [5.0], rtol=1e-6)
  half = similarity.mass_centre(spot(0, 0) + spot(1, 0))
  np.testing.assert_allclose(half, [[0.5, 0.0]])


def test_dilation_does_not_wrap_round_the_ends_of_a_row():
  wide = np.asarray(similarity.dilate(jnp.asarray(spot(4, 10) > 0), 2))
  want = np.zeros((9, 11), bool)
  want[2:7, 8:11] = True
  np.testing.assert_array_equal(wide[0], want)
  corner = np.asarray(similarity.dilate(jnp.asarray(spot(0, 0) > 0), 1))
  assert corner.sum() == 4


@pytest.mark.parametrize('flip', [(1,), (2,), (1, 2)])
@pytest.mark.parametrize('name', ['lens_recall', 'lens_precision'])
def test_lens_of_flipped_maps_is_that_of_the_maps(name, flip):
  fun = getattr(similarity, name)
  a, b = images(2)
  flipped = fun(np.flip(a, flip), np.flip(b, flip), 9, w=2)
  np.testing.assert_array_equal(flipped, fun(a, b, 9, w=2))


def test_lens_without_a_window_is_topk_intersection():
  a, b = images(3)
  want = similarity.topk_intersection(a, b, 20)
  np.testing.assert_array_equal(similarity.lens_recall(a, b, 20, w=0), want)
  np.testing.assert_array_equal(similarity.lens_precision(a, b, 20, w=0), want)
  np.testing.assert_array_equal(similarity.topk_div(a, b, 20, w=0), want)


def test_lens_forgives_exactly_w_pixels():
  a, b = spot(4, 4), spot(6, 2)
  assert similarity.topk_intersection(a, b, 1) == 0
  assert similarity.lens_recall(a, b, 1, w=1) == 0
  assert similarity.lens_recall(a, b, 1, w=2) == 1


def test_recall_and_precision_swap_the_maps_and_differ():
  a, b = images(4)
  recall = similarity.lens_recall(a, b, 12, w=1)
  swapped = similarity.lens_precision(b, a, 12, w=1)
  np.testing.assert_array_equal(recall, swapped)
  assert np.any(recall != similarity.lens_precision(a, b, 12, w=1))


def test_diverse_peaks_are_w_apart_and_the_largest_of_what_is_left():
  (a, _), w, k = images(5), 2, 6
  got = np.asarray(similarity.diverse_top_mask(a, k, w=w))
  for picked, image in zip(got, a, strict=True):
    left, want = image.copy(), np.zeros(image.shape, bool)
    for _ in range(k):
      i, j = np.unravel_index(np.argmax(left), left.shape)
      want[i, j] = True
      left[max(0, i - w) : i + w + 1, max(0, j - w) : j + w + 1] = -np.inf
    np.testing.assert_array_equal(picked, want)


def test_fewer_diverse_peaks_where_the_map_is_used_up():
  a = images(6, (2, 5, 5))[0]
  got = similarity.diverse_top_mask(a, 25, w=4)
  np.testing.assert_array_equal(got.sum((1, 2)), 1)
  np.testing.assert_array_equal(similarity.topk_div(a, a, 25, w=4), 1)
