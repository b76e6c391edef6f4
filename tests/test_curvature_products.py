"""Are the products exact, and what do they cost?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature, errors

CLASSES = 3


def mlp_logits(params, x):
  """x [B, 5, 5, 2] -> [B, 3] through one hidden layer of 4."""
  flat = x.reshape(x.shape[0], -1)
  first = params['first']
  hidden = jnp.tanh(flat @ first['kernel'] + first['bias'][None])
  return hidden @ params['head']['kernel']


def conv_logits(params, x):
  """Two convolutions, the second with a stride, and a dense head."""
  for name, stride in (('first', 1), ('second', 2)):
    x = jax.lax.conv_general_dilated(
      x,
      params[name]['kernel'],
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    x = jnp.tanh(x + params[name]['bias'][None, None, None])
  return x.reshape(x.shape[0], -1) @ params['head']['kernel']


def make_params(net):
  key = iter(jax.random.split(jax.random.key(0), 9))
  normal = lambda *shape: 0.5 * jax.random.normal(next(key), shape)
  if net == 'mlp':
    first = {'kernel': normal(50, 4), 'bias': normal(4)}
    return {'first': first, 'head': {'kernel': normal(4, CLASSES)}}
  return {
    'first': {'kernel': normal(3, 3, 2, 3), 'bias': normal(3)},
    'second': {'kernel': normal(3, 3, 3, 2), 'bias': normal(2)},
    'head': {'kernel': normal(3 * 3 * 2, CLASSES)},
  }


class Problem:
  """Cross-entropy of a tiny network, with its dense float64 Hessian."""

  def __init__(self, net):
    self.logits = {'mlp': mlp_logits, 'conv': conv_logits}[net]
    self.params = make_params(net)
    keys = jax.random.split(jax.random.key(1))
    self.x = jax.random.uniform(keys[0], (8, 5, 5, 2))
    self.y = jax.random.randint(keys[1], (8,), 0, CLASSES)
    self.flat, self.unravel = ravel_pytree(self.params)
    self.hessian = self.dense(self.fun)

  def losses(self, params, batch):
    logp = jax.nn.log_softmax(self.logits(params, batch[0]))
    return -jnp.take_along_axis(logp, batch[1][:, None], 1)[:, 0]

  def fun(self, params):
    return jnp.mean(self.losses(params, (self.x, self.y)))

  def dense(self, fun):
    return np.asarray(
      jax.jit(jax.hessian(lambda z: fun(self.unravel(z))))(self.flat)
    )

  def matrices(self, make_mvps):
    """The matrices of the products make_mvps(params), column by column."""

    @jax.jit
    def columns(params, basis):
      mvps = make_mvps(params)
      of = lambda e: [ravel_pytree(mvp(self.unravel(e)))[0] for mvp in mvps]
      return jax.lax.map(of, basis)

    basis = jnp.eye(self.flat.size)
    return [np.asarray(c).T for c in columns(self.params, basis)]


@pytest.fixture(scope='module', params=['mlp', 'conv'])
def problem(request):
  with jax.enable_x64(True):
    return Problem(request.param)


def assert_near(actual, wanted, tol=1e-12):
  """Largest difference, relative to the largest entry."""
  error = np.max(np.abs(actual - wanted)) / np.max(np.abs(wanted))
  assert error <= tol, error


def test_products_equal_the_dense_hessian(x64, problem):
  fun = problem.fun
  once, shared = problem.matrices(
    lambda p: (
      lambda v: curvature.hvp(fun, p, v),
      curvature.linearize_hvp(fun, p),
    )
  )
  assert_near(once, problem.hessian)
  assert_near(shared, problem.hessian)
  assert_near(shared, shared.T)


def test_products_are_linear(x64, problem):
  @jax.jit
  def product(params, v):
    mvp = curvature.linearize_hvp(problem.fun, params)
    return ravel_pytree(mvp(problem.unravel(v)))[0]

  u, v = np.random.default_rng(0).normal(size=(2, problem.flat.size))
  u, v, both = (
    np.asarray(product(problem.params, w)) for w in (u, v, 2 * u - v)
  )
  assert_near(both, 2 * u - v)


def test_float32_products_agree_to_single_precision(problem):
  single = lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32)
  params = jax.tree.map(single, problem.params)
  batch = single(problem.x), jnp.asarray(np.asarray(problem.y), jnp.int32)
  fun = lambda p: jnp.mean(problem.losses(p, batch))
  ones = jax.tree.map(jnp.ones_like, params)
  product = jax.jit(lambda p, v: curvature.hvp(fun, p, v))(params, ones)
  product = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(product)])
  assert product.dtype == np.float32
  assert_near(product, problem.hessian @ np.ones(problem.flat.size), 2e-5)


def test_gradient_of_shared_linearisation_is_the_gradient(x64, problem):
  both = jax.jit(
    lambda p: (
      curvature.grad_and_hvp(problem.fun, p)[0],
      jax.grad(problem.fun)(p),
    )
  )
  jax.tree.map(assert_near, *both(problem.params))


@pytest.mark.parametrize('cut', [1, 4, 8])
def test_microbatches_and_example_order_do_not_matter(x64, problem, cut):
  order = np.random.default_rng(cut).permutation(8)
  batches = jax.tree.map(
    lambda leaf: leaf[order].reshape(cut, 8 // cut, *leaf.shape[1:]),
    (problem.x, problem.y),
  )
  loss_sum = lambda p, batch: jnp.sum(problem.losses(p, batch))

  @jax.jit
  def products(p, v):
    total = lambda p: curvature.microbatched(loss_sum)(p, batches)
    of = lambda batch: curvature.linearize_hvp(lambda p: loss_sum(p, batch), p)
    v = problem.unravel(v)
    ways = (
      curvature.hvp(total, p, v),
      curvature.linearize_hvp(total, p)(v),
      curvature.summed(of, batches)(v),
    )
    return [ravel_pytree(way)[0] / 8 for way in ways]

  v = np.random.default_rng(0).normal(size=problem.flat.size)
  for product in products(problem.params, v):
    assert_near(np.asarray(product), problem.hessian @ v)


@pytest.mark.parametrize('shared', [False, True])
def test_microbatches_take_the_memory_of_one(shared):
  params = jnp.ones((64, 64))
  fun = lambda p, x: jnp.sum(jnp.tanh(jnp.tanh(x @ p) @ p) ** 2)

  def temporary(cut, remat=True):
    def product(p, v, x):
      if remat:
        total = lambda p: curvature.microbatched(fun)(p, x)
      else:
        total = lambda p: jnp.sum(jax.lax.map(lambda b: fun(p, b), x))
      if shared:
        mvp = curvature.linearize_hvp(total, p)
        return mvp(mvp(v))
      return curvature.hvp(total, p, v)

    x = jnp.ones((cut, 128, 64))
    compiled = jax.jit(product).lower(params, params, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  activations = 128 * 64 * 4  # of one layer and one microbatch
  assert temporary(32) < temporary(2) + 2 * activations
  assert temporary(32, remat=False) > temporary(2) + 30 * activations


def test_gauss_newton_and_residual_are_the_parts(x64, problem):
  model = lambda p: problem.logits(p, problem.x)
  loss = lambda logits: (
    -jnp.mean(
      jnp.take_along_axis(jax.nn.log_softmax(logits), problem.y[:, None], 1)
    )
  )

  @jax.jit
  def dense(z):
    of_flat = lambda z: model(problem.unravel(z))
    return of_flat(z), jax.jacobian(of_flat)(z)

  logits, jacobian = map(np.asarray, dense(problem.flat))
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  wanted = sum(
    jac.T @ (np.diag(row) - np.outer(row, row)) @ jac / 8
    for jac, row in zip(jacobian, p, strict=True)
  )
  part, rest, fisher = problem.matrices(
    lambda p: (*curvature.split(model, loss, p), curvature.fisher(model, p))
  )
  assert_near(part, wanted)
  assert_near(part + rest, problem.hessian)
  # The label drops out of the Gauss–Newton part of the cross-entropy.
  assert_near(fisher, wanted)


def test_empirical_fisher_is_the_second_moment_of_gradients(x64, problem):
  losses = lambda p: problem.losses(p, (problem.x, problem.y))
  gradients = jax.jit(jax.jacobian(lambda z: losses(problem.unravel(z))))
  gradients = np.asarray(gradients(problem.flat))
  (matrix,) = problem.matrices(
    lambda p: (curvature.empirical_fisher(losses, p),)
  )
  assert_near(matrix, gradients.T @ gradients / 8)


VECTOR = jnp.ones(3)
BAD = {
  'not scalar': (lambda x: x**2, VECTOR, r'fun\(x\)=\(3,\) must be one real'),
  'not an array': (lambda x: (x[0], x[1]), VECTOR, r"fun\(x\)='tuple' must be"),
  'integer output': (lambda x: jnp.argmax(x), VECTOR, 'must be one real'),
  'empty tree': (lambda x: jnp.array(1.0), {}, 'at least one array element'),
  'no elements': (jnp.sum, jnp.ones((0, 2)), 'at least one array element'),
  'integer leaves': (
    lambda x: jnp.sum(x['a'] * x['n']),
    {'a': VECTOR, 'n': jnp.arange(3)},
    r"x\['n'\]='int32' must be a real floating",
  ),
  'non-finite': (lambda x: jnp.sum(jnp.log(x - 1)), VECTOR, 'must be finite'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_clear_line(case):
  fun, x, message = BAD[case]
  with pytest.raises(errors.InputError, match=message) as caught:
    curvature.linearize_hvp(fun, x)
  assert '\n' not in str(caught.value)


def test_non_finite_passes_through_under_jit():
  fun = lambda x: jnp.sum(jnp.log(x - 1))
  product = jax.jit(lambda x: curvature.linearize_hvp(fun, x)(x))(VECTOR)
  assert not jnp.any(jnp.isfinite(product))


def test_leaves_that_are_no_parameters_are_named():
  """linen's whole `variables`, and nnx split without a type."""
  from flax import nnx

  whole = {'params': {'w': jnp.ones(2)}, 'batch_stats': {'mean': jnp.ones(2)}}
  total = lambda tree: sum(jnp.sum(a**2) for a in jax.tree.leaves(tree))
  with pytest.warns(UserWarning, match=r"\['batch_stats'\]\['mean'\]"):
    curvature.linearize_hvp(total, whole)
  norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
  _, everything = nnx.split(norm)
  with pytest.warns(UserWarning, match=r'2 leaves of x.*mean.*nnx\.Param'):
    curvature.linearize_hvp(total, everything)
  _, params, _ = nnx.split(norm, nnx.Param, ...)
  curvature.linearize_hvp(total, params)  # a warning would be an error
  # A layer may be called mean: it is its leaves' own names that count.
  curvature.linearize_hvp(total, {'mean': {'kernel': jnp.ones(2)}})
