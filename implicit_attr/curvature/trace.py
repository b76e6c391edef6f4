"""What are the trace and the Frobenius norm of a matrix known by products?

Random probes v with E[v v'] = 1: E[v' A v] = Tr A (Hutchinson, Comm. Stat.
19, 1990) and E[‖A v‖²] = ‖A‖_F². Probes are Rademacher vectors, whose trace
estimate has the least variance, and run one after another: a batch of probes
would multiply the memory and turn convolutions into slow grouped ones.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from implicit_attr import errors
from implicit_attr.curvature.flat import flatten_like
from implicit_attr.curvature.lanczos import check_order
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


def signs(key: Array, size: int, dtype: jnp.dtype) -> Array:
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
  return jax.lax.map(lambda v: optax.tree.vdot(v, mvp(v)), probes)


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
    return optax.tree.vdot(v, image), optax.tree.vdot(image, image)

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


def mean_and_stderr(samples: Array) -> tuple[Array, Array]:
  """Mean over the first axis and its standard error, for at least 2 samples."""
  spread = jnp.std(samples, axis=0, ddof=1)
  return jnp.mean(samples, axis=0), spread / samples.shape[0] ** 0.5


def adaptive_trace(
  mvp: Mvp,
  like: Tree,
  key: Array,
  *,
  tol: Array | float,
  max_draws: int,
  min_draws: int = 10,
) -> tuple[Array, Array, Array]:
  """(Tr A, its standard error, draws used), stopped at a relative error.

  Draws until stderr <= tol |mean|, at least `min_draws` (a handful estimates
  its own error badly and would stop on luck), at most `max_draws`. Draw s
  depends on the key and s alone.

  Args:
    tol: relative standard error wanted; may be traced.

  Raises:
    InputError: as `trace`; 2 <= min_draws <= max_draws does not hold.
  """
  flatten_like(like)
  errors.number('min_draws', min_draws, 2, integer=True)
  errors.number('max_draws', max_draws, min_draws, integer=True)

  def stderr(count: Array, squares: Array) -> Array:
    return jnp.sqrt(squares / (count * jnp.maximum(count - 1, 1)))

  def wait(carry: tuple[Array, Array, Array]) -> Array:
    count, mean, squares = carry
    unsure = stderr(count, squares) > tol * jnp.abs(mean)
    return (count < max_draws) & ((count < min_draws) | unsure)

  def draw(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    count, mean, squares = carry  # Welford's running mean and squares
    v = rademacher(jax.random.fold_in(key, count), like)
    form = optax.tree.vdot(v, mvp(v))
    shift = form - mean
    mean = mean + shift / (count + 1)
    return count + 1, mean, squares + shift * (form - mean)

  dtype = jnp.result_type(*jax.tree.leaves(like))
  zero = jnp.zeros((), dtype)
  count, mean, squares = jax.lax.while_loop(
    wait, draw, (jnp.array(0), zero, zero)
  )
  return mean, stderr(count, squares), count


def hutchpp(
  mvp: Mvp, like: Tree, key: Array, *, sketch: int, draws: int
) -> tuple[Array, Array]:
  """(Tr A, its standard error) by Hutch++ (Meyer et al., arXiv 2010.09649).

  The range of A is sketched, its trace taken exactly, and only what is
  orthogonal to it is sampled: exact where `sketch` reaches the rank, and of
  variance O(1/m²) in the number of products m = 2 sketch + draws, where
  Hutchinson has O(1/m). Keeps `sketch` vectors in memory.

  Args:
    mvp: a symmetric product on trees like `like`.
    sketch: number of vectors that span the sketched range.
    draws: S >= 2 probes of the rest; the standard error is theirs.

  Raises:
    InputError: as `trace`; `sketch` not in 1 … dimension.
  """
  flat = flatten_like(like)
  errors.number('sketch', sketch, 1, integer=True)
  check_order(sketch, flat.size)
  errors.number('draws', draws, 2, integer=True)
  key_sketch, key_rest = jax.random.split(key)

  def product(v: Array) -> Array:
    return flat.ravel(mvp(flat.unravel(v)))

  def probe(key: Array) -> Array:
    return signs(key, flat.size, flat.dtype)

  images = jax.lax.map(
    lambda key: product(probe(key)), jax.random.split(key_sketch, sketch)
  )
  basis = jnp.linalg.qr(images.T)[0]  # [n, sketch]
  full = functools.partial(jnp.matmul, precision='highest')

  def rest(key: Array) -> Array:
    v = probe(key)
    v = v - full(basis, full(v, basis))
    return jnp.vdot(v, product(v))

  samples = jax.lax.map(rest, jax.random.split(key_rest, draws))
  mean, stderr = mean_and_stderr(samples)
  return mean + jnp.sum(quadratic_forms(product, basis.T)), stderr
