"""Does Lanczos find what dense linear algebra finds, and stop in time?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature, errors
from implicit_attr.curvature import krylov
from tests.matrices import SIZE, SPECTRA, noise, rows, symmetric, tree_product


@pytest.fixture(scope='module')
def find():
  """(matrix, v0) -> five eigenpairs, compiled once for each end."""

  def of(which):
    return jax.jit(
      lambda matrix, v: curvature.eigenpairs(
        tree_product(matrix)[0], v, k=5, which=which, order=SIZE, tol=1e-10
      )
    )

  return {which: of(which) for which in ('top', 'bottom', 'magnitude')}


@pytest.mark.parametrize('name', SPECTRA)
def test_eigenpairs_equal_the_dense_ones(x64, find, name):
  matrix = symmetric(SPECTRA[name])
  like = tree_product(matrix)[1]
  values = np.sort(SPECTRA[name])
  wanted = {
    'top': values[::-1][:5],
    'bottom': values[:5],
    'magnitude': values[np.argsort(-np.abs(values))][:5],
  }
  for which, expected in wanted.items():
    found = find[which](matrix, noise(like))
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    vectors = rows(found.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(5), atol=1e-10)
    true = np.linalg.norm(
      matrix @ vectors.T - vectors.T * np.asarray(found.values), axis=0
    )
    np.testing.assert_allclose(true, found.residuals, atol=1e-10)


def network():
  """A small network under squared error: (fun, params, dense Hessian)."""
  keys = jax.random.split(jax.random.key(0), 4)
  params = {
    'w': jax.random.normal(keys[0], (6, 5)),
    'b': jnp.zeros(5),
    'v': jax.random.normal(keys[1], (5, 3)),
  }
  x = jax.random.normal(keys[2], (20, 6))
  y = jax.random.normal(keys[3], (20, 3))

  def fun(p):
    hidden = jnp.tanh(x @ p['w'] + p['b'][None])
    return jnp.mean((hidden @ p['v'] - y) ** 2)

  flat, unravel = ravel_pytree(params)
  dense = jax.jit(jax.hessian(lambda z: fun(unravel(z))))(flat)
  return fun, params, np.asarray(dense)


def test_top_five_of_a_network_to_nine_digits(x64):
  fun, params, dense = network()
  values = np.linalg.eigvalsh(dense)

  @jax.jit
  def both_ends(params, v0):
    mvp = curvature.linearize_hvp(fun, params)
    options = {'k': 5, 'order': 50, 'tol': 1e-8}
    return (
      curvature.top_eigenpairs(mvp, v0, **options)[0],
      curvature.bottom_eigenpairs(mvp, v0, **options)[0],
    )

  top, bottom = both_ends(params, noise(params))
  np.testing.assert_allclose(top, values[::-1][:5], rtol=1e-9)
  np.testing.assert_allclose(bottom, values[:5], rtol=1e-9)


@pytest.fixture(scope='module')
def tridiagonalise():
  """(matrix, v0) -> (tridiagonal matrix, basis as rows), full dimension."""

  @jax.jit
  def run(matrix, v):
    return curvature.lanczos(tree_product(matrix)[0], v, SIZE)

  def dense(matrix):
    alphas, betas, basis = run(matrix, noise(tree_product(matrix)[1]))
    assert alphas.shape == (SIZE,) and betas.shape == (SIZE - 1,)
    projected = np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1)
    return projected, rows(basis)

  return dense


def test_lanczos_is_the_projection_on_an_orthonormal_basis(x64, tridiagonalise):
  matrix = symmetric(SPECTRA['negative dominates'])
  projected, v = tridiagonalise(matrix)
  np.testing.assert_allclose(v @ v.T, np.eye(SIZE), atol=1e-13)
  np.testing.assert_allclose(v @ matrix @ v.T, projected, atol=1e-12)


@pytest.mark.parametrize('order, k', [(20, 1), (20, 6), (7, 2)])
def test_ritz_pairs_after_each_step_are_those_of_the_part_that_is_filled(
  x64, order, k
):
  draw = np.random.default_rng(order + k)
  alphas, betas = draw.normal(size=(3, order)), draw.uniform(size=(3, order))
  ritz = jax.jit(krylov.ritz, static_argnums=(1, 2))
  none = jnp.zeros((3, 0))
  for steps in range(k, order + 1):
    filled = np.arange(order) < steps
    state = krylov.Krylov(alphas * filled, betas * filled, none, none, steps)
    found = ritz(state, k, 'magnitude')
    for b in range(3):
      inside = betas[b, : steps - 1]
      matrix = np.diag(alphas[b, :steps]) + np.diag(inside, 1)
      values, weights = np.linalg.eigh(matrix + np.diag(inside, -1))
      first = np.argsort(-np.abs(values))[:k]
      np.testing.assert_allclose(found.values[b], values[first], atol=1e-13)
      sizes = np.abs(weights[:, first])
      np.testing.assert_allclose(
        np.abs(found.weights[b, :steps]), sizes, atol=1e-10
      )
      assert not np.any(found.weights[b, steps:])
      np.testing.assert_allclose(
        found.residuals[b], betas[b, steps - 1] * sizes[-1], atol=1e-10
      )


def test_basis_stays_orthonormal_in_float32():
  diagonal = jnp.asarray(np.r_[1e4, np.logspace(2, -6, 199)], jnp.float32)
  _, _, basis = jax.jit(
    lambda v: curvature.lanczos(lambda v: diagonal * v, v, 100)
  )(jnp.ones(200))
  assert basis.dtype == jnp.float32
  np.testing.assert_allclose(basis @ basis.T, np.eye(100), atol=3e-6)


def test_basis_stays_orthonormal_where_little_room_is_left():
  # Three eigenvalues: all but three of the 300 vectors are arbitrary ones, the
  # last of which lose nearly all of their length to the basis.
  diagonal = jnp.asarray(np.r_[np.full(298, 2.0), 5, -8], jnp.float32)
  start = jnp.asarray(np.random.default_rng(0).normal(size=300), jnp.float32)
  _, _, basis = jax.jit(
    lambda v: curvature.lanczos(lambda v: diagonal * v, v, 300)
  )(start)
  np.testing.assert_allclose(basis @ basis.T, np.eye(300), atol=3e-6)


@pytest.mark.parametrize(
  'spectrum',
  [np.zeros(SIZE), np.ones(SIZE), np.r_[np.full(SIZE - 3, 2.0), 5, 5, -8]],
  ids=['zero', 'identity', 'three values'],
)
def test_exhausted_krylov_space_gives_the_spectrum_and_no_nan(
  x64, tridiagonalise, spectrum
):
  projected, v = tridiagonalise(symmetric(spectrum))
  # Every eigenvalue as often as it occurs: multiplicities are not lost.
  np.testing.assert_allclose(
    np.linalg.eigvalsh(projected), np.sort(spectrum), atol=1e-12
  )
  np.testing.assert_allclose(v @ v.T, np.eye(SIZE), atol=1e-13)


def test_zero_start_is_a_random_start():
  diagonal = jnp.arange(10.0)
  values, _, _ = curvature.top_eigenpairs(
    lambda v: diagonal * v, jnp.zeros(10), order=10
  )
  np.testing.assert_allclose(values, [9.0], rtol=1e-5)


def test_nan_ends_the_search_and_shows(adaptive):
  found = adaptive[0](jnp.full(100, jnp.nan, jnp.float32), 1e-3)
  assert found.products == 1 and np.isnan(found.values).all()


@pytest.fixture(scope='module')
def adaptive():
  """eigenpairs with a traced tolerance, compiled; (find, matrix, traces)."""
  values = np.r_[-2, 10, 9, np.linspace(0, 5, 97)]
  matrix = jnp.asarray(symmetric(values), jnp.float32)
  traces = []

  @jax.jit
  def find(v, tol):
    traces.append(tol)
    return curvature.eigenpairs(lambda v: matrix @ v, v, order=60, tol=tol)

  return find, np.asarray(matrix), traces


def test_search_stops_on_the_residual(adaptive):
  find, matrix, traces = adaptive
  v0 = noise(jnp.zeros(100)).astype(jnp.float32)
  used = []
  for tol in (0.3, 0.03, 0.003):
    found = find(v0, tol)
    value, vector = found.values[0], np.asarray(found.vectors[0])
    true = np.linalg.norm(matrix @ vector - value * vector)
    assert true <= 1.01 * tol * value
    # The value is far better than its residual.
    assert abs(value - 10) <= 1.1 * true**2
    used.append(int(found.products))
  assert used[0] < used[1] < used[2] < 60
  assert len(traces) == 1  # the tolerance is traced


def test_vectors_stay_orthogonal_in_float32_long_after_convergence():
  # The top pair converges many steps before the fourth; without cleaning it
  # would come back as a ghost.
  values = np.r_[1000, 10, 9.9, 9.8, np.linspace(0, 9, 96)]
  matrix = jnp.asarray(symmetric(values), jnp.float32)
  found = jax.jit(
    lambda v: curvature.eigenpairs(
      lambda v: matrix @ v, v, k=4, order=90, tol=2e-3
    )
  )(jnp.ones(100))
  assert found.products > 20
  np.testing.assert_allclose(found.values, values[:4], rtol=1e-4)
  overlaps = np.asarray(found.vectors @ found.vectors.T)
  np.testing.assert_allclose(overlaps, np.eye(4), atol=1e-5)


def test_warm_start_needs_fewer_products(adaptive):
  find = adaptive[0]
  cold = find(noise(jnp.zeros(100)).astype(jnp.float32), 0.01)
  moved = cold.vectors[0] + 0.02 * noise(jnp.zeros(100), 7)
  warm = find(moved.astype(jnp.float32), 0.01)
  assert warm.products < cold.products / 2
  np.testing.assert_allclose(warm.values, cold.values, rtol=1e-3)


MVP = lambda v: v
VECTOR = jnp.ones(5)
KEY = jax.random.key(0)
BAD = {
  'order': (
    lambda: curvature.lanczos(MVP, VECTOR, 6),
    'order=6 must be at most the dimension, 5',
  ),
  'order 0': (lambda: curvature.lanczos(MVP, VECTOR, 0), 'order=0 must be'),
  'k': (
    lambda: curvature.top_eigenpairs(MVP, VECTOR, k=4, order=3),
    'k=4 must be an integer >= 1 and <= 3',
  ),
  'which': (
    lambda: curvature.eigenpairs(MVP, VECTOR, which='botom', order=3),
    "did you mean 'bottom'",
  ),
  'integers': (
    lambda: curvature.lanczos(MVP, jnp.arange(5), 2),
    "like='int32' must be a real",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_clear_line(case):
  call, message = BAD[case]
  with pytest.raises(errors.InputError, match=message) as caught:
    call()
  assert '\n' not in str(caught.value)
