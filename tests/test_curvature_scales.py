"""Are curvatures right at any scale of a function and at any margin?

In float32, against closed forms and float64: squares of numbers around 1e-20
are 0 there, and 1 - p is 0 from a logit margin of 17 on.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import curvature, numerics

SCALES = (1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e18)


@pytest.mark.parametrize('scale', SCALES)
def test_eigenpairs_do_not_depend_on_the_scale(scale):
  d = jnp.arange(1.0, 21.0)
  start = jnp.sin(jnp.arange(20.0)) + 0.1
  for tol in (None, 1e-5):
    pairs = curvature.eigenpairs(
      lambda v: scale * d * v, start, k=3, order=20, tol=tol
    )
    np.testing.assert_allclose(pairs.values / scale, [20, 19, 18], rtol=1e-5)
    assert np.all(np.asarray(pairs.residuals) / scale < 1e-2)
    assert pairs.products > 5


@pytest.mark.parametrize('scale', SCALES)
def test_lanczos_keeps_its_basis_orthonormal_at_any_scale(scale):
  d = jnp.arange(1.0, 9.0)
  _, _, basis = curvature.lanczos(
    lambda v: scale * d * v, jnp.ones(8) * scale, 8
  )
  np.testing.assert_allclose(basis @ basis.T, np.eye(8), atol=1e-5)


@pytest.mark.parametrize('scale', SCALES)
def test_norms_of_rows_are_those_of_float64(scale):
  rows = np.random.default_rng(0).normal(size=(4, 3, 5)) * scale
  found = numerics.norm(jnp.asarray(rows, jnp.float32), (1, 2))
  wanted = np.linalg.norm(rows.reshape(4, -1), axis=1)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  found = curvature.gradient_norms(jnp.asarray(rows, jnp.float32))
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_norm_has_the_bits_of_a_root_of_squares_where_that_is_in_range():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 7)), jnp.float32)
  plain = jnp.sqrt(jnp.sum(jnp.square(x), 1))
  np.testing.assert_array_equal(numerics.norm(x, 1), plain)


def test_the_derivative_of_a_norm_is_the_unit_vector_and_0_at_0():
  for scale in (1e-20, 1.0, 1e15):
    x = scale * jnp.array([3.0, -4.0])
    grad = jax.grad(lambda x: numerics.norm(x, 0))(x)
    np.testing.assert_allclose(grad, [0.6, -0.8], rtol=1e-6)
  np.testing.assert_array_equal(
    jax.grad(lambda x: numerics.norm(x, 0))(jnp.zeros(3)), 0
  )


@pytest.mark.parametrize('scale', SCALES)
def test_normalized_curvature_is_free_of_scale(scale):
  gradient = jnp.full((1, 4), scale, jnp.float32)
  ratio = curvature.normalized_curvature(jnp.array([scale]), gradient)
  np.testing.assert_allclose(ratio, 0.5, rtol=1e-6)


def test_normalized_curvature_is_undefined_where_the_gradient_is_0():
  ratio = curvature.normalized_curvature(
    jnp.array([0.0, 1.0]), jnp.zeros((2, 3))
  )
  assert np.isnan(ratio).all()


@pytest.mark.parametrize('scale', (1e-20, 1e-10, 1.0, 1e10))
def test_jacobian_norms_do_not_underflow(scale):
  w = np.random.default_rng(0).normal(size=(6, 3))
  fun = lambda x: scale * x @ jnp.asarray(w, jnp.float32)
  gram = curvature.jacobian_gram(fun, jnp.ones((2, 6)))
  operator, frobenius = curvature.jacobian_norms(gram)
  np.testing.assert_allclose(operator / scale, np.linalg.norm(w, 2), rtol=1e-5)
  np.testing.assert_allclose(frobenius / scale, np.linalg.norm(w), rtol=1e-5)


def softmax_hessian(z: np.ndarray) -> np.ndarray:
  """diag p - p p' in float64, 1 - p as the sum of the others."""
  p = np.exp(z - z.max())
  p /= p.sum()
  matrix = -np.outer(p, p)
  for i in range(len(p)):
    matrix[i, i] = p[i] * np.delete(p, i).sum()
  return matrix


@pytest.mark.parametrize('margin', (0, 5, 17, 20, 40, 60, 80))
def test_fisher_products_hold_at_any_margin(margin):
  draw = np.random.default_rng(0)
  w = draw.normal(size=(6, 4)).astype(np.float32)
  v = draw.normal(size=(6, 4)).astype(np.float32)
  x = np.eye(1, 6, dtype=np.float32)
  shift = -x @ w + np.array([[margin, 0, -1, 0.5]], np.float32)
  logits = lambda p: x @ p + jnp.asarray(shift)
  found = curvature.fisher(logits, jnp.asarray(w))(jnp.asarray(v))
  z = np.asarray(logits(w), np.float64)[0]
  wanted = x.T @ (softmax_hessian(z) @ (x @ v)[0])[None]
  scale = np.abs(wanted).max()
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize('margin', (0, 20, 60))
def test_gauss_newton_eigenvalues_hold_at_any_margin(margin):
  w = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  b = jnp.array([[margin, 0.0, 1.0]])
  logits = lambda x: x @ w + b
  x = jnp.zeros((1, 5))
  found = curvature.gauss_newton_eigenvalues(
    curvature.jacobian_gram(logits, x), logits(x)
  )[0]
  dense = w.astype(float) @ softmax_hessian(np.asarray(b[0], float)) @ w.T
  values = np.linalg.eigvalsh(dense)
  np.testing.assert_allclose(found, [values[-1], values.sum()], rtol=1e-4)


@pytest.mark.parametrize('dtype', (jnp.float16, jnp.bfloat16, jnp.float32))
def test_traces_of_short_types_are_summed_in_float32(dtype):
  like = jnp.zeros(70_000, dtype)
  mean, stderr = curvature.trace(
    lambda v: 2 * v, like, jax.random.key(0), draws=4
  )
  assert mean == 140_000 and stderr == 0


@pytest.mark.parametrize('scale', (1e-20, 1.0, 1e10))
@pytest.mark.parametrize('spread', (0.0, 1e-6, 1.0))
def test_a_density_integrates_to_one_however_narrow_it_is(scale, spread):
  d = scale * (1 + spread * jnp.linspace(0, 1, 12))
  grid, density = curvature.density(
    lambda v: d * v, jnp.zeros(12), jax.random.key(0), order=6, draws=4
  )
  mass = np.trapezoid(np.asarray(density, float), np.asarray(grid, float))
  assert mass == pytest.approx(1, abs=0.02)


def test_batch_sharpness_of_small_gradients_is_the_curvature_along_them():
  d = jnp.array([1.0, 4.0])
  batches = {'slope': jnp.array([[1e-21, 0.0], [0.0, 1e-21]])}
  fun = lambda p, b: 0.5 * jnp.sum(d * p * p) + jnp.sum(b['slope'] * p)
  mean, _ = curvature.batch_sharpness(fun, jnp.zeros(2), batches)
  np.testing.assert_allclose(mean, 2.5, rtol=1e-6)
