"""Is the curvature that stochastic descent meets measured right?"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def test_lambda_max_of_single_batches(x64, problem):
  params, batches, _, h = problem
  values, residuals = jax.jit(
    lambda p, b: curvature.batch_lambda_max(
      fun, p, b, jax.tree.map(jnp.ones_like, p), order=8, tol=1e-9
    )
  )(params, batches)
  largest = np.linalg.eigvalsh(h)[:, -1]
  np.testing.assert_allclose(values, largest, rtol=1e-9)
  assert np.all(residuals <= 1e-9 * np.abs(largest))
  assert values.mean() >= np.linalg.eigvalsh(h.mean(0))[-1]


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


def final_size(tx, steps=1000):
  """|x| after descent on x² / 2 (curvature 1) from 1."""

  @jax.jit
  def run():
    def step(carry, _):
      x, state = carry
      update, state = tx.update(x, state)
      return (optax.apply_updates(x, update), state), None

    x = jnp.ones(1)
    return jax.lax.scan(step, (x, tx.init(x)), length=steps)[0][0]

  return float(jnp.abs(run()[0]))


@pytest.mark.parametrize('momentum', [0.0, 0.5, 0.9])
def test_descent_with_momentum_turns_unstable_at_the_threshold(x64, momentum):
  # Curvature 1 is the threshold for this learning rate.
  lr = curvature.momentum_threshold(1.0, momentum)
  assert final_size(optax.sgd(0.97 * lr, momentum=momentum)) < 1e-3
  assert final_size(optax.sgd(1.03 * lr, momentum=momentum)) > 1e3


def test_averaged_momentum_turns_unstable_at_adams_threshold(x64):
  # Adam with its preconditioner held at 1.
  lr = curvature.adam_threshold(1.0, 0.9)
  assert lr == pytest.approx(38)
  frozen = lambda lr: optax.chain(
    optax.ema(0.9, debias=False), optax.scale(-lr)
  )
  assert final_size(frozen(0.97 * lr)) < 1e-3
  assert final_size(frozen(1.03 * lr)) > 1e3


def test_adam_diagonal_is_what_adam_divides_by(x64):
  generator = np.random.default_rng(0)
  tx = optax.scale_by_adam(b1=0.8, b2=0.95, eps=1e-3)
  state = tx.init(jnp.zeros(N))
  for _ in range(3):
    update, state = tx.update(jnp.asarray(generator.normal(size=N)), state)
  diagonal = curvature.adam_diagonal(
    state.nu, state.count, b1=0.8, b2=0.95, eps=1e-3
  )
  np.testing.assert_allclose(update * diagonal, state.mu, rtol=1e-9)


def test_preconditioned_product_has_the_eigenvalues_of_the_quotient(x64):
  generator = np.random.default_rng(0)
  matrix = generator.normal(size=(N, N))
  matrix = jnp.asarray(matrix + matrix.T)
  diagonal = jnp.asarray(generator.uniform(0.1, 5, size=N))
  values, vectors, _ = jax.jit(
    lambda v: curvature.top_eigenpairs(
      curvature.precondition(lambda v: matrix @ v, diagonal),
      v,
      k=2,
      order=N,
    )
  )(jnp.ones(N))
  quotient = np.asarray(matrix) / np.asarray(diagonal)[:, None]
  wanted = np.sort(np.linalg.eigvals(quotient).real)[::-1][:2]
  np.testing.assert_allclose(values, wanted, rtol=1e-9)
  u = np.asarray(vectors[0]) / np.sqrt(diagonal)
  np.testing.assert_allclose(quotient @ u, values[0] * u, atol=1e-9)


def test_alignment_is_the_share_of_the_gradient(x64):
  q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
  vectors = {'a': jnp.asarray(q[:, :3]), 'b': jnp.asarray(q[:, 3:])}
  shares = np.array([0.5, 0.3, 0.2, 0, 0, 0, 0])
  g = -4 * np.sqrt(shares) @ q
  grad = {'a': jnp.asarray(g[:3]), 'b': jnp.asarray(g[3:])}
  np.testing.assert_allclose(
    curvature.alignment(grad, vectors), shares, atol=1e-12
  )
  zero = jax.tree.map(jnp.zeros_like, grad)
  np.testing.assert_array_equal(curvature.alignment(zero, vectors), 0)


def test_bad_batches_are_one_clear_line():
  for batches, message in (
    (jnp.ones((1, 2)), 'at least 2 of them'),
    ({'a': jnp.ones((3, 2)), 'b': jnp.ones((4, 2))}, 'one common first axis'),
    (jnp.ones(()), 'one common first axis'),
  ):
    with pytest.raises(errors.InputError, match=message) as caught:
      curvature.batch_sharpness(fun, jnp.ones(2), batches)
    assert '\n' not in str(caught.value)
