"""Trace and Frobenius norm from products (Hutchinson, Comm. Stat. 19, 1990).

Random probes v with E[v v'] = 1: E[v' A v] = Tr A and E[‖A v‖²] = ‖A‖_F².
Probes are Rademacher vectors, whose trace
estimate has the least variance, and run one after another: a batch of probes
would multiply the memory and turn convolutions into slow grouped ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from implicit_attr import errors
from implicit_attr.curvature.flat import flatten_like
from implicit_attr.curvature.products import second_derivative
from implicit_attr.types import Array, Mvp, Tree


class Moments(NamedTuple):
  """Trace and Frobenius norm, each with its standard error; all [] or [B]."""

  trace: Array
  trace_se: Array
  frobenius: Array
  frobenius_se: Array


def rademacher(key: Array, like: Tree) -> Tree:
  """Independent ±1 in the shapes and dtypes of `like`.

  One draw for the whole tree: a generator per leaf takes longer to compile
  than all else in an estimate.
  """
  leaves, treedef = jax.tree.flatten(like)
  ends = np.cumsum([jnp.size(leaf) for leaf in leaves])
  drawn = signs(key, int(ends[-1]), jnp.int8)
  parts = [
    part.reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf))
    for part, leaf in zip(jnp.split(drawn, ends[:-1]), leaves, strict=True)
  ]
  return jax.tree.unflatten(treedef, parts)


def signs(key: Array, size: int, dtype: jax.typing.DTypeLike) -> Array:
  """Independent ±1, [size], every random bit used.

  `jax.random.rademacher` spends a word of 32 bits on each: a third of the time
  of a trace where products are cheap.
  """
  words = jax.random.bits(key, (-(-size // 32),), jnp.uint32)
  shifts = jnp.arange(32, dtype=jnp.uint32)[None, :]
  bits = words[:, None] >> shifts & 1
  return (1 - 2 * bits.reshape(-1)[:size].astype(jnp.int8)).astype(dtype)


def quadratic_forms(mvp: Mvp, probes: Tree) -> Array:
  """v_s' A v_s for each probe, leaves [S, ...] -> [S].

  Summed over the vectors of an orthonormal basis it is the exact trace.
  """
  return jax.lax.map(lambda v: vdot(v, mvp(v)), probes)


def trace(
  mvp: Mvp, like: Tree, key: Array, *, draws: int
) -> tuple[Array, Array]:
  """(Tr A, its standard error), unbiased, from `draws` products.

  Args:
    mvp: a product on trees like `like`; it need not be symmetric.
    like: a tree with the shapes and dtypes of a vector, its values unused.
    draws: S >= 2, number of Rademacher probes.

  Raises:
    InputError: `draws` below 2, an empty tree, integer leaves.
  """
  result = moments(mvp, like, key, draws=draws)
  return result.trace, result.trace_se


def hessian_trace(
  fun: Callable[[Tree], Array], x: Tree, key: Array, *, draws: int
) -> tuple[Array, Array]:
  """`trace` of the Hessian of `fun` at `x`, by `second_derivative`.

  The same probes and, to rounding, the same numbers as `trace` of its product,
  in half (MLP) to nine tenths (ViT) of the time.

  Raises:
    InputError: as `trace` and `hvp`.
  """
  errors.number('draws', draws, 2, integer=True)
  flatten_like(x)  # refuses what is not a vector
  one = lambda key: second_derivative(fun, x, rademacher(key, x))
  # Two in a turn: they share what depends on `x` alone.
  _, forms = jax.lax.scan(
    lambda _, key: (None, one(key)), None, jax.random.split(key, draws),
    unroll=2,
  )  # fmt: skip
  return mean_and_stderr(forms)


def frobenius(
  mvp: Mvp, like: Tree, key: Array, *, draws: int
) -> tuple[Array, Array]:
  """(‖A‖_F, its standard error to first order) from `draws` products.

  The square is unbiased; the root of it is low by about stderr² / (2 ‖A‖_F).
  Arguments and errors as `trace`.
  """
  result = moments(mvp, like, key, draws=draws)
  return result.frobenius, result.frobenius_se


def moments(mvp: Mvp, like: Tree, key: Array, *, draws: int) -> Moments:
  """Trace and Frobenius norm from the same `draws` products.

  Arguments and errors as `trace`.
  """
  flatten_like(like)  # refuses what is not a vector

  def one(key: Array) -> tuple[Array, Array]:
    v = rademacher(key, like)
    image = mvp(v)
    return vdot(v, image), vdot(image, image)

  return sampled_moments(one, key, draws)


def sampled_moments(
  one: Callable[[Array], tuple[Array, Array]], key: Array, draws: int
) -> Moments:
  """`Moments` from one(key) -> (v' A v, ‖A v‖²) over `draws` keys.

  Raises:
    InputError: `draws` below 2.
  """
  errors.number('draws', draws, 2, integer=True)
  forms, squares = jax.lax.map(one, jax.random.split(key, draws))
  square, square_se = mean_and_stderr(squares)
  root = jnp.sqrt(square)
  slope = 2 * jnp.where(root > 0, root, 1)
  return Moments(*mean_and_stderr(forms), root, square_se / slope)


def vdot(a: Tree, b: Tree) -> Array:
  """Inner product of two trees, summed in float32 at least."""
  wide = lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
  product = optax.tree.vdot(jax.tree.map(wide, a), jax.tree.map(wide, b))
  return jnp.asarray(product)


def mean_and_stderr(samples: Array) -> tuple[Array, Array]:
  """Mean over the first axis and its standard error, for at least 2 samples."""
  spread = jnp.std(samples, axis=0, ddof=1)
  return jnp.mean(samples, axis=0), spread / samples.shape[0] ** 0.5
