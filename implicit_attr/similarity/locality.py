"""LENS (Kamath et al., arXiv 2312.10534) and the shift of a map's centre.

How far, in pixels, did the important places of a map move? Maps here are
spatial, [B, H, W], larger meaning more important: pass `magnitude` of a signed
map.
"""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.similarity.maps import ordered, planes
from implicit_attr.similarity.topk import count, top_mask
from implicit_attr.types import Array


def mass_centre(a: Array) -> Array:
  """(row, column) of the centre of mass of |a|, not rounded; [B, 2].

  NaN for a map that is zero or has a NaN.
  """
  size = jnp.abs(planes(a)[0])
  share = size / jnp.sum(size, (1, 2), keepdims=True)
  rows, columns = (jnp.arange(n, dtype=share.dtype) for n in share.shape[1:])
  row = jnp.sum(jnp.sum(share, 2) * rows[None], -1)
  return jnp.stack([row, jnp.sum(jnp.sum(share, 1) * columns[None], -1)], -1)


def mass_centre_shift(a: Array, b: Array) -> Array:
  """Distance in pixels between the centres of mass of two maps; [B].

  NaN where a map is zero or has a NaN; 0 for constant maps and single pixels.
  """
  a, b = planes(a, b)
  return jnp.linalg.norm(mass_centre(a) - mass_centre(b), axis=-1)


def dilate(mask: Array, w: int) -> Array:
  """Pixels at most w rows and w columns from a True one; bool [B, H, W].

  A square of side 2 w + 1 in two dimensions: nothing wraps round the ends of
  a row.
  """
  errors.number('w', w, 0, integer=True)
  side = (1, 2 * w + 1, 2 * w + 1)
  return jax.lax.reduce_window(
    mask, False, jax.lax.bitwise_or, side, (1, 1, 1), 'SAME'
  )


def _share(picked: Array, region: Array, *maps: Array) -> Array:
  # True division of counts, so that equal sets give exactly 1.
  share = jnp.sum(picked & region, (1, 2)) / jnp.sum(picked, (1, 2))
  return jnp.where(ordered(*maps), share, jnp.nan)


def lens_recall(a: Array, b: Array, k: int | float, *, w: int = 1) -> Array:
  """Share of b's top-k pixels within w pixels of a's top-k set; [B].

  |Top_k(b) ∩ dilate_w(Top_k(a))| / k of Kamath et al. (arXiv 2312.10534), a
  the clean map. w = 0 is `topk_intersection`, and NaN as there: where a map is
  constant (zero, a single pixel) or has a NaN.
  """
  a, b = planes(a, b)
  return _share(top_mask(b, k), dilate(top_mask(a, k), w), a, b)


def lens_precision(a: Array, b: Array, k: int | float, *, w: int = 1) -> Array:
  """Share of a's top-k pixels within w pixels of b's top-k set; [B].

  `lens_recall` with the maps exchanged, and NaN as there.
  """
  return lens_recall(b, a, k, w=w)


def diverse_top_mask(a: Array, k: int | float, *, w: int = 1) -> Array:
  """At most k spread-out peaks: bool [B, H, W].

  Greedy: the largest pixel is picked, everything within w pixels of it is
  taken out, and so on. Fewer than k where the map is used up. Ties go to the
  smaller index.
  """
  (a,) = planes(a)
  errors.number('w', w, 0, integer=True)
  batch, height, width = a.shape
  k = count(k, height * width)
  rows = jnp.arange(height)[None, :, None]
  columns = jnp.arange(width)[None, None, :]

  def pick(_, carry):
    picked, free = carry
    left = jnp.where(free, a, -jnp.inf).reshape(batch, height * width)
    index = jnp.argmax(left, -1)[:, None, None]
    far_row = jnp.abs(rows - index // width)
    far_column = jnp.abs(columns - index % width)
    here = (far_row == 0) & (far_column == 0)
    near = (far_row <= w) & (far_column <= w)
    return picked | (here & free), free & ~near

  nothing = jnp.zeros(a.shape, bool)
  return jax.lax.fori_loop(0, k, pick, (nothing, ~nothing))[0]


def topk_div(a: Array, b: Array, k: int | float, *, w: int = 1) -> Array:
  """Share of b's k spread-out peaks within w pixels of a's; [B].

  LENS recall at k-div of Kamath et al. (arXiv 2312.10534): several distinct
  places count, not one blob of k neighbours. NaN as `lens_recall`.
  """
  a, b = planes(a, b)
  ours, theirs = (diverse_top_mask(m, k, w=w) for m in (a, b))
  return _share(theirs, dilate(ours, w), a, b)
