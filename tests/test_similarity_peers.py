"""Do SSIM and relative stability agree with scikit-image and Quantus?"""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import similarity

pytestmark = pytest.mark.peers


def images(seed, shape=(3, 20, 24)):
  draw = np.random.default_rng(seed)
  a = draw.uniform(0.1, 1, size=shape)
  return a, a + 0.2 * draw.normal(size=shape)


def foreign(name):
  """The module, or a skip that says it is not there."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return pytest.importorskip(name, exc_type=ImportError)


@pytest.mark.parametrize('sigma, window', [(1.5, 11), (1.0, 9)])
def test_ssim_equals_scikit_image(x64, sigma, window):
  metrics = foreign('skimage.metrics')
  a, b = images(0)
  want = [
    metrics.structural_similarity(
      p,
      q,
      data_range=1.7,
      gaussian_weights=True,
      sigma=sigma,
      use_sample_covariance=False,
      truncate=(window // 2) / sigma,
    )
    for p, q in zip(a, b, strict=True)
  ]
  got = similarity.ssim(a, b, data_range=1.7, sigma=sigma, window=window)
  np.testing.assert_allclose(got, want, atol=1e-10)


def test_relative_stability_quotients_equal_those_of_quantus(x64):
  quantus = foreign('quantus')
  x, z = images(1, (4, 1, 8, 8))
  a, b = images(2, (4, 1, 8, 8))
  old, new = images(3, (4, 10))
  norms, change = similarity.stability.norms, similarity.relative_change
  top = change(jnp.asarray(a), jnp.asarray(b), 1e-6)
  ours = {
    'RelativeInputStability': top / change(jnp.asarray(x), z, 1e-6),
    'RelativeOutputStability': top / norms(jnp.asarray(old - new)),
    'RelativeRepresentationStability': top
    / change(jnp.asarray(old), new, 1e-6),
  }
  inputs = {
    'RelativeInputStability': (x, z, a, b),
    'RelativeOutputStability': (old, new, a, b),
    'RelativeRepresentationStability': (old, new, a, b),
  }
  for name, got in ours.items():
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      metric = getattr(quantus, name)()
    objective = next(
      getattr(metric, n) for n in dir(metric) if n.endswith('_objective')
    )
    want = objective(*inputs[name])
    np.testing.assert_allclose(got, want, rtol=1e-8, err_msg=name)
