"""Images and gradients against the data (Kim et al., arXiv 1903.11626)."""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array


def nearest_distance(
  x: Array, reference: Array, *, chunk: int = 128
) -> tuple[Array, Array]:
  """Distance to the nearest of N reference images, and which it is.

  Differences are taken before squares, `chunk` reference images at a time, so
  that small distances are right to rounding.

  Args:
    x: [B, ...].
    reference: [N, ...], images of the same shape.

  Returns:
    (‖x_b - nearest‖₂ [B] in pixel units, its index [B] int32).

  Raises:
    InputError: images of different shapes, no reference.
  """
  errors.require(
    'reference.shape', reference.shape,
    len(reference) > 0 and reference.shape[1:] == x.shape[1:],
    f'[N, {", ".join(map(str, x.shape[1:]))}]',
  )  # fmt: skip
  flat, rows = (a.reshape(len(a), -1) for a in (x, reference))

  def one(row: Array) -> Array:
    return jnp.sum(jnp.square(flat - row[None]), -1)

  squares = jax.lax.map(one, rows, batch_size=min(chunk, len(rows)))  # [N, B]
  index = jnp.argmin(squares, 0).astype(jnp.int32)
  return jnp.sqrt(jnp.min(squares, 0)), index


def image_alignment(x: Array, grad: Array) -> Array:
  """|x·g| / ‖g‖₂, [B], in pixel units; 0 where g is 0.

  Etmann et al. (arXiv 1905.04172), who take g of the margin: for a network
  that is linear without biases it is the distance to the decision boundary.
  """
  flat_x, flat_g = (a.reshape(len(a), -1) for a in (x, grad))
  norm = jnp.linalg.norm(flat_g, axis=-1)
  inner = jnp.abs(jnp.sum(flat_x * flat_g, -1))
  return inner / jnp.where(norm > 0, norm, 1)
