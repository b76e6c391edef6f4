"""Random keys as a function of (seed, name, step), never of state.

Nothing is split and carried, so a resumed run needs no random state and two
streams never meet: a new consumer takes a new name.
"""

import zlib

import jax


def stream(
  seed: int | jax.typing.ArrayLike, name: str, step: int | jax.Array = 0
) -> jax.Array:
  """The typed key of stream `name` at `step`; `step` may be traced."""
  key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
  return jax.random.fold_in(key, step)
