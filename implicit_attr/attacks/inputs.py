"""Does what a person handed to an attack fit together?

Shapes are checked always; values only where they are known, that is outside
of jit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.types import Array, Predict


def known(value: object) -> bool:
  """False while `value` is being traced."""
  return not isinstance(value, jax.core.Tracer)


def check(
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  bounds: tuple[float, float],
  **counts: int,
) -> tuple[Array, Array]:
  """x and y as arrays, if they are fit to be attacked.

  Raises:
    InputError: x not `[B, H, W, C]` and floating, y not `[B]` and integer;
      where the values are known, x not finite or outside `bounds`, y negative,
      eps negative; a count (steps, restarts, …) below one.
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  floating = jnp.issubdtype(x.dtype, jnp.floating)
  errors.require('x.shape', x.shape, x.ndim == 4, '[B, H, W, C]')
  errors.require('x.dtype', str(x.dtype), floating, 'a floating type')
  errors.require('y.shape', y.shape, y.shape == x.shape[:1], f'{x.shape[:1]}')
  whole = jnp.issubdtype(y.dtype, jnp.integer)
  errors.require('y.dtype', str(y.dtype), whole, 'an integer type')
  low, high = bounds
  errors.require('bounds', bounds, low < high, 'low, high with low < high')
  if known(eps):
    errors.number('eps', float(eps), 0)
  for name, value in counts.items():
    errors.number(name, value, 1, integer=True)
  if known(x) and x.size:
    # numpy, for under jit even an array that is closed over would be traced.
    seen = np.asarray(x)
    ends = float(seen.min()), float(seen.max())
    finite = bool(np.isfinite(seen).all())
    errors.require('x', f'{ends}', finite, 'finite: no NaN, no infinity')
    inside = low <= ends[0] and ends[1] <= high
    errors.require('x', f'in {ends}', inside, f'in {bounds}, the bounds')
  if known(y) and y.size:
    least = int(np.asarray(y).min())
    errors.require('y', least, least >= 0, 'labels >= 0')
  return x, y


def check_labels(y: Array, logits: Array, x: Array) -> None:
  """Raises InputError unless logits are [B, C] and every label is below C."""
  shape = jnp.shape(logits)
  fits = len(shape) == 2 and shape[0] == x.shape[0]
  errors.require('predict(x).shape', shape, fits, f'[{x.shape[0]}, C]')
  if known(y) and y.size:
    top = int(np.asarray(y).max())
    errors.require('y', top, top < shape[1], f'labels < {shape[1]}')


def check_map(a: Array, x: Array) -> None:
  """Raises InputError unless the map `a` is [B, ...], one for each image."""
  shape = jnp.shape(a)
  fits = len(shape) > 1 and shape[0] == x.shape[0]
  errors.require('explain(x, y).shape', shape, fits, f'[{x.shape[0]}, ...]')


def predicted(predict: Predict, x: Array) -> Array:
  """The class with the largest logit; [B, H, W, C] -> [B]."""
  return jnp.argmax(predict(x), -1)
