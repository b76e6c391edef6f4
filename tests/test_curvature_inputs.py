"""Are input gradients and Hessians right, example by example?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import curvature, errors

B, SHAPE, N, CLASSES = 5, (3, 3, 2), 18, 4


def logits(x):
  """A fixed convolutional network, x [B, 3, 3, 2] -> [B, 4]."""
  keys = jax.random.split(jax.random.key(5), 2)
  x = jax.lax.conv_general_dilated(
    x,
    jax.random.normal(keys[0], (2, 2, 2, 3)),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  x = jnp.tanh(x).reshape(x.shape[0], -1)
  return x @ jax.random.normal(keys[1], (27, CLASSES))


def targets(y):
  """The scalar functions that are measured, by name."""
  pick = lambda z: jnp.take_along_axis(z, y[:, None], 1)[:, 0]
  return {
    'logit': lambda x: pick(logits(x)),
    'loss': lambda x: -pick(jax.nn.log_softmax(logits(x))),
    'margin': lambda x: (
      pick(logits(x)) - jnp.max(logits(x) - 1e9 * jax.nn.one_hot(y, CLASSES), 1)
    ),
  }


@pytest.fixture(scope='module', params=['logit', 'loss', 'margin'])
def problem(request):
  """(fun, x, dense gradients [B, n], dense Hessians [B, n, n])."""
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.uniform(keys[0], (B, *SHAPE))
    y = jax.random.randint(keys[1], (B,), 0, CLASSES)

    def single(flat, y):
      return targets(y[None])[request.param](flat.reshape(1, *SHAPE))[0]

    flat = x.reshape(B, N)
    gradient = jax.jit(jax.vmap(jax.grad(single)))(flat, y)
    hessian = jax.jit(jax.vmap(jax.hessian(single)))(flat, y)
    fun = targets(y)[request.param]
    return fun, x, np.asarray(gradient), np.asarray(hessian)


def normal(seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(B, *SHAPE)))


def test_one_block_product_is_a_product_per_example(x64, problem):
  fun, x, gradient, hessian = problem

  @jax.jit
  def measure(x, v):
    block = curvature.per_example(fun, x)
    return block.gradients, block.mvp(v)

  v = normal()
  found, product = (np.asarray(a).reshape(B, N) for a in measure(x, v))
  wanted = np.einsum('bij,bj->bi', hessian, np.asarray(v).reshape(B, N))
  np.testing.assert_allclose(found, gradient, atol=1e-12)
  np.testing.assert_allclose(product, wanted, atol=1e-12)


@pytest.fixture(scope='module')
def find():
  """(matrices, v0, which) -> one eigenpair per example, compiled once each."""
  return jax.jit(
    lambda matrices, v0, which: curvature.per_example_eigenpairs(
      lambda v: jnp.einsum('bij,bj->bi', matrices, v.reshape(B, N)).reshape(
        v.shape
      ),
      v0,
      which=which,
      order=N,
      tol=1e-10,
    ),
    static_argnums=2,
  )


@pytest.mark.parametrize('which', ['magnitude', 'top', 'bottom'])
def test_eigenpairs_equal_the_dense_ones(x64, problem, find, which):
  _, x, _, hessian = problem
  found = find(hessian, normal(), which)
  values = np.linalg.eigvalsh(hessian)
  largest = np.take_along_axis(
    values, np.argmax(np.abs(values), 1)[:, None], 1
  )[:, 0]
  wanted = {
    'magnitude': largest,
    'top': values[:, -1],
    'bottom': values[:, 0],
  }[which]
  np.testing.assert_allclose(found.values, wanted, rtol=1e-9)
  vectors = np.asarray(found.vectors).reshape(B, N)
  assert found.vectors.shape == x.shape
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
  error = (
    np.einsum('bij,bj->bi', hessian, vectors)
    - np.asarray(found.values)[:, None] * vectors
  )
  np.testing.assert_allclose(
    np.linalg.norm(error, axis=1), found.residuals, atol=1e-10
  )


@pytest.fixture(scope='module')
def quadratic():
  """Five quadratics with known spectra of both signs; float64 eigenvalues."""
  generator = np.random.default_rng(3)
  spectra = generator.normal(size=(B, N))
  spectra[:, 0] = [-8.0, 7.0, -6.0, 5.0, 0.0]
  spectra[4] = 0  # an example with no curvature at all
  q = np.linalg.qr(generator.normal(size=(B, N, N)))[0]
  return spectra, np.einsum('bij,bj,bkj->bik', q, spectra, q)


def form(matrices, x):
  flat = x.reshape(B, N)
  return jnp.einsum('bi,bij,bj->b', flat, matrices, flat) / 2


def test_negative_eigenvalues_keep_their_sign(quadratic):
  spectra, matrices = quadratic

  @jax.jit
  def measure(matrices, x):
    block = curvature.per_example(lambda x: form(matrices, x), x)
    return curvature.per_example_eigenpairs(
      block.mvp, jnp.ones_like(x), order=N, tol=1e-4
    )

  found = measure(jnp.float32(matrices), jnp.ones((B, *SHAPE)))
  np.testing.assert_allclose(found.values, spectra[:, 0], atol=1e-4)
  # All examples go on until the last has converged, and no longer.
  assert np.all(found.residuals <= 1e-4 * np.abs(found.values))
  assert found.products <= N


def test_examples_do_not_see_each_other(x64, problem):
  fun, x, _, _ = problem

  @jax.jit
  def measure(x, v0):
    block = curvature.per_example(fun, x)
    return curvature.per_example_eigenpairs(block.mvp, v0, order=8).values

  v0, other = normal(), normal(9)
  before = np.asarray(measure(x, v0))
  after = np.asarray(measure(x.at[1:].add(other[1:]), v0))
  np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
  assert np.all(after[1:] != before[1:])


def test_trace_and_frobenius_lie_within_their_error_bars(x64, quadratic):
  _, matrices = quadratic
  x = jnp.ones((B, *SHAPE))

  def measure(key):
    block = curvature.per_example(lambda x: form(matrices, x), x)
    return curvature.per_example_moments(block.mvp, x, key, draws=60)

  found = jax.jit(jax.vmap(measure))(jax.random.split(jax.random.key(0), 100))
  trace = np.trace(matrices, axis1=1, axis2=2)
  frobenius = np.linalg.norm(matrices, axis=(1, 2))
  for value, stderr, truth in (
    (found.trace, found.trace_se, trace),
    (found.frobenius, found.frobenius_se, frobenius),
  ):
    assert value.shape == (100, B)
    error, bars = np.abs(value - truth[None]), np.asarray(stderr)
    np.testing.assert_allclose(error[:, 4], 0, atol=1e-12)
    assert np.mean(error <= 3 * bars + 1e-12) >= 0.98
    assert np.all(np.isfinite(bars))


def test_normalised_curvature_does_not_depend_on_scale(x64, quadratic):
  spectra, matrices = quadratic
  x = normal()
  gradients = np.einsum('bij,bj->bi', matrices, np.asarray(x).reshape(B, N))
  norms = np.linalg.norm(gradients, axis=1)
  with np.errstate(invalid='ignore'):  # 0 / 0 where the Hessian is 0
    wanted = np.abs(spectra[:, 0]) / norms
  for scale in (1.0, 1e3):
    found = curvature.normalized_curvature(
      scale * jnp.asarray(spectra[:, 0]),
      scale * jnp.asarray(gradients).reshape(B, *SHAPE),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


X = jnp.ones((2, 3))
BAD = {
  'shape': (
    lambda: curvature.per_example(lambda x: x, X),
    r'fun\(x\)=\(2, 3\) must be one number per example, of shape \(2,\)',
  ),
  'scalar': (
    lambda: curvature.per_example(jnp.sum, X),
    r'fun\(x\)=\(\) must be one number per example',
  ),
  'integers': (
    lambda: curvature.per_example(lambda x: x[:, 0], jnp.ones((2, 3), int)),
    "x='int32' must be a real",
  ),
  'order': (
    lambda: curvature.per_example_eigenpairs(lambda v: v, X, order=4),
    'order=4 must be at most the dimension, 3',
  ),
  'which': (
    lambda: curvature.per_example_eigenpairs(
      lambda v: v, X, which='max', order=2
    ),
    'allowed: bottom, magnitude, top',
  ),
  'jacobian': (
    lambda: curvature.jacobian_gram(lambda x: x[:, 0], X),
    r'of shape \[B, C\]',
  ),
  'non-finite': (
    lambda: curvature.per_example(lambda x: jnp.log(x[:, 0] - 1), X),
    'must be finite',
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_clear_line(case):
  call, message = BAD[case]
  with pytest.raises(errors.InputError, match=message) as caught:
    call()
  assert '\n' not in str(caught.value)
