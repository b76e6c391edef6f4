"""Are the diagnostics those of dense matrices and of plain sums?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import diagnostics, errors, models, train

KEY = jax.random.key(0)


def draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def dense(forward, shape):
  """The matrix of a linear map on inputs of `shape`."""
  basis = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
  return np.asarray(forward(basis)).reshape(len(basis), -1)


def convolved(x, kernel, stride, circular):
  """Written with explicit padding, so that it can be circular."""
  h, w = kernel.shape[:2]
  padding = 'SAME'
  if circular:
    pads = ((0, 0), (0, h - 1), (0, w - 1), (0, 0))
    x, padding = jnp.pad(x, pads, mode='wrap'), 'VALID'
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )  # fmt: skip


@pytest.mark.parametrize('stride, d', [(1, 3), (2, 5)])
def test_circular_singular_values_are_those_of_the_dense_matrix(x64, stride, d):
  kernel, hw = draw(3, 2, 2, d), (6, 4)
  matrix = dense(lambda x: convolved(x, kernel, stride, True), (*hw, 2))
  wanted = np.linalg.svd(matrix, compute_uv=False)
  found = diagnostics.circular_singular_values(kernel, hw, stride)
  assert found.shape == wanted.shape
  np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('stride, d', [(1, 3), (2, 4)])
def test_convolution_singular_values_are_those_of_the_zero_padded_matrix(
  x64, stride, d
):
  kernel, hw = draw(3, 3, 2, d), (5, 4)
  matrix = dense(lambda x: convolved(x, kernel, stride, False), (*hw, 2))
  wanted = np.linalg.svd(matrix, compute_uv=False)
  values = jax.jit(
    lambda k, key: diagnostics.convolution_singular_values(
      k, hw, key, stride=stride
    )
  )(kernel, KEY)
  assert values.shape == wanted.shape
  np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=1e-6)
  # Multiplicities too: every pixel of a 1x1 kernel has the same ones.
  if stride == 1:
    few = diagnostics.convolution_singular_values(kernel, hw, KEY, order=15)
    np.testing.assert_allclose(few[0], wanted[0], rtol=1e-4)
    same = diagnostics.convolution_singular_values(
      jnp.ones((1, 1, 1, 1)) * 2, (3, 3), KEY
    )
    np.testing.assert_allclose(same, 2, rtol=1e-9)


def test_spread_tells_isotropic_layers_from_others(x64):
  orthogonal = jnp.linalg.qr(draw(6, 6))[0]
  found = diagnostics.spread(diagnostics.dense_singular_values(orthogonal))
  np.testing.assert_allclose(
    [found.mean, found.std, found.low, found.high], [1, 0, 1, 1], atol=1e-9
  )
  kernel = draw(4, 7)
  values = np.linalg.svd(np.asarray(kernel), compute_uv=False)
  found = diagnostics.spread(diagnostics.dense_singular_values(kernel))
  np.testing.assert_allclose(
    [found.mean, found.std, found.low, found.high],
    [values.mean(), values.std(), values.min(), values.max()],
  )


def linear(params, x):
  flat = x.reshape(len(x), -1)
  hidden = flat @ params['a']
  return hidden @ params['b'], {'layers': (hidden,)}


def test_predictions_are_margin_confidence_loss_and_error(x64):
  params = {'a': draw(4, 5), 'b': draw(5, 3, seed=1)}
  x, y = draw(20, 2, 2, 1, seed=2), jnp.arange(20) % 3
  found = diagnostics.predictions(linear, params, x, y)
  logits = np.asarray(linear(params, x)[0])
  for i in range(20):
    others = np.delete(logits[i], y[i])
    p = np.exp(logits[i]) / np.exp(logits[i]).sum()
    wanted = logits[i, y[i]] - others.max(), p.max(), -np.log(p[y[i]])
    np.testing.assert_allclose([f[i] for f in found[:3]], wanted, rtol=1e-9)
  np.testing.assert_array_equal(found.error, found.margin < 0)
  other = diagnostics.predictions(linear, params, x, (y + 1) % 3)
  gaps = diagnostics.gaps(found, other)
  assert set(gaps) == {'margin', 'confidence', 'loss', 'error'}
  np.testing.assert_allclose(
    gaps['loss'], np.mean(other.loss) - np.mean(found.loss)
  )
  assert gaps['confidence'] == 0


def test_feature_change_of_linear_layers_is_between_their_singular_values(x64):
  params = {'a': draw(4, 5), 'b': draw(5, 3, seed=1)}
  x, d = draw(30, 2, 2, 1), 0.1 * draw(30, 2, 2, 1, seed=3)
  found = diagnostics.feature_change(linear, params, x, x + d)
  flat = np.asarray(d).reshape(30, -1)
  np.testing.assert_allclose(found.size, np.linalg.norm(flat, axis=1))
  product = np.asarray(params['a'] @ params['b'])
  for i, matrix in enumerate((np.asarray(params['a']), product)):
    np.testing.assert_allclose(
      found.change[i], np.linalg.norm(flat @ matrix, axis=1), rtol=1e-9
    )
    top = np.linalg.norm(matrix, 2)
    assert (found.change[i] <= top * found.size * (1 + 1e-9)).all()
  np.testing.assert_allclose(
    found.relative[0] * np.linalg.norm(x.reshape(30, -1) @ params['a'], axis=1),
    found.change[0],
  )


def test_feature_change_reads_the_layers_of_our_networks():
  module = models.build('mlp', widths=(4, 3), num_classes=2)
  x = jnp.ones((2, 3, 3, 1))
  params = module.init(KEY, x)['params']
  found = diagnostics.feature_change(train.frozen(module, {}), params, x, 2 * x)
  assert found.change.shape == (3, 2)
  np.testing.assert_allclose(found.size, 3)
  same = diagnostics.feature_change(train.frozen(module, {}), params, x, x)
  assert not same.change.any()


@pytest.mark.parametrize('chunk', [1, 4, 100])
def test_nearest_distance_is_the_least_of_all(x64, chunk):
  x, reference = draw(5, 3, 2, 1), draw(11, 3, 2, 1, seed=1)
  apart = np.asarray(x)[:, None] - np.asarray(reference)[None]
  every = np.sqrt((apart**2).sum((2, 3, 4)))
  distance, index = diagnostics.nearest_distance(x, reference, chunk=chunk)
  np.testing.assert_allclose(distance, every.min(1), rtol=1e-12)
  np.testing.assert_array_equal(index, every.argmin(1))
  distance, index = diagnostics.nearest_distance(x, x)
  np.testing.assert_array_equal(distance, 0)
  np.testing.assert_array_equal(index, np.arange(5))


def test_image_alignment_of_a_linear_network_is_its_distance_to_the_boundary(
  x64,
):
  w, x = draw(4, 2), draw(6, 2, 2, 1, seed=1)
  normal = np.asarray(w[:, 0] - w[:, 1])
  logits = np.asarray(x).reshape(6, 4) @ np.asarray(w)
  grad = jnp.broadcast_to(normal.reshape(1, 2, 2, 1), x.shape)
  np.testing.assert_allclose(
    diagnostics.image_alignment(x, grad),
    abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(normal),
  )
  assert not diagnostics.image_alignment(x, 0 * x).any()


@pytest.mark.parametrize(
  'call, message',
  [
    (
      lambda: diagnostics.circular_singular_values(
        jnp.ones((3, 3, 1, 1)), (5, 4), 2
      ),
      'hw=.*divisible by the stride 2',
    ),
    (
      lambda: diagnostics.convolution_singular_values(
        jnp.ones((3, 3)), (5, 4), KEY
      ),
      'kernel.ndim=2 must be 4',
    ),
    (
      lambda: diagnostics.convolution_singular_values(
        jnp.ones((3, 3, 1, 1)), (2, 2), KEY, order=5
      ),
      'order=5 must be at most the dimension, 4',
    ),
    (
      lambda: diagnostics.nearest_distance(jnp.ones((1, 2)), jnp.ones((3, 3))),
      r'reference.shape=\(3, 3\) must be \[N, 2\]',
    ),
    (
      lambda: diagnostics.feature_change(
        lambda p, x: (x, {}), {}, jnp.ones((1, 2)), jnp.ones((1, 2))
      ),
      "out=.* must be a dict with 'layers'",
    ),
  ],
)
def test_bad_input_is_one_line(call, message):
  with pytest.raises(errors.InputError, match=message):
    call()
