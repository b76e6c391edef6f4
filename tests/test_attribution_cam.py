"""Are class activation maps right, and refused where they cannot be had?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors

B, H, W, C, D, CLASSES = 4, 6, 4, 3, 2, 3


def convolutional(params, x, part=lambda z: z):
  z = jax.lax.conv_general_dilated(
    x, params['k'], (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  features = jax.nn.relu(z)
  hidden = features.reshape(x.shape[0], -1)
  out = {'features': part(features), 'layers': (z,), 'input': x}
  return jnp.tanh(hidden) @ params['v'], out


@pytest.fixture
def images(x64):
  rng = np.random.default_rng(1)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
  params = {'k': draw(3, 3, C, D), 'v': draw(3 * 2 * D, CLASSES)}
  return params, jax.nn.sigmoid(draw(B, H, W, C)), jnp.array([0, 2, 1, 2])


def known_gradients(params, x, y):
  features = np.asarray(convolutional(params, x)[1]['features'])
  v = np.asarray(params['v']).T[np.asarray(y)].reshape(features.shape)
  return features, v / np.cosh(features) ** 2


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit, jax.checkpoint])
def test_the_gradient_by_a_feature_is_that_of_the_rest_of_the_network(
  images, wrap
):
  found = attribution.feature_gradient(wrap(convolutional), *images)
  for a, b in zip(found, known_gradients(*images), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_grad_cam_weighs_channels_by_their_mean_gradient(images):
  features, gradients = known_gradients(*images)
  wanted = np.einsum('bhwd,bd->bhw', features, gradients.mean((1, 2)))
  for rectify in (True, False):
    found = attribution.cam(features, gradients, rectify=rectify)
    np.testing.assert_allclose(
      found, np.maximum(wanted, 0) if rectify else wanted, rtol=1e-12
    )


def test_grad_cam_pp_is_the_formula_of_the_paper(images):
  features, gradients = known_gradients(*images)
  wanted = np.zeros(features.shape[:3])
  for b, d in np.ndindex(B, D):
    a, g = features[b, :, :, d], gradients[b, :, :, d]
    weight = 0
    for i, j in np.ndindex(a.shape):
      alpha = g[i, j] ** 2 / (2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3)
      weight += alpha * max(g[i, j], 0)
    wanted[b] += weight * a
  found = attribution.cam_pp(features, gradients)
  np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-10)
  assert not np.any(attribution.cam_pp(features, 0 * gradients))


def test_channels_share_an_enlarged_map(images):
  params, x, y = images
  found = attribution.grad_cam(convolutional, params, x, y)
  small = attribution.cam(*known_gradients(params, x, y))
  wanted = attribution.enlarge(small, x)[..., 0]
  np.testing.assert_allclose(attribution.sum_abs(found), wanted, rtol=1e-12)
  constant = attribution.enlarge(jnp.full((B, 3, 2), 2.5), x)
  np.testing.assert_allclose(constant, np.full((B, H, W, 1), 2.5))


def test_guided_grad_cam_is_the_product(images):
  params, x, y = images
  found = attribution.guided_grad_cam(convolutional, params, x, y)
  fine = attribution.guided_backprop(convolutional, params, x, y)
  coarse = attribution.grad_cam(convolutional, params, x, y)
  np.testing.assert_allclose(found, fine * coarse * C, rtol=1e-12)


@pytest.mark.parametrize(
  ('feature', 'match'),
  [
    ('feature', "did you mean 'features'"),
    ('layers', 'one array'),
    ('input', 'used by the network'),
  ],
)
def test_a_feature_that_cannot_be_explained_is_refused(images, feature, match):
  with pytest.raises(errors.InputError, match=match):
    attribution.grad_cam(convolutional, *images, feature=feature)


def test_a_copy_of_a_feature_is_refused(images):
  copied = functools.partial(convolutional, part=lambda z: 1.0 * z)
  with pytest.raises(errors.InputError, match='used by the network'):
    attribution.grad_cam(copied, *images)
