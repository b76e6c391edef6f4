"""Checks of what a person asks to have explained.

Shapes are checked always; values only where they are known, that is outside
of jit.
"""

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.types import ApplyFn, Array, Params


def known(value: object) -> bool:
  """False while `value` is being traced."""
  return not isinstance(value, jax.core.Tracer)


def check(
  apply_fn: ApplyFn, params: Params, x: Array, y: Array
) -> tuple[Array, Array]:
  """x and y as arrays, if they are fit to be explained.

  Raises:
    InputError: x not `[B, ...]` and floating, y not `[B]` and integer; where
      the values are known, an x that is not finite, a y that is no class.
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  floating = jnp.issubdtype(x.dtype, jnp.floating)
  errors.require('x.shape', x.shape, x.ndim > 1, '[B, ...]')
  errors.require('x.dtype', str(x.dtype), floating, 'a floating type')
  errors.require('y.shape', y.shape, y.shape == x.shape[:1], f'{x.shape[:1]}')
  whole = jnp.issubdtype(y.dtype, jnp.integer)
  errors.require('y.dtype', str(y.dtype), whole, 'an integer type')
  # numpy, since jnp would trace even a known value inside of jit.
  if known(x):
    finite = bool(np.isfinite(np.asarray(x)).all())
    errors.require('x', 'an array', finite, 'finite: no NaN, no infinity')
  if known(y):
    # Inside the loops of most methods y is traced, so it is looked at here.
    logits, _ = jax.eval_shape(apply_fn, params, x)
    check_labels(y, logits)
  return x, y


def check_images(x: Array) -> None:
  """Raises InputError unless x is `[B, H, W, C]`."""
  errors.require('x.shape', x.shape, x.ndim == 4, '[B, H, W, C]')


def check_labels(y: Array, logits: Array) -> None:
  """Raises InputError unless logits are [B, C] and every label is a class."""
  shape = logits.shape
  fits = len(shape) == 2 and shape[:1] == jnp.shape(y)
  errors.require('logits.shape', shape, fits, f'[{jnp.shape(y)[0]}, C]')
  if known(y) and y.size:
    labels = np.asarray(y)
    low, top = int(labels.min()), int(labels.max())
    errors.require('y', low, low >= 0, 'labels >= 0')
    errors.require('y', top, top < shape[1], f'labels < {shape[1]}')


def check_key(key: Array | None) -> Array:
  """The key, if there is one to draw from.

  Raises:
    InputError: for None and for anything but a typed key.
  """
  ok = (
    key is not None
    and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    and key.shape == ()
  )
  errors.require('key', key, ok, 'a jax.random.key')
  assert key is not None
  return key


def full(name: str, value: float | Array, x: Array) -> Array:
  """`value`, a number or an array [...] or [B, ...], as an array like x.

  Raises:
    InputError: neither shape fits.
  """
  value = jnp.asarray(value, x.dtype)
  fits = value.shape in ((), x.shape[1:], x.shape)
  errors.require(
    f'{name}.shape', value.shape, fits, f'(), {x.shape[1:]} or {x.shape}'
  )
  missing = (1,) * (x.ndim - value.ndim)
  return jnp.broadcast_to(value.reshape(missing + value.shape), x.shape)
