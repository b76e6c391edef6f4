"""Singular values of layers as linear maps of their input (arXiv 2011.07478).

A convolution is a matrix from all pixels and channels to all pixels and
channels. With circular padding it is block diagonal in the Fourier basis and
its singular values come from small matrices; with the zero padding that our
networks have they come from Lanczos on its Gram matrix.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import curvature, errors, numerics
from implicit_attr.types import Array


class Spread(NamedTuple):
  """Summary of singular values; `std` is what training on attacks lowers."""

  mean: Array  # []
  std: Array  # []
  low: Array  # [], the smallest
  high: Array  # [], the largest: the Lipschitz constant of the layer


def spread(values: Array) -> Spread:
  """Mean, standard deviation and ends of singular values [n]."""
  return Spread(
    jnp.mean(values), jnp.std(values), jnp.min(values), jnp.max(values)
  )


def dense_singular_values(kernel: Array) -> Array:
  """Of a dense layer x W, [min(inputs, outputs)], largest first."""
  errors.require('kernel.ndim', kernel.ndim, kernel.ndim == 2, '2')
  return jnp.linalg.svd(kernel, compute_uv=False)


def circular_singular_values(
  kernel: Array, hw: tuple[int, int], stride: int = 1
) -> Array:
  """Exact, for circular padding: all H W / stride² · min(s² C, D), falling.

  Sedghi, Gupta & Long (arXiv 1805.10408). With a stride s, s² frequencies fold
  onto one of the output, and their matrices stand side by side over s.

  Args:
    kernel: [h, w, C, D], h and w at most H and W.
    hw: (H, W), the size of the input, divisible by the stride.

  Raises:
    InputError: a kernel of another form, sizes that do not fit.
  """
  _check(kernel, hw, stride)
  (high, wide), (h, w, c, d) = hw, kernel.shape
  fits = high % stride == 0 and wide % stride == 0 and h <= high and w <= wide
  errors.require(
    'hw', hw, fits, f'divisible by the stride {stride}, at least ({h}, {w})'
  )
  waves = jnp.fft.fft2(kernel, hw, axes=(0, 1))  # [H, W, C, D]
  s, rows, cols = stride, high // stride, wide // stride
  waves = waves.reshape(s, rows, s, cols, c, d).transpose(1, 3, 0, 2, 4, 5)
  blocks = waves.reshape(rows, cols, s * s * c, d) / s
  values = jnp.linalg.svd(blocks, compute_uv=False)
  return jnp.sort(values.ravel(), descending=True)


def convolution_singular_values(
  kernel: Array,
  hw: tuple[int, int],
  key: Array,
  *,
  stride: int = 1,
  order: int | None = None,
) -> Array:
  """For zero padding 'SAME', by Lanczos on the smaller Gram matrix.

  Args:
    kernel: [h, w, C, D].
    hw: (H, W), the size of the input.
    key: of the start vector.
    order: products with the Gram matrix; None takes its whole dimension, n =
      min(H W C, H' W' D), which gives all singular values to the square root of
      rounding, with their multiplicities. Below n the largest converge first,
      and the rest are Ritz values, no singular values.

  Returns:
    [order], largest first.

  Raises:
    InputError: a kernel of another form, an order outside 1 … n.
  """
  _check(kernel, hw, stride)

  def forward(x: Array) -> Array:
    return jax.lax.conv_general_dilated(
      x[None], kernel, (stride, stride), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest',
    )[0]  # fmt: skip

  image = jax.ShapeDtypeStruct((*hw, kernel.shape[2]), kernel.dtype)
  out = jax.eval_shape(forward, image)
  backward = lambda y: jax.linear_transpose(forward, image)(y)[0]
  if out.size < image.size:
    like, gram = out, lambda v: forward(backward(v))
  else:
    like, gram = image, lambda v: backward(forward(v))
  with numerics.exact():
    start = jax.random.normal(key, like.shape, like.dtype)
    alphas, betas, _ = curvature.lanczos(
      gram, start, like.size if order is None else order
    )
    matrix = jnp.diag(alphas) + jnp.diag(betas, 1) + jnp.diag(betas, -1)
    values = jnp.linalg.eigvalsh(matrix)[::-1]
  # A Gram matrix; rounding alone makes its eigenvalues negative.
  return jnp.sqrt(jnp.maximum(values, 0))


def _check(kernel: Array, hw: tuple[int, int], stride: int) -> None:
  errors.require('kernel.ndim', kernel.ndim, kernel.ndim == 4, '4, HWIO')
  for size in hw:
    errors.number('hw', size, 1, integer=True)
  errors.number('stride', stride, 1, integer=True)
