"""Is the curvature that stochastic descent meets measured right?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature, errors

S, N = 6, 7


def fun(params, batch):
  """A smooth loss whose Hessian differs from batch to batch."""
  z = params['w'] * batch['a'] + params['b'][None]
  return jnp.mean(jnp.sum(jnp.sin(z), -1) ** 2)


@pytest.fixture(scope='module')
def problem():
  """(params, batches, dense gradients [S, n], dense Hessians [S, n, n])."""
  with jax.enable_x64(True):
    generator = np.random.default_rng(0)
    params = {
      'w': jnp.asarray(generator.normal(size=(1, 4))),
      'b': jnp.asarray(generator.normal(size=4)),
    }
    batches = {'a': jnp.asarray(generator.normal(size=(S, 3, 4)))}
    flat, unravel = ravel_pytree(params)
    one = lambda z, batch: fun(unravel(z), batch)
    dense = jax.jit(
      lambda z: jax.lax.map(
        lambda b: (jax.grad(one)(z, b), jax.hessian(one)(z, b)), batches
      )
    )
    gradients, hessians = map(np.asarray, dense(flat))
  return params, batches, gradients, hessians


def test_batch_sharpness_is_the_mean_quotient(x64, problem):
  params, batches, g, h = problem
  mean, stderr = jax.jit(lambda p, b: curvature.batch_sharpness(fun, p, b))(
    params, batches
  )
  quotients = np.einsum('si,sij,sj->s', g, h, g) / np.sum(g**2, 1)
  np.testing.assert_allclose(mean, quotients.mean(), rtol=1e-12)
  np.testing.assert_allclose(stderr, quotients.std(ddof=1) / S**0.5, rtol=1e-12)


def test_batch_sharpness_of_a_flat_point_is_zero():
  flat = lambda params, batch: jnp.sum(params * 0) * jnp.sum(batch)
  mean, stderr = curvature.batch_sharpness(flat, jnp.ones(2), jnp.ones((3, 1)))
  assert mean == stderr == 0


def test_noise_covariance_equals_the_dense_one(x64, problem):
  params, batches, _, h = problem
  unravel = ravel_pytree(params)[1]
  columns = jax.jit(
    lambda basis: jax.lax.map(
      lambda e: ravel_pytree(
        curvature.noise_covariance(fun, params, batches)(unravel(e))
      )[0],
      basis,
    )
  )(jnp.eye(8))
  mean = h.mean(0)
  wanted = np.mean([m @ m for m in h], 0) - mean @ mean
  np.testing.assert_allclose(columns, wanted, atol=1e-12 * np.abs(wanted).max())


def test_bad_batches_are_one_clear_line():
  for batches, message in (
    (jnp.ones((1, 2)), 'at least 2 of them'),
    ({'a': jnp.ones((3, 2)), 'b': jnp.ones((4, 2))}, 'one common first axis'),
    (jnp.ones(()), 'one common first axis'),
  ):
    with pytest.raises(errors.InputError, match=message) as caught:
      curvature.batch_sharpness(fun, jnp.ones(2), batches)
    assert '\n' not in str(caught.value)
