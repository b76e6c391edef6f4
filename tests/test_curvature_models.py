"""Are products and eigenvalues exact for every network that we ship?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature, losses, models, train

NETWORKS = {
  'mlp': {'name': 'mlp', 'widths': (6,)},
  'cnn': {'name': 'cnn', 'width': 2, 'depth': 2, 'hidden': 4},
  'resnet8': {'name': 'resnet8', 'width': 2, 'norm': 'group'},
  'vit softmax': {'name': 'vit', 'width': 4, 'depth': 1, 'heads': 2},
  'vit linear': {
    'name': 'vit', 'width': 4, 'depth': 1, 'heads': 2, 'attention': 'linear',
  },
}  # fmt: skip


@pytest.fixture(
  scope='module',
  params=[
    pytest.param(name, marks=pytest.mark.slow if 'resnet' in name else ())
    for name in NETWORKS
  ],
)
def network(request):
  """(mean loss of 6 images in float64, params, its dense Hessian)."""
  with jax.enable_x64(True):
    options = {
      'num_classes': 3,
      'activation': 'gelu',
      **NETWORKS[request.param],
    }
    module = models.build(**options)
    draw = np.random.default_rng(0)
    x, y = jnp.array(draw.random((6, 4, 4, 1))), jnp.arange(6) % 3
    params = jax.jit(module.init)(jax.random.key(0), x)['params']
    params = jax.tree.map(lambda p: p.astype(float), params)
    apply_fn, loss = train.frozen(module, {}), losses.make('cross_entropy')
    fun = lambda params: jnp.mean(loss(apply_fn(params, x)[0], y))
    flat, unravel = ravel_pytree(params)
    # Columns by reverse over reverse, independent of our forward over reverse.
    grad = jax.grad(lambda t: fun(unravel(t)))
    column = jax.grad(lambda t, v: jnp.vdot(grad(t), v))
    dense = jax.jit(
      lambda t: jax.lax.map(lambda v: column(t, v), jnp.eye(t.size))
    )
    return fun, params, np.array(dense(flat))


def test_products_are_those_of_the_dense_hessian(network, x64):
  fun, params, dense = network
  flat, unravel = ravel_pytree(params)
  vectors = np.random.default_rng(1).standard_normal((3, flat.size))

  @jax.jit
  def products(params, vectors):
    mvp = curvature.linearize_hvp(fun, params)
    shared = jax.lax.map(lambda v: ravel_pytree(mvp(unravel(v)))[0], vectors)
    one = curvature.hvp(fun, params, unravel(vectors[0]))
    return shared, ravel_pytree(one)[0]

  shared, one = products(params, vectors)
  for found, v in ((shared, vectors), (one[None], vectors[:1])):
    exact = v @ dense
    errors = np.linalg.norm(found - exact, axis=1)
    assert (errors <= 1e-12 * np.linalg.norm(exact, axis=1)).all()


def test_second_derivatives_are_those_of_the_dense_hessian(network, x64):
  fun, params, dense = network
  flat, unravel = ravel_pytree(params)
  vectors = np.random.default_rng(1).standard_normal((3, flat.size))
  one = lambda p, v: curvature.second_derivative(fun, p, unravel(v))
  found = jax.jit(lambda p, vs: jax.lax.map(lambda v: one(p, v), vs))(
    params, vectors
  )
  exact = np.einsum('si,ij,sj->s', vectors, dense, vectors)
  # Terms of both signs cancel in the sum; they are summed to their rounding.
  size = np.einsum('si,ij,sj->s', *(map(np.abs, (vectors, dense, vectors))))
  assert (np.abs(found - exact) <= 1e-13 * size).all()
  np.testing.assert_allclose(found, exact, rtol=1e-11)


def test_top_five_eigenvalues_are_those_of_the_dense_hessian(network, x64):
  fun, params, dense = network
  start = curvature.rademacher(jax.random.key(0), params)
  order = min(dense.shape[0], 120)

  @jax.jit
  def top(params):
    mvp = curvature.linearize_hvp(fun, params)
    return curvature.top_eigenpairs(mvp, start, k=5, order=order)

  values, _, residuals = top(params)
  exact = np.linalg.eigvalsh(dense)[::-1][:5]
  np.testing.assert_allclose(values, exact, rtol=1e-9, atol=1e-9 * exact[0])
  assert (np.asarray(residuals) < 1e-4 * exact[0]).all()
