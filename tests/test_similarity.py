"""Are the comparisons of maps what their definitions say?"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from implicit_attr import errors, similarity
from implicit_attr.similarity import ranking

RANKS = {
  'kendall_tau': (similarity.kendall_tau, scipy.stats.kendalltau),
  'spearman': (similarity.spearman, scipy.stats.spearmanr),
}
SYMMETRIC = {
  'topk': lambda a, b: similarity.topk_intersection(a, b, 7),
  'topk_share': lambda a, b: similarity.topk_intersection(a, b, 0.25),
  'kendall_tau': similarity.kendall_tau,
  'spearman': similarity.spearman,
  'cosine': similarity.cosine,
  'cosine_absolute': lambda a, b: similarity.cosine(a, b, absolute=True),
  'pearson': similarity.pearson,
}


def maps(seed, kind):
  """Pairs of related maps [5, 6, 6] without ties, with ties, mostly zero."""
  draw = np.random.default_rng(seed)
  a = draw.normal(size=(5, 6, 6))
  b = a + draw.normal(size=a.shape)
  if kind == 'ties':
    a, b = np.round(2 * a), np.round(2 * b)
  if kind == 'sparse':
    a, b = a * (a > 1), b * (b > 1)
  return a, b


@pytest.mark.parametrize('kind', ['free', 'ties', 'sparse'])
@pytest.mark.parametrize('name', RANKS)
def test_rank_correlations_equal_scipy_with_and_without_ties(x64, name, kind):
  ours, theirs = RANKS[name]
  a, b = maps(0, kind)
  want = [
    theirs(p.ravel(), q.ravel()).statistic for p, q in zip(a, b, strict=True)
  ]
  np.testing.assert_allclose(ours(a, b), want, atol=1e-12)


@pytest.mark.parametrize('n', [1, 2, 3, 4])
def test_kendall_of_all_small_maps_is_the_sum_over_pairs(x64, n):
  all_maps = np.array(list(itertools.product([-1.0, 0, 2], repeat=n)))
  count = len(all_maps)
  a = np.repeat(all_maps, count, 0)
  b = np.tile(all_maps, (count, 1))
  signs = [
    np.sign(m[:, :, None] - m[:, None]).reshape(-1, n * n) for m in (a, b)
  ]
  with np.errstate(invalid='ignore'):
    want = (signs[0] * signs[1]).sum(1) / np.sqrt(
      np.abs(signs[0]).sum(1) * np.abs(signs[1]).sum(1)
    )
  got = similarity.kendall_tau(a, b)
  np.testing.assert_allclose(got, want, rtol=1e-15)


@pytest.mark.parametrize('n', [2, 5, 8, 17, 33, 100])
def test_kendall_does_not_care_whether_the_size_is_a_power_of_two(n):
  a = np.random.default_rng(n).normal(size=(3, n)).astype(np.float32)
  b = np.round(a + np.random.default_rng(n + 1).normal(size=a.shape), 0)
  want = [
    scipy.stats.kendalltau(p, q).statistic for p, q in zip(a, b, strict=True)
  ]
  np.testing.assert_allclose(similarity.kendall_tau(a, b), want, atol=1e-6)
  alone = jax.vmap(similarity.kendall_tau)(a[:, None], b[:, None])[:, 0]
  np.testing.assert_array_equal(alone, similarity.kendall_tau(a, b))


@pytest.mark.parametrize('side', [224, 512])
def test_kendall_of_large_maps_equals_scipy(side):
  # 512² pixels have 3.4e10 pairs, far more than 32 bits count.
  draw = np.random.default_rng(side)
  a = draw.normal(size=(1, side, side)).astype(np.float32)
  b = np.round(8 * (a + draw.normal(size=a.shape))).astype(np.float32)
  got = jax.jit(similarity.kendall_tau)
  want = scipy.stats.kendalltau(a.ravel(), b.ravel()).statistic
  np.testing.assert_allclose(got(a, b), [want], rtol=1e-6)
  np.testing.assert_array_equal(got(a, a), [1])
  np.testing.assert_array_equal(got(a, -a), [-1])


def test_counts_of_pairs_in_two_words_are_exact(monkeypatch):
  counts = np.random.default_rng(0).integers(0, 2**23, (4, 1000), np.int32)
  for block in (1 << 15, 7):
    monkeypatch.setattr(ranking, '_BLOCK', block)
    high, low = np.asarray(ranking._sum(jnp.asarray(counts)), np.int64)
    np.testing.assert_array_equal(
      high * 2**16 + low, counts.sum(1, dtype=np.int64)
    )
    assert low.max() < 2**16


def test_average_ranks_equal_scipy_rankdata(x64):
  a = maps(2, 'ties')[0].reshape(5, -1)
  want = scipy.stats.rankdata(a, axis=1)
  np.testing.assert_array_equal(ranking.average_ranks(jnp.asarray(a)), want)


@pytest.mark.parametrize('name', RANKS)
def test_rank_correlations_ignore_every_increasing_rescaling(x64, name):
  ours, _ = RANKS[name]
  a, b = maps(3, 'ties')
  np.testing.assert_allclose(ours(np.exp(a), 1e-9 * b**3), ours(a, b))


@pytest.mark.parametrize('name', SYMMETRIC)
def test_a_map_is_one_with_itself_and_order_does_not_count(x64, name):
  fun = jax.jit(SYMMETRIC[name])
  a, b = maps(4, 'free')
  np.testing.assert_allclose(fun(a, a), 1, atol=1e-12)
  np.testing.assert_allclose(fun(a, b), fun(b, a), atol=1e-12)
  assert np.all(np.asarray(fun(a, b)) < 1)


@pytest.mark.parametrize('name', SYMMETRIC)
def test_moving_the_pixels_of_both_maps_alike_changes_nothing(x64, name):
  a, b = (m.reshape(5, -1) for m in maps(5, 'free'))
  order = np.random.default_rng(0).permutation(36)
  fun = SYMMETRIC[name]
  np.testing.assert_allclose(fun(a[:, order], b[:, order]), fun(a, b))


def test_topk_ties_go_to_the_smaller_index():
  a = jnp.array([[1.0, 3.0, 0.0, 3.0, 3.0, 0.0]])
  got = similarity.top_mask(a, 2)
  np.testing.assert_array_equal(got, [[False, True, False, True, False, False]])
  zero = jnp.zeros((1, 6))
  np.testing.assert_array_equal(similarity.top_mask(zero, 3)[0, :3], True)
  other = jnp.array([[2.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
  shared = similarity.topk_intersection(a, other, 2)
  np.testing.assert_array_equal(shared, [0.5])  # {1, 3} and {0, 1}


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('n', [1, 7, 64, 100])
def test_the_largest_are_those_of_a_stable_sort(x64, dtype, n):
  rng = np.random.default_rng(n)
  a = rng.normal(size=(40, n)).astype(dtype)
  a[10:20] = a[10:20].round(0) * rng.choice([-1, 1], (10, n))  # ties, 0 and -0
  a[20:30] *= 10.0 ** rng.integers(-35, 35, (10, n))
  a[30:35, ::3], a[35:, ::2] = np.inf, -np.inf
  wrong = a.copy()
  wrong[:, n // 2] = np.copysign(np.nan, wrong[:, n // 2])
  for k in {1, (n + 1) // 2, n}:
    for m in (a, wrong):
      # NaN first, then the larger, then the smaller index.
      order = np.argsort(np.where(np.isnan(m), -np.inf, -m), 1, kind='stable')
      first = np.isnan(m).argmax(1)
      if np.isnan(m).any():
        order = np.stack(
          [
            [f, *(i for i in o if i != f)]
            for f, o in zip(first, order, strict=True)
          ]
        )
      want = np.zeros(m.shape, bool)
      np.put_along_axis(want, order[:, :k], True, 1)
      np.testing.assert_array_equal(similarity.top_mask(m, k), want)


def test_topk_intersection_equals_a_count_by_sorting(x64):
  a, b = (m.reshape(5, -1) for m in maps(6, 'ties'))
  n = np.arange(36)

  def top(row, k):
    return set(np.lexsort((n, -row))[:k])

  for k in (1, 9, 36):
    want = [len(top(p, k) & top(q, k)) / k for p, q in zip(a, b, strict=True)]
    np.testing.assert_array_equal(similarity.topk_intersection(a, b, k), want)
  np.testing.assert_array_equal(
    similarity.topk_intersection(a, b, 0.25),
    similarity.topk_intersection(a, b, 9),
  )


def test_cosine_is_signed_and_absolute_on_request(x64):
  a, b = (m.reshape(5, -1) for m in maps(8, 'free'))
  want = np.sum(a * b, 1) / np.linalg.norm(a, axis=1)
  want /= np.linalg.norm(b, axis=1)
  np.testing.assert_allclose(similarity.cosine(a, b), want)
  np.testing.assert_allclose(similarity.cosine(a, -b), -want)
  absolute = similarity.cosine(a, -b, absolute=True)
  np.testing.assert_allclose(absolute, similarity.cosine(np.abs(a), np.abs(b)))


def test_cosine_of_maps_too_small_to_square_is_right():
  a = jnp.array([[3.0, 4.0]]) * 1e-30
  b = jnp.array([[4.0, 3.0]]) * 1e-30
  np.testing.assert_allclose(similarity.cosine(a, b), [0.96], rtol=1e-6)


def test_pearson_equals_numpy(x64):
  a, b = maps(9, 'ties')
  want = [
    np.corrcoef(p.ravel(), q.ravel())[0, 1] for p, q in zip(a, b, strict=True)
  ]
  np.testing.assert_allclose(similarity.pearson(a, b), want)


def test_mse_is_of_maps_that_sum_to_one(x64):
  a, b = maps(10, 'free')
  p, q = (np.abs(m) / np.abs(m).sum((1, 2), keepdims=True) for m in (a, b))
  want = np.mean((p - q) ** 2, (1, 2))
  np.testing.assert_allclose(similarity.mse(5 * a, -b), want)
  np.testing.assert_allclose(similarity.mse(a, 3 * a), 0, atol=1e-20)


def test_magnitude_sums_channels_and_mass_sums_to_one():
  a = jnp.array(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), 'float32')
  want = np.abs(np.asarray(a)).sum(-1)
  np.testing.assert_allclose(similarity.magnitude(a), want, rtol=1e-6)
  np.testing.assert_allclose(similarity.mass(a).sum((1, 2)), 1, rtol=1e-6)
  np.testing.assert_array_equal(similarity.mass(jnp.zeros((1, 2, 2))), 0)


@pytest.mark.parametrize('k', [0, 37, -1, 0.0, 1.5, True, 'a tenth'])
def test_a_k_that_does_not_fit_the_map_is_refused_by_name(k):
  a = jnp.ones((2, 6, 6))
  with pytest.raises(errors.InputError, match='k='):
    similarity.topk_intersection(a, a, k)


def test_shapes_that_differ_are_refused_by_name():
  with pytest.raises(errors.InputError, match=r'b\.shape'):
    similarity.cosine(jnp.ones((2, 3)), jnp.ones((2, 4)))
  with pytest.raises(errors.InputError, match=r'a\.shape'):
    similarity.spearman(jnp.ones(3), jnp.ones(3))
  with pytest.raises(errors.InputError, match=r'a\.shape'):
    similarity.kendall_tau(jnp.ones((3, 0)), jnp.ones((3, 0)))


@pytest.mark.parametrize('k', [np.int64(7), np.float32(0.25), np.float64(0.25)])
def test_numbers_of_numpy_are_counts_and_shares(k):
  a, b = maps(12, 'free')
  want = similarity.topk_intersection(a, b, k.item())
  np.testing.assert_array_equal(similarity.topk_intersection(a, b, k), want)
