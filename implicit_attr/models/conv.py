"""A convolution that stays fast inside a loop on a CPU.

XLA's CPU back end has a fast convolution for one layout only: images NHWC,
kernels HWIO. Automatic differentiation of `lax.conv_general_dilated` asks for
others. At the top level a layout pass mends that; inside `scan`, `while_loop`
and `cond` nothing does, and a gradient costs 30 times as much.

So this file closes the convolution under differentiation. It is bilinear, and
with its two transposes (image from output and kernel; kernel from image and
output) it forms a family of three bilinear maps: every transpose of every
member is a member. Each is a primitive, lowered on CPUs to one convolution in
the fast layout with explicit array transposes around it, or to matrix products
where those are faster, and elsewhere to what JAX would write. Values and
derivatives of every order and mode are those of
`lax.conv_general_dilated(x, w, (s, s), 'SAME')`.
"""

import functools
from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from implicit_attr.models import initial
from implicit_attr.types import Array

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

THIN = 8
"""Channels below which a matrix product over all taps beats a convolution."""


def conv2d(x: Array, w: Array, stride: int = 1) -> Array:
  """x [B, H, W, C] with kernel w [h, w, C, D] -> [B, H', W', D].

  Zero padding 'SAME': H' = ceil(H / stride). Guarantees: works under jit,
  vmap, jvp, vjp and any nesting of them; no member of the family needs a
  layout that is slow inside a loop on a CPU.
  """
  return _output.bind(x, w, stride=stride)


class Conv(nn.Module):
  """A convolution layer, kernel [k, k, C, features]; bias if asked."""

  features: int
  size: int = 3
  stride: int = 1
  use_bias: bool = True
  gain: float = 2.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    w = self.param('kernel', initial.scaled(self.gain), shape, jnp.float32)
    y = conv2d(x, w.astype(x.dtype), self.stride)
    if self.use_bias:
      zeros = nn.initializers.zeros
      b = self.param('bias', zeros, (self.features,), jnp.float32)
      y = y + jnp.reshape(b, (1, 1, 1, -1)).astype(x.dtype)
    return y


def _pads(n: int, k: int, s: int) -> tuple[int, int, int]:
  """Output length and the padding before and after, for 'SAME'."""
  out = -(-n // s)
  total = max((out - 1) * s + k - n, 0)
  return out, total // 2, total - total // 2


# The three members: y = x * w, its transpose in x, its transpose in w.


def _lax_output(x: Array, w: Array, *, stride: int) -> Array:
  return lax.conv_general_dilated(
    x, w, (stride, stride), 'SAME', dimension_numbers=_LAYOUT
  )


def _lax_image(y: Array, w: Array, *, stride: int, hw: tuple) -> Array:
  x = jax.ShapeDtypeStruct((y.shape[0], *hw, w.shape[2]), y.dtype)
  fun = lambda x: _lax_output(x, w, stride=stride)
  return jax.linear_transpose(fun, x)(y)[0]


def _lax_kernel(x: Array, y: Array, *, stride: int, hw: tuple) -> Array:
  w = jax.ShapeDtypeStruct((*hw, x.shape[3], y.shape[3]), x.dtype)
  fun = lambda w: _lax_output(x, w, stride=stride)
  return jax.linear_transpose(fun, w)(y)[0]


def _cpu_output(x: Array, w: Array, *, stride: int) -> Array:
  """A thin x, the image, as one matrix product with all taps side by side.

  They are the same as in `_cpu_kernel`, so that a training step makes them
  once.
  """
  if stride > 1 or x.shape[3] >= THIN:
    return _lax_output(x, w, stride=stride)
  return lax.dot_general(
    _taps(x, w.shape[:2]), w.reshape(-1, w.shape[3]), (((3,), (0,)), ((), ()))
  )


def _taps(x: Array, hw: tuple) -> Array:
  """x [B, H, W, C] -> [B, H, W, h w C]: what every output pixel sees."""
  (rows, *high), (cols, *wide) = (
    _pads(n, k, 1) for n, k in zip(x.shape[1:3], hw, strict=True)
  )
  x = jnp.pad(x, ((0, 0), tuple(high), tuple(wide), (0, 0)))
  taps = [
    x[:, i : i + rows, j : j + cols] for i in range(hw[0]) for j in range(hw[1])
  ]
  return jnp.concatenate(taps, -1)


def _cpu_image(y: Array, w: Array, *, stride: int, hw: tuple) -> Array:
  """x_i = sum_j w_{i - s j + p} y_j: dilate y by s, correlate with flip(w)."""
  pads = []
  for n, k in zip(hw, w.shape[:2], strict=True):
    out, before, _ = _pads(n, k, stride)
    low = k - 1 - before
    pads.append((low, n - (out - 1) * stride - 1 - low + k - 1))
  return lax.conv_general_dilated(
    y,
    jnp.flip(w, (0, 1)).transpose(0, 1, 3, 2),
    (1, 1),
    pads,
    lhs_dilation=(stride, stride),
    dimension_numbers=_LAYOUT,
  )


def _cpu_kernel(x: Array, y: Array, *, stride: int, hw: tuple) -> Array:
  """w_ij = sum_q x_{q, +j} y_{q, -i}: one matrix product for all taps.

  As a convolution this has the examples for channels and runs on one core.
  With taps along a row beside each other in x, and taps along a column in y,
  hw[1] copies of one and hw[0] of the other are enough, and both sides of the
  product are wide. A thin x, the image, takes all taps itself.
  """
  if stride > 1:
    return _tap_kernel(x, y, stride=stride, hw=hw)
  channels, features = x.shape[3], y.shape[3]
  if channels < THIN:
    return _over_pixels(_taps(x, hw), y).reshape(*hw, channels, features)
  (_, *high), (cols, *wide) = (
    _pads(n, k, 1) for n, k in zip(x.shape[1:3], hw, strict=True)
  )
  x = jnp.pad(x, ((0, 0), (0, 0), tuple(wide), (0, 0)))
  x = jnp.concatenate([x[:, :, j : j + cols] for j in range(hw[1])], -1)
  y = jnp.pad(y, ((0, 0), (high[1], high[0]), (0, 0), (0, 0)))
  rows = [y[:, i : i + x.shape[1]] for i in reversed(range(hw[0]))]
  w = _over_pixels(x, jnp.concatenate(rows, -1))
  return w.reshape(hw[1], channels, hw[0], features).transpose(2, 0, 1, 3)


def _over_pixels(x: Array, y: Array) -> Array:
  """Sum over all examples and pixels of the products of channels."""
  return lax.dot_general(
    x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]),
    (((0,), (0,)), ((), ())),
  )  # fmt: skip


def _tap_kernel(x: Array, y: Array, *, stride: int, hw: tuple) -> Array:
  """The same as one matrix product for each k, over the pixels that k meets."""
  (rows, *high), (cols, *wide) = (
    _pads(n, k, stride) for n, k in zip(x.shape[1:3], hw, strict=True)
  )
  x = jnp.pad(x, ((0, 0), tuple(high), tuple(wide), (0, 0)))
  down, right = (rows - 1) * stride + 1, (cols - 1) * stride + 1
  y = y.reshape(-1, y.shape[-1])
  taps = [
    x[:, i : i + down : stride, j : j + right : stride]
    for i in range(hw[0])
    for j in range(hw[1])
  ]
  w = jnp.stack([t.reshape(-1, t.shape[-1]).T @ y for t in taps])
  return w.reshape(*hw, x.shape[-1], y.shape[-1])


def _primitive(name: str, anywhere: Callable, cpu: Callable) -> Primitive:
  """A primitive that computes `anywhere`, and on CPUs does it as `cpu`."""
  prim = Primitive(f'implicit_attr_conv_{name}')

  def aval(*args, **static):
    args = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]
    out = jax.eval_shape(functools.partial(anywhere, **static), *args)
    return jax.core.ShapedArray(out.shape, out.dtype)

  prim.def_impl(
    lambda *args, **static: jax.jit(functools.partial(prim.bind, **static))(
      *args
    )
  )
  prim.def_abstract_eval(aval)
  mlir.register_lowering(prim, mlir.lower_fun(anywhere, False))
  mlir.register_lowering(prim, mlir.lower_fun(cpu, False), platform='cpu')
  return prim


_output = _primitive('output', _lax_output, _cpu_output)
_image = _primitive('image', _lax_image, _cpu_image)
_kernel = _primitive('kernel', _lax_kernel, _cpu_kernel)

ad.defbilinear(
  _output,
  lambda ct, x, w, stride: _image.bind(
    ct, w, stride=stride, hw=x.aval.shape[1:3]
  ),
  lambda ct, x, w, stride: _kernel.bind(
    x, ct, stride=stride, hw=w.aval.shape[:2]
  ),
)
ad.defbilinear(
  _image,
  lambda ct, y, w, stride, hw: _output.bind(ct, w, stride=stride),
  lambda ct, y, w, stride, hw: _kernel.bind(
    ct, y, stride=stride, hw=w.aval.shape[:2]
  ),
)
ad.defbilinear(
  _kernel,
  lambda ct, x, y, stride, hw: _image.bind(
    y, ct, stride=stride, hw=x.aval.shape[1:3]
  ),
  lambda ct, x, y, stride, hw: _output.bind(x, ct, stride=stride),
)


def _batch(prim: Primitive, fallback: Callable, axes: tuple) -> None:
  """vmap over one argument folds it into an axis that passes through.

  `axes[i]` = (axis of argument i, axis of the result) that is free: examples
  and channels for images, channels for kernels. Over both arguments at once
  nothing is free, and `fallback` is mapped: for gradients of single examples
  in the kernel a batched matrix product, for networks with different weights
  what JAX makes of the plain convolution.
  """

  def rule(args, dims, **static):
    mapped = [d is not None for d in dims]
    if all(mapped):
      fun = jax.vmap(functools.partial(fallback, **static), dims)
      return fun(*args), 0
    i = mapped.index(True)
    into, out_axis = axes[i]
    args = list(args)
    x = jnp.moveaxis(args[i], dims[i], into)
    size, n = x.shape[into], x.shape[into + 1]
    args[i] = x.reshape(*x.shape[:into], size * n, *x.shape[into + 2 :])
    out = prim.bind(*args, **static)
    n = out.shape[out_axis] // size
    shape = (*out.shape[:out_axis], size, n, *out.shape[out_axis + 1 :])
    return out.reshape(shape), out_axis

  batching.primitive_batchers[prim] = rule


_batch(_output, _lax_output, ((0, 0), (3, 3)))
_batch(_image, _lax_image, ((0, 0), (2, 3)))
_batch(_kernel, _tap_kernel, ((3, 2), (3, 3)))
