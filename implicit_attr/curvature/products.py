"""Exact Hessian-vector products (Pearlmutter, Neural Computation 6, 1994).

Everything else in this folder sees a curvature only as `mvp: v -> H v`, a
symmetric matrix times a tree. Products are exact: forward mode over reverse
mode, never finite differences.
"""

from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp

from implicit_attr import errors, numerics
from implicit_attr.curvature.flat import check_tree
from implicit_attr.types import Array, Mvp, Tree

Scalar = Callable[[Tree], Array]


def hvp(fun: Scalar, x: Tree, v: Tree) -> Tree:
  """H v for the Hessian H of `fun` at `x`, in one pass.

  About 2 to 2.5 gradients. For more than one product at the same `x` take
  `linearize_hvp`.

  Args:
    fun: x -> []. Twice differentiable at `x`.
    x: any tree of floating-point arrays.
    v: a tree like `x`.

  Raises:
    InputError: `fun` is not scalar; `x` is empty or has integer leaves.
  """
  check_tree('x', x)
  return jax.jvp(jax.grad(_scalar(fun)), (x,), (v,))[1]


def second_derivative(fun: Scalar, x: Tree, v: Tree) -> Array:
  """v' H v = d²/dt² fun(x + t v) at t = 0, [], exact: forward over forward.

  For the number alone: nothing is transposed and no intermediates are kept.

  Args:
    fun: x -> [], twice differentiable at `x` in forward mode, which
      `jax.custom_vjp` has not.
    x: any tree of floating-point arrays.
    v: a tree like `x`.

  Raises:
    InputError: as `hvp`.
  """
  check_tree('x', x)
  fun = _scalar(fun)
  slope = lambda x: jax.jvp(fun, (x,), (v,))[1]
  return jax.jvp(slope, (x,), (v,))[1]


def linearize_hvp(fun: Scalar, x: Tree) -> Mvp:
  """v -> H v with the work that does not depend on `v` done once.

  Keeps the intermediates of one gradient in memory for as long as the result
  is used. Linear in `v` to rounding, symmetric to rounding.

  Raises:
    InputError: as `hvp`; and, outside `jit`, if `fun` or its gradient is not
      finite at `x`. Inside `jit` values are unknown and the NaN goes through
      to every result.
  """
  return grad_and_hvp(fun, x)[1]


def grad_and_hvp(fun: Scalar, x: Tree) -> tuple[Tree, Mvp]:
  """(gradient of `fun` at `x`, `linearize_hvp(fun, x)`) for one linearisation.

  Raises:
    InputError: as `linearize_hvp`.
  """
  check_tree('x', x)
  (value, grad), push = jax.linearize(jax.value_and_grad(_scalar(fun)), x)
  _reject_non_finite(value, grad)
  return grad, lambda v: push(v)[1]


def microbatched(
  fun: Callable[[Tree, Tree], Array],
) -> Callable[[Tree, Tree], Array]:
  """Σ_m fun(x, batches[m]), differentiable in the memory of one microbatch.

  Nothing but `x` and the data is kept between microbatches: each is
  recomputed when a gradient or a product needs it. A product of the result
  costs about one gradient more than a product with everything in memory. Write
  `fun` as a sum over examples and divide once by their number, and the result
  does not depend on how they are cut, last short microbatch included (give its
  filling weight 0 inside `fun`).

  Args:
    fun: (x, batch) -> [], a sum over the examples of `batch`.

  Returns:
    total(x, batches) -> []; the leaves of `batches` are [M, b, ...].
  """

  def total(x: Tree, batches: Tree) -> Array:
    # Inside a scan the loop itself keeps XLA from undoing the recomputation.
    one = jax.checkpoint(lambda batch: fun(x, batch), prevent_cse=False)
    return jnp.sum(jax.lax.map(one, batches))

  return total


def summed(make_mvp: Callable[[Tree], Mvp], batches: Tree) -> Mvp:
  """v -> Σ_m make_mvp(batches[m])(v) in the memory of one microbatch.

  The same as `microbatched` for products that are not Hessians: Gauss–Newton
  and Fisher matrices, in sum form.
  """

  def mvp(v: Tree) -> Tree:
    def add(total, batch):
      return jax.tree.map(jnp.add, total, make_mvp(batch)(v)), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, v), batches)[0]

  return mvp


def _scalar(fun: Scalar) -> Scalar:
  """`fun`, refusing an output that is not one real number while it is traced.

  Checked in the trace that differentiation makes anyway: no second one.
  """

  def checked(x: Tree) -> Array:
    out = fun(x)
    shape = jnp.shape(out) if isinstance(out, jax.Array) else type(out).__name__
    errors.require(
      'fun(x)',
      shape,
      shape == () and jnp.issubdtype(out.dtype, jnp.floating),
      'one real number, of shape ()',
    )
    return out

  return checked


def _reject_non_finite(value: Array, grad: Tree) -> None:
  """Raises InputError on NaN or infinity, where the numbers are known."""
  leaves = jax.tree.leaves((value, grad))
  if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
    return
  errors.require(
    'fun(x)',
    float(value),
    bool(numerics.all_finite((value, grad))),
    'finite, with a finite gradient, for a curvature to exist',
  )
