"""Batch sharpness (Andreyev & Beneventano, arXiv 2412.20553), Hessian noise.

Batches are stacked: the leaves of `batches` are [S, b, ...] and
`fun(params, batch) -> []` is the mean loss of one. One batch is in memory at
a time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from implicit_attr import errors, numerics
from implicit_attr.curvature import products
from implicit_attr.curvature.trace import mean_and_stderr
from implicit_attr.types import Array, Mvp, Tree

BatchFun = Callable[[Tree, Tree], Array]


def batch_sharpness(
  fun: BatchFun, params: Tree, batches: Tree
) -> tuple[Array, Array]:
  """(E_B[g_B' H_B g_B / ‖g_B‖²], its standard error over the S batches).

  The curvature of a batch's loss along that batch's own gradient; in training
  it, not λ_max, settles at 2/η for small batches (Andreyev & Beneventano,
  arXiv 2412.20553). A batch with zero gradient counts as 0.

  Raises:
    InputError: fewer than 2 batches; or as `second_derivative`.
  """
  count_batches(batches, 2)

  def one(batch: Tree) -> Array:
    loss = lambda p: fun(p, batch)
    grad = jax.grad(loss)(params)
    # A power of two, which cancels: squares of a small gradient underflow.
    sizes = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(grad)]
    unit = numerics.power_of_two(jnp.stack(sizes), 0)[0]
    grad = jax.tree.map(lambda g: g / unit.astype(g.dtype), grad)
    square = jnp.asarray(optax.tree.vdot(grad, grad))
    form = products.second_derivative(loss, params, grad)
    return form / jnp.where(square > 0, square, 1)

  return mean_and_stderr(jax.lax.map(one, batches))


def noise_covariance(fun: BatchFun, params: Tree, batches: Tree) -> Mvp:
  """v -> Σ v with Σ = E_i H_i² - (E_i H_i)², positive semi-definite.

  The spread of the Hessians of single examples (batches of one) or of batches.
  With the learning rate η and n examples drawn b at a time, descent at an
  interpolating minimum is stable in mean square only if λ_max((1 - ηH)² +
  η² (n - b) / (b (n - 1)) Σ) <= 1 (Wu, Ma & E, NeurIPS 2018). Three Hessian
  products per batch and product.

  Raises:
    InputError: as `linearize_hvp`.
  """
  count = count_batches(batches, 1)

  def of(batch: Tree) -> Mvp:
    return products.linearize_hvp(lambda p: fun(p, batch), params)

  def mvp(v: Tree) -> Tree:
    def add(total: Tree, batch: Tree) -> tuple[Tree, None]:
      hessian = of(batch)
      once = hessian(v)
      twice = hessian(once)
      return jax.tree.map(jnp.add, total, (once, twice)), None

    zero = jax.tree.map(jnp.zeros_like, (v, v))
    (once, twice), _ = jax.lax.scan(add, zero, batches)
    square = products.summed(of, batches)(once)
    return jax.tree.map(lambda a, b: a / count - b / count**2, twice, square)

  return mvp


def count_batches(batches: Tree, least: int) -> int:
  """S, the common first axis of `batches`, or InputError below `least`."""
  sizes = {
    jnp.shape(leaf)[0] if jnp.ndim(leaf) else None
    for leaf in jax.tree.leaves(batches)
  }
  count = sizes.pop() if len(sizes) == 1 else None
  errors.require(
    'batches',
    sorted(map(str, {count, *sizes})),
    count is not None and count >= least,
    f'stacked along one common first axis, at least {least} of them',
  )
  assert count is not None
  return count
