"""Is conv2d JAX's convolution, in value and in every derivative and mode?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from implicit_attr.models import conv2d

# (height, width, kernel, stride, channels): odd and even sizes and kernels,
# both strides, 1x1, and channels on both sides of THIN.
CASES = [
  (6, 5, 3, 1, 3),
  (6, 5, 3, 1, 8),
  (5, 4, 2, 1, 3),
  (5, 4, 2, 1, 9),
  (6, 5, 3, 2, 3),
  (5, 6, 1, 2, 8),
  (4, 4, 1, 1, 3),
  (2, 4, 5, 1, 8),
  (3, 2, 5, 2, 3),
  (1, 2, 3, 2, 3),
]


def reference(x, w, stride):
  return lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def scalar(conv, stride):
  """A function of (x, w) with every second derivative non-zero."""
  return lambda x, w: jnp.sum(jnp.sin(conv(x, w, stride)) ** 3)


@pytest.fixture(params=CASES, ids=str)
def case(request, x64):
  height, width, size, stride, channels = request.param
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, height, width, channels)))
  w = jnp.asarray(rng.normal(size=(size, size, channels, 2)))
  dx = jnp.asarray(rng.normal(size=x.shape))
  dw = jnp.asarray(rng.normal(size=w.shape))
  return x, w, dx, dw, stride


def close(ours, theirs, tol=1e-12):
  pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  for a, b in pairs:
    assert a.shape == b.shape and a.dtype == b.dtype == jnp.float64
    scale = max(1.0, float(jnp.abs(b).max()))
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tol)


def test_value_and_gradients_are_those_of_lax(case):
  x, w, _, _, stride = case

  @jax.jit
  def both(x, w):
    results = []
    for conv in (conv2d, reference):
      grads = jax.grad(scalar(conv, stride), (0, 1))(x, w)
      results.append((conv(x, w, stride), grads))
    return results

  close(*both(x, w))


def test_hessian_products_are_those_of_lax(case):
  x, w, dx, dw, stride = case

  @jax.jit
  def both(*args):
    x, w, dx, dw = args
    results = []
    for conv in (conv2d, reference):
      fun = scalar(conv, stride)
      grad = jax.grad(fun, (0, 1))
      forward = jax.jvp(grad, (x, w), (dx, dw))[1]
      _, mvp = jax.linearize(grad, x, w)
      dot = lambda x, w: sum(
        jnp.vdot(g, d) for g, d in zip(grad(x, w), (dx, dw), strict=True)
      )
      back = jax.grad(dot, (0, 1))(x, w)
      results.append((forward, mvp(dx, dw), back))
    return results

  close(*both(x, w, dx, dw))


def test_third_derivatives_are_those_of_lax(case):
  x, w, dx, dw, stride = case

  @jax.jit
  def both(*args):
    x, w, dx, dw = args
    results = []
    for conv in (conv2d, reference):
      grad = jax.grad(scalar(conv, stride), (0, 1))
      hvp = lambda x, w: jax.jvp(grad, (x, w), (dx, dw))[1]
      dot = lambda x, w: sum(
        jnp.vdot(h, d) for h, d in zip(hvp(x, w), (dx, dw), strict=True)
      )
      results.append(jax.grad(dot, (0, 1))(x, w))
    return results

  close(*both(x, w, dx, dw))


@pytest.mark.parametrize('stride, channels', [(1, 3), (1, 8), (2, 3)])
def test_vmap_over_any_arguments_is_a_loop(stride, channels, x64):
  rng = np.random.default_rng(1)
  xs = jnp.asarray(rng.normal(size=(3, 2, 5, 4, channels)))
  ws = jnp.asarray(rng.normal(size=(3, 3, 3, channels, 2)))
  grad = jax.grad(scalar(conv2d, stride), (0, 1))
  hvp = lambda x, w, dx, dw: jax.jvp(grad, (x, w), (dx, dw))[1]

  @jax.jit
  def mapped(xs, ws):
    x, w = xs[0], ws[0]
    return (
      jax.vmap(grad)(xs, ws),
      jax.vmap(lambda x: grad(x, w), 1)(xs.swapaxes(0, 1)),
      jax.vmap(lambda w: grad(x, w), 3)(jnp.moveaxis(ws, 0, 3)),
      jax.vmap(lambda dx, dw: hvp(x, w, dx, dw))(xs, ws),
    )

  @jax.jit
  def single(i, xs, ws):
    x, w = xs[0], ws[0]
    return (
      grad(xs[i], ws[i]),
      grad(xs[i], w),
      grad(x, ws[i]),
      hvp(x, w, xs[i], ws[i]),
    )

  singles = [single(i, xs, ws) for i in range(3)]
  close(mapped(xs, ws), jax.tree.map(lambda *r: jnp.stack(r), *singles))


def test_hessian_is_symmetric_in_float32():
  rng = np.random.default_rng(2)
  x = jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
  w, u, v = (
    jnp.asarray(rng.normal(size=(3, 3, 3, 4)) / 5, jnp.float32)
    for _ in range(3)
  )
  grad = jax.grad(lambda w: scalar(conv2d, 2)(x, w))
  hvp = jax.jit(lambda v: jax.jvp(grad, (w,), (v,))[1])
  np.testing.assert_allclose(
    jnp.vdot(u, hvp(v)), jnp.vdot(v, hvp(u)), rtol=1e-4
  )


@pytest.mark.parametrize('stride', [1, 2])
def test_no_derivative_leaves_the_layout_that_is_fast_in_a_loop(stride):
  """On a CPU every convolution of an HVP is NHWC, HWIO, NHWC."""
  x, w = jnp.ones((2, 8, 8, 8)), jnp.ones((3, 3, 8, 4))
  grad = jax.grad(scalar(conv2d, stride), (0, 1))
  hvp = lambda x, w: jax.jvp(grad, (x, w), (x, w))[1]
  text = jax.jit(hvp).lower(x, w).as_text()
  lines = [line for line in text.splitlines() if 'convolution(' in line]
  assert len(lines) >= 4
  for line in lines:
    assert 'dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]' in line
    assert 'batch_group_count = 1' in line
