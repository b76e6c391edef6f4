"""SSR, the largest curvature that a softmax brings (arXiv 2006.06643)."""

import jax
import jax.numpy as jnp

from implicit_attr import numerics
from implicit_attr.losses import Loss
from implicit_attr.objectives import input_derivatives as derivatives
from implicit_attr.objectives import validation
from implicit_attr.types import ApplyFn, Array, LossFn, Params


def top_direction(
  apply_fn: ApplyFn, loss: Loss, params: Params, x: Array, y: Array
) -> Array:
  """The unit vector d [B, ...] with the largest dᵀ J' (∇² loss) J d.

  J [C, pixels] is the Jacobian of the logits. With R Rᵀ = ∇² loss it is
  J' R u for the top eigenvector u of the C x C matrix Rᵀ J J' R: C backward
  passes and two small eigendecompositions.
  """
  logits, pull = jax.vjp(lambda x: apply_fn(params, x)[0], x)
  eye = jnp.eye(logits.shape[1], dtype=logits.dtype)
  row = lambda e: pull(jnp.broadcast_to(e[None], logits.shape))[0]
  rows = jax.lax.map(row, eye)  # [C, B, ...]
  flat = rows.reshape(*rows.shape[:2], -1)
  gram = jnp.einsum('cbn,dbn->bcd', flat, flat)
  middle = jax.vmap(jax.hessian(lambda z, y: loss(z[None], y[None])[0]))
  values, vectors = jnp.linalg.eigh(middle(logits, y))
  # A convex loss; rounding alone makes eigenvalues negative.
  root = vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]
  twin = jnp.einsum('bki,bkl,blj->bij', root, gram, root)
  top = jnp.linalg.eigh((twin + twin.mT) / 2)[1][:, :, -1]
  mixed = jnp.einsum('bci,bi,cbn->bn', root, top, flat)
  return derivatives.unit(mixed.reshape(x.shape))


def ssr(apply_fn: ApplyFn, loss: Loss, *, weight: float = 6.6) -> LossFn:
  """loss + weight · λ_max of J' (∇² loss) J, the Gauss-Newton part in x.

  SSR of Wang et al. (arXiv 2006.06643), per pixel unit squared: all of the
  input Hessian where the network is piecewise linear. They minimise
  (1 - α) loss + α s λ_max on pixels of 0 to 255, with α = 0.3; divided by
  1 - α and in our units their default s = 1e6 is the weight 6.6 and the
  s = 0.3 of their script 2e-6. Their Jacobian is a mean over channels, ours is
  whole.

  The eigenvector is held fixed when differentiating: for a simple eigenvalue
  the gradient is that of the eigenvalue itself (Hellmann and Feynman), and
  only one direction has to be differentiated instead of C.

  Raises:
    InputError: a negative weight.
  """
  validation.weight(weight)

  def loss_fn(params, batch, key):
    x, y = batch['image'], batch['label']
    frozen = jax.lax.stop_gradient(params)
    with numerics.exact():
      d = top_direction(apply_fn, loss, frozen, x, y)
      d = jax.lax.stop_gradient(d)
      zero = jnp.zeros((), x.dtype)
      logits, push, out = jax.jvp(
        lambda t: apply_fn(params, x + t * d),
        (zero,),
        (zero + 1,),
        has_aux=True,
      )
      slope = lambda t: jax.jvp(
        lambda t: loss(logits + t * push, y), (t,), (zero + 1,)
      )
      (per_example, _), (_, curvature) = jax.jvp(slope, (zero,), (zero + 1,))
    return per_example + weight * curvature, {**out, 'logits': logits}

  return loss_fn
