"""Are differences within a radius, and Jacobians, what they should be?"""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature

B, SHAPE, N, CLASSES = 5, (3, 3, 2), 18, 4


def normal():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.normal(size=(B, *SHAPE)))


def logits(x):
  """A fixed network with one hidden layer, x [B, 3, 3, 2] -> [B, 4]."""
  generator = np.random.default_rng(1)
  hidden = jnp.tanh(x.reshape(-1, N) @ generator.normal(size=(N, 6)))
  return hidden @ generator.normal(size=(6, CLASSES))


def test_gradient_variation_of_a_quadratic(x64):
  generator = np.random.default_rng(3)
  matrices = generator.normal(size=(B, N, N))
  matrices = matrices + matrices.mT
  spectra = np.linalg.eigvalsh(matrices)

  def form(x):
    flat = x.reshape(B, N)
    return jnp.einsum('bi,bij,bj->b', flat, matrices, flat) / 2

  measure = jax.jit(
    lambda radius: curvature.gradient_variation(
      form,
      normal(),
      jax.random.key(0),
      radius=radius,
      draws=400,
    )
  )
  for radius in (1e-3, 10.0):  # exact at any radius: the Hessian is constant
    mean, largest = measure(radius)
    assert np.all(largest <= np.abs(spectra).max(1) + 1e-9)
    # E‖H u‖² = ‖H‖_F² / n, and the mean lies below its root.
    root = np.linalg.norm(spectra, axis=1) / N**0.5
    assert np.all(mean <= 1.05 * root)
    assert np.all(mean >= 0.8 * root)
  assert measure._cache_size() == 1


def test_gradient_variation_sees_the_kinks_of_a_relu(x64):
  # The Hessian is zero wherever it exists; the gradient jumps by 2 at 0.
  fun = lambda x: jnp.sum(jnp.abs(x), axis=1)
  x = jnp.array([[0.01], [5.0]])
  mean, largest = curvature.gradient_variation(
    fun, x, jax.random.key(0), radius=0.1, draws=50
  )
  np.testing.assert_allclose(largest, [2 / 0.1, 0])
  assert 0.3 * 20 < mean[0] < 0.7 * 20  # half of the directions cross


def test_local_lipschitz_is_attained_and_never_exceeded(x64):
  generator = np.random.default_rng(0)
  weights = jnp.asarray(generator.normal(size=(N, CLASSES)))
  truth = np.linalg.norm(weights, 2)
  x = normal()

  def linear(x):
    return x.reshape(B, N) @ weights

  measure = jax.jit(
    lambda radius: curvature.local_lipschitz(
      linear, x, jax.random.key(0), radius=radius, steps=60
    )
  )
  found, delta = measure(0.5)
  assert np.all(found <= truth + 1e-12)
  np.testing.assert_allclose(found, truth, rtol=1e-2)
  norms = np.linalg.norm(np.asarray(delta).reshape(B, N), axis=1)
  assert np.all(norms <= 0.5 + 1e-12)
  attained = np.linalg.norm(linear(x + delta) - linear(x), axis=1) / norms
  np.testing.assert_allclose(attained, found)


def test_local_lipschitz_looks_inside_the_ball(x64):
  # Steepest at the centre: the quotient falls from 1 to tanh(r) / r.
  found, delta = jax.jit(
    lambda x: curvature.local_lipschitz(
      lambda x: jnp.tanh(x[:, 0]),
      x,
      jax.random.key(0),
      radius=3.0,
      steps=40,
      step_size=0.1,
    )
  )(jnp.zeros((2, 1)))
  assert np.all(np.abs(delta) < 0.2)
  assert np.all((found > 0.98) & (found <= 1))


def test_local_lipschitz_of_a_constant_is_zero():
  found, delta = curvature.local_lipschitz(
    lambda x: 0 * x[:, 0],
    jnp.ones((2, 3)),
    jax.random.key(0),
    radius=1.0,
    steps=3,
  )
  np.testing.assert_array_equal(found, 0)
  assert np.all(np.isfinite(delta))


def test_jacobian_norms_equal_the_dense_ones(x64):
  x = normal()

  @jax.jit
  def measure(x):
    gram = curvature.jacobian_gram(logits, x)
    single = lambda flat: logits(flat.reshape(1, *SHAPE))[0]
    return (
      curvature.jacobian_norms(gram),
      curvature.gauss_newton_eigenvalues(gram, logits(x)),
      jax.vmap(jax.jacobian(single))(x.reshape(B, N)),
      jax.nn.softmax(logits(x)),
    )

  (operator, frobenius), eigenvalues, jacobian, p = measure(x)
  jacobian, p = np.asarray(jacobian), np.asarray(p)
  np.testing.assert_allclose(operator, np.linalg.norm(jacobian, 2, (1, 2)))
  np.testing.assert_allclose(frobenius, np.linalg.norm(jacobian, axis=(1, 2)))
  for b in range(B):
    middle = np.diag(p[b]) - np.outer(p[b], p[b])
    dense = np.linalg.eigvalsh(jacobian[b].T @ middle @ jacobian[b])
    np.testing.assert_allclose(
      eigenvalues[b], [dense[-1], dense.sum()], rtol=1e-9
    )
