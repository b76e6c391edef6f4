"""Is every similarity its float64 twin, or NaN, on maps of every kind?"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from test_similarity_local import direct_ssim

from implicit_attr import similarity
from implicit_attr.similarity import maps

K, W = 9, 1


def ordered(a, b):
  return all(np.nanmax(m) > np.nanmin(m) and not np.isnan(m).any()
             for m in (a, b))  # fmt: skip


def ranked(fun):
  """`fun` of two flat maps, NaN where one has nothing to rank."""
  return lambda a, b: fun(a, b) if ordered(a, b) else np.nan


def top(a):
  mask = np.zeros(a.size, bool)
  mask[np.lexsort((np.arange(a.size), -a.ravel()))[: min(K, a.size)]] = True
  return mask.reshape(a.shape)


def wide(mask):
  return scipy.ndimage.binary_dilation(mask, np.ones((2 * W + 1, 2 * W + 1)))


def peaks(a):
  left, picked = a.copy(), np.zeros(a.shape, bool)
  for _ in range(min(K, a.size)):
    i, j = np.unravel_index(np.argmax(left), a.shape)
    picked[i, j] |= np.isfinite(left[i, j])
    left[max(0, i - W) : i + W + 1, max(0, j - W) : j + W + 1] = -np.inf
  return picked


def cosine(a, b):
  return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


def centre(a):
  share = np.abs(a) / np.abs(a).sum()
  return np.array([np.sum(share * g) for g in np.mgrid[: len(a), : len(a)]])


def structure(a, b):
  span = max(a.max(), b.max()) - min(a.min(), b.min())
  window = min(11, len(a))
  return direct_ssim(a, b, span, window, 1.5) if span > 0 else np.nan


TWINS = {
  'topk_intersection': ranked(lambda a, b: np.mean(top(b)[top(a)])),
  'lens_recall': ranked(lambda a, b: np.mean(wide(top(a))[top(b)])),
  'lens_precision': ranked(lambda a, b: np.mean(wide(top(b))[top(a)])),
  'topk_div': ranked(lambda a, b: np.mean(wide(peaks(a))[peaks(b)])),
  'kendall_tau': ranked(
    lambda a, b: scipy.stats.kendalltau(a.ravel(), b.ravel()).statistic
  ),
  'spearman': ranked(
    lambda a, b: scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
  ),
  'pearson': ranked(lambda a, b: cosine(a - a.mean(), b - b.mean())),
  'cosine': cosine,
  'mse': lambda a, b: np.mean(
    (np.abs(a) / np.abs(a).sum() - np.abs(b) / np.abs(b).sum()) ** 2
  ),
  'mass_centre_shift': lambda a, b: np.linalg.norm(centre(a) - centre(b)),
  'ssim': structure,
}


def ours(name, a, b):
  k, kind = min(K, a.shape[1] * a.shape[-1]), {}
  if name in ('topk_intersection', 'lens_recall', 'lens_precision', 'topk_div'):
    kind['k'] = k
  if name == 'ssim':
    kind['window'] = min(11, a.shape[1])
  return np.asarray(getattr(similarity, name)(a, b, **kind))


def pairs(kind):
  """(a, b) [2, 12, 12]; the second row is an ordinary pair of maps."""
  draw = np.random.default_rng(3)
  a, b = draw.normal(size=(2, 2, 12, 12)).astype(np.float32)
  if kind == 'constant':
    a[0] = 0.1
  elif kind == 'constants':
    a[0], b[0] = 0.1, 0.1
  elif kind == 'zero':
    a[0] = 0
  elif kind == 'zeros':
    a[0], b[0] = 0, 0
  elif kind == 'pixel':
    a, b = a[:, :1, :1], b[:, :1, :1]
  elif kind == 'nan':
    b[0, 3, 4] = np.nan
  elif kind == 'nans':
    a[0] = b[0] = np.nan
  elif kind == 'offset':
    a[0], b[0] = 1e4 + a[0], 1e4 + b[0]
  elif kind == 'equal':
    b[0] = a[0]
  elif kind in ('1e-20', '1e20', '1e-30'):
    a[0], b[0] = (m[0] * np.float32(kind) for m in (a, b))
  elif kind == 'bool':
    a, b = a > 0, b > 0
  elif kind in ('uint8', 'int8', 'int32'):
    high = np.iinfo(kind).max if kind != 'int32' else 10**6
    a, b = (np.clip(m / 2, -1, 1) * high for m in (a, b))
    a, b = (np.abs(m) if kind == 'uint8' else m for m in (a, b))
    a, b = a.astype(kind), b.astype(kind)
  return a, b


KINDS = ('constant', 'constants', 'zero', 'zeros', 'pixel', 'nan', 'nans',
         'offset', 'equal', '1e-20', '1e20', '1e-30', 'bool', 'uint8', 'int8',
         'int32')  # fmt: skip
# What each gives where others are undefined, as its docstring says.
UNDEFINED = {
  'constant': {'topk_intersection', 'lens_recall', 'lens_precision',
               'topk_div', 'kendall_tau', 'spearman', 'pearson'},
}  # fmt: skip
UNDEFINED['constants'] = UNDEFINED['constant'] | {'ssim'}
UNDEFINED['pixel'] = UNDEFINED['constant']
UNDEFINED['zero'] = UNDEFINED['constant'] | {
  'cosine',
  'mse',
  'mass_centre_shift',
}
UNDEFINED['zeros'] = UNDEFINED['nan'] = UNDEFINED['nans'] = set(TWINS)


@pytest.mark.parametrize('name', TWINS)
@pytest.mark.parametrize('kind', KINDS)
def test_a_similarity_is_its_float64_twin_or_nan(kind, name):
  a, b = pairs(kind)
  with warnings.catch_warnings(), np.errstate(all='ignore'):
    warnings.simplefilter('ignore')
    want = [
      TWINS[name](p.astype(np.float64), q.astype(np.float64))
      for p, q in zip(a, b, strict=True)
    ]
  got = ours(name, a, b)
  assert np.isnan(got[0]) == (name in UNDEFINED.get(kind, ()))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)
  lowest, highest = {
    'mse': (0, 1), 'mass_centre_shift': (0, 17), 'ssim': (-2, 1)
  }.get(name, (-1, 1))  # fmt: skip
  assert np.nanmin(got, initial=0) >= lowest
  assert np.nanmax(got, initial=0) <= highest


def test_correlations_of_a_map_with_itself_never_pass_one():
  a = jnp.asarray(np.random.default_rng(0).normal(size=(400, 33)), 'float32')
  for name in ('kendall_tau', 'spearman', 'pearson', 'cosine'):
    found = ours(name, a, jnp.concatenate([a[:200], -a[200:]]))
    assert np.abs(found).max() <= 1, name
    if name == 'kendall_tau':
      np.testing.assert_array_equal(found, [1] * 200 + [-1] * 200)


def test_sums_of_bytes_do_not_wrap():
  full = np.full((1, 2, 2, 3), 200, np.uint8)
  np.testing.assert_array_equal(similarity.magnitude(full), 600)
  np.testing.assert_array_equal(similarity.mass(full), 0.25)
  least = np.full((1, 2, 2), -128, np.int8)
  np.testing.assert_array_equal(similarity.magnitude(least), 128)
  np.testing.assert_array_equal(similarity.mass(least), 0.25)
  true = np.ones((1, 2, 2, 3), bool)
  np.testing.assert_array_equal(similarity.magnitude(true), 3)
  np.testing.assert_array_equal(similarity.mass_centre(true[..., 0]), 0.5)


def test_a_nan_is_in_the_whole_mass_and_a_zero_map_stays_zero():
  a = jnp.array([[[1.0, 3.0]], [[jnp.nan, 3.0]], [[0.0, 0.0]]])
  want = [[[0.25, 0.75]], [[np.nan, np.nan]], [[0, 0]]]
  np.testing.assert_array_equal(similarity.mass(a), want)


@pytest.mark.parametrize('scale', [0, 1e-30, 1, 1e30])
def test_norms_are_those_of_float64_and_have_a_slope_at_zero(scale):
  a = np.float32(scale) * np.arange(12, dtype=np.float32).reshape(2, 3, 2)
  want = np.linalg.norm(a.reshape(2, 6).astype(np.float64), axis=1)
  np.testing.assert_allclose(maps.norms(a), want, rtol=1e-6)
  slope = jax.grad(lambda a: jnp.sum(maps.norms(a)))(jnp.asarray(a))
  unit = a / np.where(want > 0, want, 1).astype(np.float32)[:, None, None]
  np.testing.assert_allclose(slope, unit, rtol=1e-6)


@pytest.mark.parametrize('name', TWINS)
def test_no_map_is_no_similarity(name):
  a, b = pairs('equal')
  assert ours(name, a[:0], b[:0]).shape == (0,)
