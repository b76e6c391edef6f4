"""What a network with attention tells in `out` of each of its blocks.

Attention maps read `out` of `apply_fn(params, x) -> (logits, out)`, where each
name has one entry for each block:

- 'attention' [B, H, L, L]: the coefficient of v_j in o_i;
- 'values' and 'mixed' [B, L, H, Dh]: v, and o as the network goes on with it;
- 'factors' (phi(q), phi(k), 1 / d), of which A is made: [B, L, H, M] twice and
  [B, L, H];
- 'scores' [B, H, L, L]: what the normaliser gets;
- 'projections' [H, Dh, D] and 'layers' [B, L, D], with 'tokens' [B, L, D] alone
  for what the first block gets.

Any network that returns what a method needs takes part. Derivatives by 'mixed'
come from `rewire`, so nothing has to be built into the network for them.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attribution.attention import Factored, Weights
from implicit_attr.attribution.inputs import check, check_images
from implicit_attr.attribution.rewire import per_block, rewired
from implicit_attr.attribution.targets import target as target_of
from implicit_attr.types import ApplyFn, Array, Params

READOUTS = ('cls', 'mean')


def seen(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  readout: str,
  names: Sequence[str],
  target: str | None = None,
) -> tuple[dict[str, tuple], Array]:
  """`out` with at least `names`, and the read-out's queries as `rows` [B, L].

  With a target, 'gradient' [B, L, H, Dh], dy/do of each block, beside them.

  Raises:
    InputError: as `gradient`; x no images; a network that does not return
      them; a read-out that is unknown or does not fit the number of tokens.
  """
  x, y = check(apply_fn, params, x, y)
  check_images(x)
  errors.choose('readout', readout, READOUTS)
  names = [*names, *(() if target is None else ('values', 'mixed'))]
  shapes = per_block(apply_fn, params, x, sorted({'attention', *names}))
  b, _, _, size = shapes['attention'][0].shape
  count = size - (readout == 'cls')
  pixels = x.shape[1] * x.shape[2]
  errors.require(
    'readout', readout, count > 0 and pixels % count == 0,
    f'the one of the network: of {size} tokens it leaves {count}, which do not '
    f'divide an image of {x.shape[1]} x {x.shape[2]}',
  )  # fmt: skip
  place = jnp.full(size, 1 / size)
  if readout == 'cls':
    place = jnp.arange(size) == 0
  rows = jnp.broadcast_to(place.astype(x.dtype), (b, size))
  if target is None:
    return apply_fn(params, x)[1], rows

  def total(offsets: list[Array]) -> tuple[Array, dict]:
    move = lambda block, read, old: old() + offsets[block]
    logits, out = rewired(apply_fn, {'mixed': move}, names)(params, x)
    return jnp.sum(target_of(target, logits, y)), out

  zeros = [jnp.zeros(s.shape, s.dtype) for s in shapes['mixed']]
  gradients, out = jax.grad(total, has_aux=True)(zeros)
  return {**out, 'gradient': tuple(gradients)}, rows


def block_of(layer: int, count: int) -> int:
  """`layer` as an index of `count` blocks; -1 is the last.

  Raises:
    InputError: there is no such block.
  """
  errors.number('layer', layer, -count, count - 1, integer=True)
  return layer % count


def image_tokens(a: Array, readout: str) -> Array:
  """[B, L] -> [B, N]: without the class token, if there is one."""
  return a[:, 1:] if readout == 'cls' else a


def token_grid(a: Array, x: Array) -> Array:
  """The map a [B, N] of square patches of x [B, H, W, C] as [B, h, w].

  Raises:
    InputError: N square patches do not make up an image of that shape.
  """
  check_images(x)
  height, width = x.shape[1:3]
  rows = math.isqrt(a.shape[1] * height // width)
  ok = rows > 0 and rows * width == height * (a.shape[1] // max(rows, 1))
  ok = ok and a.shape[1] % rows == 0 and height % rows == 0
  errors.require(
    'map.shape', a.shape, ok, f'square patches of {height} x {width} pixels'
  )
  return a.reshape(len(a), rows, -1)


def token_pixels(a: Array, x: Array) -> Array:
  """The map a [B, N] on the pixels of x [B, H, W, C]: [B, H, W].

  Every pixel has the number of its patch.

  Raises:
    InputError: as `token_grid`.
  """
  grid = token_grid(a, x)
  rows = jnp.repeat(grid, x.shape[1] // grid.shape[1], axis=1)
  return jnp.repeat(rows, x.shape[2] // grid.shape[2], axis=2)


def weights_of(out: dict, implicit: bool) -> list[Weights]:
  if implicit:
    return [Factored(*f) for f in out['factors']]
  return list(out['attention'])
