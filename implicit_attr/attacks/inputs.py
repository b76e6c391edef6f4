"""Arguments of an attack: images in the box, labels, radius, counts.

Shapes are checked always; values only where they are known, that is outside
of jit.
"""

import jax.numpy as jnp
import numpy as np

from implicit_attr import errors, losses
from implicit_attr.similarity import images
from implicit_attr.similarity.images import known
from implicit_attr.types import Array


def check(
  x: Array | np.ndarray,
  y: Array | np.ndarray,
  *,
  eps: float | Array,
  norm: str,
  bounds: tuple[float, float],
  **counts: int,
) -> tuple[Array, Array]:
  """x and y as arrays, if they are fit to be attacked.

  Raises:
    InputError: x not `[B, H, W, C]`, empty, or not floating; y not `[B]` and
      integer; where the values are known, x not finite or outside `bounds`, y
      negative, eps negative or, for 'linf' and 'patch', more than the range of
      a pixel; a count (steps, restarts, …) below one.
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  errors.require('x.shape', x.shape, x.ndim == 4, '[B, H, W, C]')
  x = images.check(x, bounds)
  errors.require('y.shape', y.shape, y.shape == x.shape[:1], f'{x.shape[:1]}')
  whole = jnp.issubdtype(y.dtype, jnp.integer)
  errors.require('y.dtype', str(y.dtype), whole, 'an integer type')
  if known(eps):
    eps = float(eps)
    errors.number('eps', eps, 0)
    span = bounds[1] - bounds[0]
    units = f'at most {span:g}, the range of a pixel: 8/255, not 8'
    small = norm not in ('linf', 'patch') or eps <= span
    errors.require('eps', eps, small, units)
  for name, value in counts.items():
    errors.number(name, value, 1, integer=True)
  if known(y):
    least = int(np.asarray(y).min())
    errors.require('y', least, least >= 0, 'labels >= 0')
  return x, y


def check_labels(y: Array, logits: Array, x: Array) -> None:
  """Raises InputError unless every label is below C > 1, of logits [B, C].

  Of a single logit the largest is always the first: no label could change.
  """
  shape = jnp.shape(logits)
  fits = len(shape) == 2 and shape[0] == x.shape[0]
  errors.require('logits.shape', shape, fits, f'[{x.shape[0]}, C], C > 1')
  losses.check_labels(logits, y, 'y')


def check_map(a: Array, x: Array) -> None:
  """Raises InputError unless the map `a` is [B, ...], one for each image."""
  shape = jnp.shape(a)
  fits = len(shape) > 1 and shape[0] == x.shape[0]
  errors.require('explain(x, y).shape', shape, fits, f'[{x.shape[0]}, ...]')
