"""Losses of a map that an attack lowers: top-k mass, centre, distances.

Each entry of `OBJECTIVES` freezes what it needs of the clean map and returns
loss(b) -> [B], to be minimised over the perturbed map b: signed, [B, H, W, C],
or [B, H, W], or one number a token [B, L]. Sets, masses and centres are taken
of the channel-summed absolute map; the other distances of the signed map.

`mass_centre`, `cosine` and `pearson` are stationary at b = a, and `l1` and `l2`
have a kink there: their attacks move only from a random start.

No loss depends on the scale of other examples, nor underflows with its own.
`cosine` is NaN where a map is zero, `pearson` where it is constant: gradients
that are not finite move nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.similarity import magnitude, mass, top_mask
from implicit_attr.similarity.alignment import centred
from implicit_attr.similarity.maps import floating, norms, rows, share
from implicit_attr.types import Array

MapLoss = Callable[[Array], Array]
TARGETED = ('target_region', 'target_map')


def _sum(a: Array) -> Array:
  return jnp.sum(a, tuple(range(1, a.ndim)))


def _centre(share: Array) -> Array:
  rows, columns = (jnp.arange(s, dtype=share.dtype) for s in share.shape[1:])
  row = jnp.sum(share, 2) @ rows
  return jnp.stack([row, jnp.sum(share, 1) @ columns], -1)


def _topk(a: Array, *, k: int | float, **_) -> MapLoss:
  """Share of mass on the clean top-k set (arXiv 1710.10547, top-k attack)."""
  top = top_mask(magnitude(a), k)

  def loss(b):
    # One division an example: its slope needs no sum over pixels.
    size = magnitude(b)
    return share(_sum(jnp.where(top, size, 0)), _sum(size))

  return loss


def _topk_gap(a: Array, *, k: int | float, **_) -> MapLoss:
  """Magnitude on the clean top-k set less that outside, over the clean sum.

  The scale is frozen: with both maps summing to one the gap would be twice
  `topk` less one, and the same attack.
  """
  size = magnitude(a)
  top = top_mask(size, k)
  total = _sum(size)
  total = jnp.where(total > 0, total, 1)
  sign = jnp.where(top, 1, -1).astype(a.dtype)
  return lambda b: _sum(sign * magnitude(b)) / total


def _border(a: Array, *, k: int | float, **_) -> MapLoss:
  """Σ w u on the clean top-k set less that outside, u = |b| / τ - 1.

  τ is the border of the set of b, midway between its k-th and (k + 1)-th
  largest entry, and w = exp(-|u| / 0.1): only the pixels near the border are
  pushed, those that can cross it. τ and w are constants to gradients.
  """
  sign = jnp.where(top_mask(magnitude(a), k), 1, -1).astype(a.dtype)
  pixels = tuple(range(1, sign.ndim))

  def loss(b):
    size = magnitude(b)
    fixed = jax.lax.stop_gradient(size)
    inside = top_mask(fixed, k)
    low = jnp.min(fixed, pixels, keepdims=True, where=inside, initial=jnp.inf)
    high = jnp.max(fixed, pixels, keepdims=True, where=~inside, initial=0)
    border = low / 2 + high / 2
    u = size / jnp.where(border > 0, border, 1) - 1
    weight = jnp.exp(-jnp.abs(jax.lax.stop_gradient(u)) / 0.1)
    return _sum(sign * weight * u)

  return loss


def _mass_centre(a: Array, **_) -> MapLoss:
  """Minus the squared shift of the centre of mass, in pixels squared."""
  flat = 'spatial, [B, H, W, C] or [B, H, W], for the objective mass_centre'
  errors.require('explain(x, y).shape', a.shape, a.ndim > 2, flat)
  centre = _centre(mass(a))
  return lambda b: -_sum(jnp.square(_centre(mass(b)) - centre))


def _target_region(a: Array, *, target: Array, **_) -> MapLoss:
  """Minus the share of mass inside the region `target`, bool [B, H, W]."""
  return lambda b: -_sum(jnp.where(target != 0, mass(b), 0))


def _target_map(a: Array, *, target: Array, **_) -> MapLoss:
  """Squared distance of mass to that of the map `target`.

  Summed over pixels; Dombrowski et al. (arXiv 1906.07983) take the mean.
  """
  wanted = mass(target)
  return lambda b: _sum(jnp.square(mass(b) - wanted))


def _unit(a: Array) -> Array:
  """[B, n] over the largest entry of each row, a constant to gradients."""
  top = jnp.max(jnp.abs(a), -1, keepdims=True)
  return a / jax.lax.stop_gradient(top)


def _cosine(a: Array, **_) -> MapLoss:
  """Cosine of the signed maps."""
  a = _unit(rows(a))

  def loss(b):
    # Not clipped, as `similarity.cosine` is: that has no slope at 1.
    b = _unit(rows(b))
    return jnp.sum(a * b, -1) / (norms(a) * norms(b))

  return loss


def _pearson(a: Array, **_) -> MapLoss:
  """Pearson's correlation of the signed maps (arXiv 2010.07393)."""
  loss = _cosine(centred(rows(a)))
  return lambda b: loss(centred(rows(b)))


def _l1(a: Array, **_) -> MapLoss:
  """Minus ‖a - b‖₁ of the signed maps; depends on their scale."""
  return lambda b: -_sum(jnp.abs(a - b))


def _l2(a: Array, **_) -> MapLoss:
  """Minus ‖a - b‖₂ of the signed maps; depends on their scale."""
  return lambda b: -norms(a - b)


def _diffkendall(
  a: Array, *, key: Array, pairs: int = 5000, alpha: float = 20.0, **_
) -> MapLoss:
  """Mean of tanh α(a_i - a_j) · tanh α(b_i - b_j) over random pairs.

  Magnitudes are divided by their largest entry, so that α means the same for
  every network and the attack cannot win by shrinking the map.
  """
  n = magnitude(a)[0].size
  first, second = jax.random.randint(key, (2, pairs), 0, n)

  def order(m):
    m = magnitude(m).reshape(m.shape[0], n)
    m = share(m, jnp.max(m, -1, keepdims=True))
    return jnp.tanh(alpha * (m[:, first] - m[:, second]))

  clean = order(a)
  return lambda b: jnp.mean(clean * order(b), -1)


OBJECTIVES: dict[str, Callable[..., MapLoss]] = {
  'topk': _topk,
  'topk_gap': _topk_gap,
  'border': _border,
  'mass_centre': _mass_centre,
  'target_region': _target_region,
  'target_map': _target_map,
  'cosine': _cosine,
  'pearson': _pearson,
  'l1': _l1,
  'l2': _l2,
  'diffkendall': _diffkendall,
}


def make(
  name: str,
  clean: Array,
  *,
  k: int | float,
  key: Array,
  target: Array | None = None,
) -> MapLoss:
  """The objective `name` around the clean map `clean` [B, ...].

  `target` is a region (bool) for 'target_region', a map for 'target_map', and
  None for all others. `key` draws the pairs of 'diffkendall'.

  Raises:
    InputError: an unknown name; a target missing, superfluous or misshapen.
  """
  errors.choose('objective', name, OBJECTIVES)
  clean = floating(clean)
  if name not in TARGETED:
    errors.require('target', 'an array', target is None, f'None for {name!r}')
    return OBJECTIVES[name](clean, k=k, key=key)
  shapes = [clean.shape[:3]]
  if name == 'target_map':
    shapes.append(clean.shape)
  given = None if target is None else jnp.shape(target)
  allowed = ' or '.join(map(str, shapes))
  errors.require('target.shape', given, given in shapes, allowed)
  return OBJECTIVES[name](clean, target=jnp.asarray(target))
