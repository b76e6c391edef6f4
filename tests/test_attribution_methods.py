"""Does every method keep what `METHODS` promises?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution

B, H, W, C, CLASSES = 3, 6, 6, 2, 4
OPTIONS = {
  **{n: {'samples': 2} for n in ('smoothgrad', 'smoothgrad_squared')},
  'vargrad': {'samples': 3},
  'expected_gradients': {'samples': 2},
  'integrated_gradients': {'steps': 3, 'chunk': 2},
  'deeplift': {'baseline': 0.2},
  'occlusion': {'window': 3, 'stride': 2},
}
KEYED = {
  'smoothgrad', 'smoothgrad_squared', 'vargrad', 'expected_gradients',
  'random',
}  # fmt: skip


def network(params, x):
  x = jax.lax.conv_general_dilated(
    x, params['k'], (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  x = jax.nn.softplus(4 * x) / 4
  features = x
  x = jax.nn.softplus(4 * x.reshape(x.shape[0], -1) @ params['w']) / 4
  return x @ params['v'], {'features': features}


@functools.cache
def case():
  rng = np.random.default_rng(0)
  params = {
    'k': rng.normal(size=(3, 3, C, 3)) / 3,
    'w': rng.normal(size=(27, 8)) / 3,
    'v': rng.normal(size=(8, CLASSES)) / 2,
  }
  params = jax.tree.map(jnp.asarray, params)
  x = jnp.asarray(rng.uniform(size=(B, H, W, C)))
  y = jnp.array([1, 3, 1])
  v, w = jnp.asarray(rng.normal(size=(2, B, H, W, C)))
  return params, x, y, v, w


@functools.cache
def explain(name, target='logit'):
  def fun(params, x, y, key):
    return attribution.METHODS[name](
      network, params, x, y, key=key, target=target, **OPTIONS.get(name, {})
    )

  return jax.jit(fun)


each_method = pytest.mark.parametrize('name', attribution.METHODS)


@each_method
def test_a_map_has_the_shape_of_x_and_ignores_the_batch_around_it(x64, name):
  params, x, y, *_ = case()
  key = jax.random.key(0)
  together = explain(name)(params, x, y, key)
  assert together.shape == x.shape and together.dtype == x.dtype
  assert np.all(np.isfinite(together)) and np.any(together != 0)
  alone = [
    explain(name)(params, x[i : i + 1], y[i : i + 1], key) for i in range(B)
  ]
  np.testing.assert_allclose(
    together, np.concatenate(alone), rtol=1e-10, atol=1e-13
  )


def by_differences(fun, x, v):
  """∂ fun / ∂ v at x, central differences."""
  return (fun(x + 1e-5 * v) - fun(x - 1e-5 * v)) / 2e-5


FORWARD = (
  'integrated_gradients', 'guided_grad_cam', 'deeplift', 'lrp_epsilon',
  'lrp_gamma',
)  # fmt: skip


@pytest.mark.parametrize('name', FORWARD)
def test_forward_mode_gives_the_same_derivative(x64, name):
  params, x, y, v, _ = case()
  key = jax.random.key(0)
  fun = lambda x: explain(name)(params, x, y, key)
  wanted = by_differences(fun, x, v)
  found = jax.jit(lambda x: jax.jvp(fun, (x,), (v,))[1])(x)
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  'name', ['integrated_gradients', 'deeplift', 'lrp_gamma', 'grad_cam']
)
def test_a_map_can_be_differentiated_by_the_parameters(x64, name):
  params, x, y, _, w = case()
  key = jax.random.key(0)
  score = lambda params: jnp.vdot(w, explain(name)(params, x, y, key))
  move = jax.tree.map(jnp.cos, params)
  shifted = lambda t: jax.tree.map(lambda p, m: p + t * m, params, move)
  wanted = (score(shifted(1e-5)) - score(shifted(-1e-5))) / 2e-5
  slope = jax.jit(jax.grad(score))(params)
  found = sum(
    jnp.vdot(a, b)
    for a, b in zip(*map(jax.tree.leaves, (slope, move)), strict=True)
  )
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('target', attribution.TARGETS)
def test_a_map_follows_its_target(x64, target):
  params, x, y, v, _ = case()
  score = lambda x: attribution.target(target, network(params, x)[0], y).sum()
  found = explain('gradient', target)(params, x, y, jax.random.key(0))
  wanted = (score(x + 1e-5 * v) - score(x - 1e-5 * v)) / 2e-5
  np.testing.assert_allclose(jnp.vdot(found, v), wanted, rtol=1e-7)


@each_method
def test_only_methods_that_draw_look_at_the_key(x64, name):
  params, x, y, *_ = case()
  a, b = (explain(name)(params, x, y, jax.random.key(i)) for i in (0, 1))
  assert bool(np.any(a != b)) == (name in KEYED)


def test_edges_and_random_maps_do_not_look_at_the_network(x64):
  params, x, y, *_ = case()
  other = jax.tree.map(lambda p: -2 * p, params)
  for name in ('edges', 'random'):
    key = jax.random.key(0)
    a, b = (explain(name)(p, x, y, key) for p in (params, other))
    np.testing.assert_array_equal(a, b)


def test_a_traced_sigma_does_not_compile_again():
  count = 0

  @jax.jit
  def fun(x, sigma):
    nonlocal count
    count += 1
    return attribution.smoothgrad(
      lambda p, x: (x**3, {}), None, x, jnp.zeros(1, int),
      key=jax.random.key(0), sigma=sigma,
    )  # fmt: skip

  for sigma in (0.1, 0.2):
    fun(jnp.ones((1, 2)), sigma)
  assert count == 1
