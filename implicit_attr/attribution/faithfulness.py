"""Faithfulness: deletion, insertion, pixel flipping, and mass inside a mask.

Does the network use the pixels that a map calls important? The number beside
every robustness number, since the steadiest map is one that says nothing.

Maps are [B, H, W], or [B, H, W, C] and then reduced by `sum_abs`; integers and
booleans are taken as float32. Pixels of equal value are ranked in reading
order. A map that ranks no pixel before another, which is a constant one, one
that is 0 everywhere and one of a single pixel, and a map that has a NaN give
NaN: such examples can be counted and are not mistaken for faithful ones.
"""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.attribution.inputs import check, check_images, full
from implicit_attr.attribution.reduce import floating, sum_abs
from implicit_attr.attribution.targets import target as target_of
from implicit_attr.types import ApplyFn, Array, Params


def _flat(a: Array, pixels: tuple[int, ...]) -> Array:
  """The map as [B, H W], absolute and summed over channels if it has them."""
  a = floating(a)
  a = sum_abs(a) if a.ndim == 4 else a
  errors.require(
    'map.shape', a.shape, a.shape == pixels, f'{pixels} or [..., C]'
  )
  return a.reshape(a.shape[0], -1)


def _unranked(flat: Array) -> Array:
  """Whether a map [B, n] has a NaN or is constant; bool [B]."""
  constant = jnp.all(flat == flat[:, :1], axis=1)
  return constant | jnp.any(jnp.isnan(flat), axis=1)


def _ranks(flat: Array) -> Array:
  """Rank of every pixel, 0 the largest; the first of equals comes first."""
  order = jnp.argsort(-flat, axis=1, stable=True)
  return jnp.argsort(order, axis=1)


def replacement_curve(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  a: Array,
  *,
  target: str = 'prob',
  baseline: float | Array = 0.0,
  steps: int = 20,
  insert: bool = False,
) -> Array:
  """The target while pixels leave or enter, the most important ones first.

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    params: what `apply_fn` takes.
    x: [B, H, W, C], pixel units.
    y: the classes asked about; int [B].
    a: the map, [B, H, W] or [B, H, W, C].
    target: one of `TARGETS`.
    baseline: what stands where a pixel is missing: a number, [H, W, C] or
      [B, H, W, C], for instance `blurred(x, 2.)`.
    steps: parts into which the pixels are cut.
    insert: start from the baseline and insert, instead of deleting.

  Returns:
    [B, steps + 1]; column i has the share i / steps of pixels changed (rounded
    to whole pixels). NaN for maps that rank nothing.

  Raises:
    InputError: shapes that do not fit, unknown target, steps below one.
  """
  x, y = check(apply_fn, params, x, y)
  check_images(x)
  errors.number('steps', steps, 1, integer=True)
  flat = _flat(a, x.shape[:3])
  ranks = _ranks(flat).reshape(*x.shape[:3], 1)
  missing = full('baseline', baseline, x)
  before, after = (missing, x) if insert else (x, missing)
  pixels = x.shape[1] * x.shape[2]

  def level(count: Array) -> Array:
    logits, _ = apply_fn(params, jnp.where(ranks < count, after, before))
    return target_of(target, logits, y)

  counts = np.rint(np.linspace(0, pixels, steps + 1)).astype(np.int32)
  curve = jax.lax.map(level, jnp.asarray(counts)).T
  return jnp.where(_unranked(flat)[:, None], jnp.nan, curve)


def deletion_auc(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  a: Array,
  *,
  target: str = 'prob',
  baseline: float | Array = 0.0,
  steps: int = 20,
) -> Array:
  """Mean of the target while pixels are deleted (RISE, arXiv 1806.07421).

  Area under `replacement_curve` over the share of pixels, by trapezoids.

  Returns:
    [B]; low for a faithful map: the target falls at once.
  """
  curve = replacement_curve(
    apply_fn, params, x, y, a,
    target=target, baseline=baseline, steps=steps,
  )  # fmt: skip
  return jnp.trapezoid(curve, dx=1 / steps, axis=1)


def insertion_auc(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  a: Array,
  *,
  target: str = 'prob',
  baseline: float | Array = 0.0,
  steps: int = 20,
) -> Array:
  """Mean of the target while pixels are inserted (RISE, arXiv 1806.07421).

  RISE inserts into a blurred image: `baseline=blurred(x, sigma)`.

  Returns:
    [B]; high for a faithful map.
  """
  curve = replacement_curve(
    apply_fn, params, x, y, a,
    target=target, baseline=baseline, steps=steps, insert=True,
  )  # fmt: skip
  return jnp.trapezoid(curve, dx=1 / steps, axis=1)


ORDERS = ('morf', 'lerf')


def pixel_flipping(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  a: Array,
  *,
  target: str = 'logit',
  baseline: float | Array = 0.0,
  steps: int | None = None,
  order: str = 'morf',
) -> Array:
  """The target while pixels are flipped (Bach et al., PLoS ONE 2015).

  `replacement_curve` in another order: by the signed sum over channels, so
  that evidence against the target goes last, where `deletion_auc` ranks by
  the absolute map, if it has channels. Its area is `flipping_area`, a mean
  drop from the clean target, where `deletion_auc` is the mean of the target
  itself.

  Args:
    apply_fn, params, x, y, baseline: as `replacement_curve`.
    a: the map, signed, [B, H, W] or [B, H, W, C].
    target: one of `TARGETS`.
    steps: groups of pixels that are flipped together; None flips one by one.
    order: 'morf', the most relevant first, or 'lerf', the least.

  Returns:
    [B, steps + 1]; for a faithful map it falls at once under 'morf', and late
    under 'lerf'.

  Raises:
    InputError: as `replacement_curve`; an unknown order.
  """
  x = jnp.asarray(x)
  check_images(x)
  errors.choose('order', order, ORDERS)
  a = floating(a)
  a = jnp.sum(a, axis=-1) if a.ndim == 4 else a
  return replacement_curve(
    apply_fn, params, x, y, a if order == 'morf' else -a,
    target=target, baseline=baseline,
    steps=x.shape[1] * x.shape[2] if steps is None else steps,
  )  # fmt: skip


def flipping_area(curve: Array) -> Array:
  """Mean drop of the target over the states of `curve` [B, L + 1]; [B].

  AOPC (Samek et al., arXiv 1509.06321), without the mean over
  examples: high for a faithful map under 'morf', low under 'lerf'.
  """
  return jnp.mean(curve[:, :1] - curve, axis=1)


def blurred(x: Array, sigma: float) -> Array:
  """x [B, H, W, C] under a Gaussian of `sigma` pixels, edges repeated."""
  check_images(x)
  errors.number('sigma', sigma, 0, open_low=True)
  for axis in (1, 2):
    n = x.shape[axis]
    # A row of weights for every pixel; what lies outside is the edge pixel.
    reach = int(np.ceil(3 * sigma))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((n, n))
    sources = np.clip(np.arange(n)[:, None] + offsets, 0, n - 1)
    weights = np.broadcast_to(kernel / kernel.sum(), sources.shape)
    np.add.at(matrix, (np.arange(n)[:, None], sources), weights)
    moved = jnp.tensordot(jnp.asarray(matrix, x.dtype), x, axes=(1, axis))
    x = jnp.moveaxis(moved, 0, axis)
  return x


def mask_mass(a: Array, mask: Array) -> Array:
  """Share of the absolute map that lies inside `mask`; [B], 0 to 1.

  "Relevance mass" (Arras et al., arXiv 2003.07258), with the absolute map for
  the positive one, since most maps here have no sign to trust. NaN for a map
  that is 0 everywhere or has a NaN, the mask's share of the pixels for another
  constant one, 0 for an empty mask.

  Args:
    a: [B, H, W] or [B, H, W, C].
    mask: bool [B, H, W], the truth.

  Raises:
    InputError: shapes that do not fit; here and below.
  """
  flat, inside = _inside(a, mask)
  flat = jnp.abs(flat)
  part = jnp.sum(jnp.where(inside, flat, 0), axis=1)
  return part / jnp.sum(flat, axis=1)


def mask_rank(a: Array, mask: Array) -> Array:
  """Share of the mask's n pixels among the map's first n; [B], 0 to 1.

  "Relevance rank" (arXiv 2003.07258); 0 for an empty mask, NaN for maps that
  rank nothing.
  """
  flat, inside = _inside(a, mask)
  size = jnp.sum(inside, axis=1, keepdims=True)
  hits = jnp.sum(inside & (_ranks(flat) < size), axis=1)
  share = (hits / jnp.maximum(size[:, 0], 1)).astype(flat.dtype)
  return jnp.where(_unranked(flat), jnp.nan, share)


def pointing_game(a: Array, mask: Array) -> Array:
  """1 where the map's largest pixel lies inside `mask`, else 0; [B].

  Zhang et al., arXiv 1608.00507, without a tolerance around the mask. 0 for an
  empty mask, NaN for maps that rank nothing.
  """
  flat, inside = _inside(a, mask)
  hit = jnp.any(inside & (_ranks(flat) == 0), axis=1).astype(flat.dtype)
  return jnp.where(_unranked(flat), jnp.nan, hit)


def _inside(a: Array, mask: Array) -> tuple[Array, Array]:
  errors.require('mask.shape', mask.shape, mask.ndim == 3, '[B, H, W]')
  errors.require('mask.dtype', str(mask.dtype), mask.dtype == bool, 'bool')
  return _flat(a, mask.shape), mask.reshape(mask.shape[0], -1)
