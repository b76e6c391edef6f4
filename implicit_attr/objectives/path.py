"""The mean gradient along a line, cheap enough to train on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr.types import Array


def mean_gradient(
  value: Callable[[Array, Array], Array],
  start: Array,
  end: Array,
  y: Array,
  *,
  steps: int,
  chunk: int | None = None,
) -> Array:
  """Mean over k = 1 … steps of ∇ value(start + k / steps · (end - start)).

  The right Riemann sum, [B, ...]. Differentiable in both ends.

  Args:
    value: (x [n, ...], y [n]) -> [n], row by row.
    chunk: points in memory at once, recomputed when differentiated; None
      keeps all and computes nothing twice.
  """
  chunk = min(chunk or steps, steps)
  # Points of weight 0 fill the last chunk.
  missing = -steps % chunk
  shares = np.pad(np.arange(1, steps + 1) / steps, (0, missing))
  weights = np.pad(np.full(steps, 1 / steps), (0, missing))
  rise = jax.grad(lambda x, y: jnp.sum(value(x, y)))

  def part(shares, weights):
    back = shares.reshape((-1,) + (1,) * start.ndim)
    points = start[None] + back * (end - start)[None]
    flat = points.reshape(-1, *start.shape[1:])
    grads = rise(flat, jnp.tile(y, chunk)).reshape(points.shape)
    return jnp.tensordot(weights, grads, axes=1)

  nodes = tuple(
    jnp.asarray(a.reshape(-1, chunk), start.dtype) for a in (shares, weights)
  )
  if chunk == steps:
    return part(*(a[0] for a in nodes))
  add = lambda total, node: (total + jax.checkpoint(part)(*node), None)
  return jax.lax.scan(add, jnp.zeros_like(start), nodes)[0]
