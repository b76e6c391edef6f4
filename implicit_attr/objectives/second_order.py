"""Whether a network has second derivatives in its image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import ApplyFn, Array, Params


def curved(fun: Callable[[Array], Array], x: Array) -> bool:
  """False if the Hessian of Σ fun(x) in x is zero whatever x is.

  Decided while tracing: the Hessian's product with v of a piecewise linear
  function, differentiated by JAX, does not contain v. Max-pooling is not seen
  through and counts as curved.
  """

  def product(x: Array, v: Array) -> Array:
    grad = jax.grad(lambda x: jnp.sum(fun(x)))
    return jax.jvp(grad, (x,), (v,))[1]

  like = jax.ShapeDtypeStruct(x.shape, x.dtype)
  jaxpr = jax.make_jaxpr(product)(like, like).jaxpr
  touched = {jaxpr.invars[1]}
  for eqn in jaxpr.eqns:
    # Literals cannot be hashed, and depend on nothing.
    if any(not hasattr(a, 'val') and a in touched for a in eqn.invars):
      touched.update(eqn.outvars)
  return any(not hasattr(a, 'val') and a in touched for a in jaxpr.outvars)


def require(apply_fn: ApplyFn, params: Params, x: Array, what: str) -> None:
  """Raises InputError if the logits have no second derivatives in x.

  `what` names the objective and why it needs them.
  """
  fun = lambda x: apply_fn(params, x)[0]
  errors.require(
    'model.activation', 'piecewise linear', curved(fun, x),
    f'smooth (gelu, tanh, softplus, centred_softplus) for {what}',
  )  # fmt: skip
