"""Do traces, norms and densities agree with dense linear algebra?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature, errors
from tests.matrices import SIZE, SPECTRA, symmetric, tree_product


def test_signs_are_fair_and_do_not_see_each_other(x64):
  # All 32 signs of a word come from one draw, so neighbours could agree.
  tree = {'a': jnp.zeros((61, 7)), 'b': jnp.zeros(20_000, jnp.float32)}
  drawn = curvature.rademacher(jax.random.key(3), tree)
  assert jax.tree.map(lambda v: (v.shape, v.dtype), drawn) == jax.tree.map(
    lambda v: (v.shape, v.dtype), tree
  )
  signs = np.asarray(ravel_pytree(drawn)[0])
  assert set(signs) == {-1.0, 1.0}
  for lag in range(65):
    mean = np.mean(signs[lag:] * signs[: len(signs) - lag] if lag else signs)
    assert abs(mean) < 4.5 / np.sqrt(len(signs) - lag), lag


def test_trace_over_a_basis_is_exact(x64):
  matrix = symmetric(SPECTRA['indefinite'])
  mvp, like = tree_product(matrix)
  unravel = ravel_pytree(like)[1]
  basis = jax.vmap(unravel)(jnp.eye(SIZE))
  forms = jax.jit(lambda b: curvature.quadratic_forms(mvp, b))(basis)
  np.testing.assert_allclose(jnp.sum(forms), np.trace(matrix), rtol=1e-12)


def over_seeds(estimate, seeds=300):
  keys = jax.random.split(jax.random.key(0), seeds)
  return jax.tree.map(np.asarray, jax.jit(jax.vmap(estimate))(keys))


@pytest.fixture(scope='module')
def sampled():
  """matrix, keys -> moments of each key, 100 draws each."""
  return jax.jit(
    jax.vmap(
      lambda matrix, key: curvature.moments(
        *tree_product(matrix), key, draws=100
      ),
      (None, 0),
    )
  )


@pytest.mark.parametrize('name', SPECTRA)
def test_moments_lie_within_three_standard_errors(x64, sampled, name):
  matrix = symmetric(SPECTRA[name])
  keys = jax.vmap(jax.random.key)(jnp.arange(3000))
  found = jax.tree.map(np.asarray, sampled(matrix, keys))
  # 3,000 seeds: the share that leaves three bars is 0.3 % for a normal law, a
  # little more for these skewed ones, and 300 seeds do not resolve 1 %.
  for value, stderr, truth in (
    (found.trace, found.trace_se, np.trace(matrix)),
    (found.frobenius, found.frobenius_se, np.linalg.norm(matrix)),
  ):
    z = (value - truth) / stderr
    assert np.mean(np.abs(z) <= 3) >= 0.99
    assert 0.85 < np.std(z) < 1.15  # and the bars are not too wide


def wave(params):
  """A scalar function of a tree with a curved, coupled Hessian."""
  return jnp.sum(jnp.sin(jnp.outer(params['a'], params['b'])) ** 2)


@pytest.mark.parametrize('draws', [2, 7])
def test_hessian_trace_is_the_trace_of_the_product(x64, draws):
  draw = np.random.default_rng(0)
  at = {n: jnp.array(draw.normal(size=k)) for n, k in (('a', 5), ('b', 3))}
  key = jax.random.key(4)
  found = curvature.hessian_trace(wave, at, key, draws=draws)
  mvp = curvature.linearize_hvp(wave, at)
  wanted = curvature.trace(mvp, at, key, draws=draws)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_trace_and_frobenius_are_the_moments(x64):
  mvp, like = tree_product(symmetric(SPECTRA['indefinite']))
  key = jax.random.key(3)
  both = curvature.moments(mvp, like, key, draws=5)
  assert curvature.trace(mvp, like, key, draws=5) == (
    both.trace,
    both.trace_se,
  )
  assert curvature.frobenius(mvp, like, key, draws=5) == (
    both.frobenius,
    both.frobenius_se,
  )


def test_density_moments_lie_within_their_error_bars(x64):
  matrix = symmetric(SPECTRA['negative dominates'])
  mvp, like = tree_product(matrix)
  truth = [
    np.trace(np.linalg.matrix_power(matrix, p)) / SIZE for p in (1, 2, 3, 4)
  ]

  def estimate(key):
    rule = curvature.spectral_quadrature(mvp, like, key, order=10, draws=30)
    return curvature.spectral_moments(rule, 4)

  mean, stderr = over_seeds(estimate, 100)
  z = (mean - np.array(truth)) / stderr
  assert np.mean(np.abs(z) <= 3) >= 0.97
  assert np.all(np.abs(z.mean(0)) < 0.5)


def test_density_is_that_of_the_eigenvalues(x64):
  values = SPECTRA['indefinite']
  mvp, like = tree_product(symmetric(values))
  rule = curvature.spectral_quadrature(
    mvp, like, jax.random.key(0), order=SIZE, draws=100
  )
  grid = jnp.linspace(-12, 12, 400)
  found, stderr = curvature.smoothed(rule, grid, 1.0)
  z = np.asarray(grid)[:, None] - values
  truth = np.mean(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), 1)
  assert np.max(np.abs(found - truth)) < 4 * np.max(stderr) < 0.02


def test_density_integrates_to_one_and_covers_the_spectrum(x64):
  mvp, like = tree_product(symmetric(SPECTRA['negative dominates']))
  grid, found = jax.jit(
    lambda key: curvature.density(mvp, like, key, order=15, draws=4)
  )(jax.random.key(0))
  assert grid.shape == found.shape == (1024,)
  np.testing.assert_allclose(np.trapezoid(found, grid), 1, atol=1e-4)
  assert grid[0] < -9 and grid[-1] > 2


MVP = lambda v: v
VECTOR = jnp.ones(5)
KEY = jax.random.key(0)
BAD = {
  'draws': (lambda: curvature.trace(MVP, VECTOR, KEY, draws=1), 'draws=1'),
  'empty': (lambda: curvature.trace(MVP, {}, KEY, draws=9), 'at least one'),
  'hessian_trace draws': (
    lambda: curvature.hessian_trace(jnp.sum, VECTOR, KEY, draws=1),
    'draws=1',
  ),
  'hessian_trace empty': (
    lambda: curvature.hessian_trace(jnp.sum, {}, KEY, draws=2),
    'at least one',
  ),
  'hessian_trace scalar': (
    lambda: curvature.hessian_trace(jnp.sin, VECTOR, KEY, draws=2),
    r'fun\(x\)',
  ),
  'density order': (
    lambda: curvature.density(MVP, VECTOR, KEY, order=6, draws=2),
    'at most the dimension',
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_clear_line(case):
  call, message = BAD[case]
  with pytest.raises(errors.InputError, match=message) as caught:
    call()
  assert '\n' not in str(caught.value)
