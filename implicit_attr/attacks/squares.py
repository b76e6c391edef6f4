"""Square Attack (Andriushchenko et al., arXiv 1912.00049), without gradients.

Repaint one square of the perturbation, keep the change if it helps, let the
squares shrink. Squares are drawn for each image by itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.attacks import balls, search
from implicit_attr.similarity import images
from implicit_attr.types import Array

NORMS = ('linf', 'l2', 'patch')
# Share of all queries after which the area of the squares halves once more.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)

Judge = Callable[[Array], tuple[Array, search.Verdict]]
"""x -> (value [B] by which a change is accepted, Verdict on the image)."""


def sides(queries: int, height: int, width: int, area: float) -> np.ndarray:
  """Side in pixels of the square of each query; [queries]."""
  done = np.arange(queries)[:, None] / queries
  share = area / 2.0 ** np.sum(done > np.array(_HALVINGS), axis=1)
  side = np.round(np.sqrt(share * height * width))
  return np.clip(side, 1, min(height, width)).astype(np.int32)


def _window(key: Array, height: int, width: int, side: Array):
  """A random square: its mask and a pattern; [H, W, 1]."""
  top_key, left_key = jax.random.split(key)
  top = jax.random.randint(top_key, (), 0, height - side + 1)
  left = jax.random.randint(left_key, (), 0, width - side + 1)
  row = jnp.arange(height)[:, None, None] - top
  column = jnp.arange(width)[None, :, None] - left
  mask = (row >= 0) & (row < side) & (column >= 0) & (column < side)
  # Two halves of opposite sign, fading from the middle of each.
  middle = (side - 1) / 2
  away = jnp.maximum(
    jnp.abs(row - middle), jnp.abs(jnp.abs(column - middle) - side / 4)
  )
  sign = jnp.where(column > middle, 1, -1)
  return mask, jnp.where(mask, sign / jnp.square(1 + away), 0)


def _repaint_linf(key: Array, delta: Array, side: Array, eps: Array):
  """One image's perturbation [H, W, C] with a square of ± eps."""
  place, paint = jax.random.split(key)
  height, width, channels = delta.shape
  mask, _ = _window(place, height, width, side)
  sign = jax.random.rademacher(paint, (1, 1, channels), delta.dtype)
  return jnp.where(mask, sign * eps, delta)


def _unit(part: Array) -> Array:
  # Two squares of one pixel and opposite sign cancel to exactly zero.
  length = jnp.linalg.norm(part)
  return part / jnp.where(length > 0, length, 1)


def _repaint_l2(key: Array, delta: Array, side: Array, eps: Array):
  """Length taken from one square, and any left of eps, goes to another."""
  to_key, from_key, paint = jax.random.split(key, 3)
  height, width, channels = delta.shape
  mask, pattern = _window(to_key, height, width, side)
  source, _ = _window(from_key, height, width, side)
  sign = jax.random.rademacher(paint, (1, 1, channels), delta.dtype)
  here = jnp.where(mask, delta, 0)
  fresh = sign * pattern.astype(delta.dtype)
  fresh = _unit(fresh) + _unit(here)
  rest = jnp.where(mask | source, 0, delta)
  length = jnp.square(eps) - jnp.sum(jnp.square(rest))
  return rest + jnp.sqrt(jnp.maximum(length, 0)) * _unit(fresh)


def _stripes(keys: Array, space: balls.Ball) -> Array:
  """Vertical stripes of ± eps, brought into the ball."""
  _, _, width, channels = space.x.shape
  draw = lambda key: jax.random.rademacher(key, (1, width, channels))
  signs = jax.vmap(draw)(keys).astype(space.x.dtype)
  return balls.project(space, space.x + space.eps * signs)


def random_search(
  key: Array,
  judge: Judge,
  space: balls.Ball,
  start_value: Array,
  start_score: Array,
  *,
  queries: int,
  area: float,
) -> tuple[search.Best, Array]:
  """The best image of `queries` and x, and the best score after each query.

  The walk begins at x, tries vertical stripes first, and moves to a candidate
  that is admissible and not worse in value.

  Raises:
    InputError: a norm other than linf, l2 or patch; an area outside (0, 1].
  """
  errors.choose('norm', space.norm, NORMS)
  errors.number('queries', queries, 1, integer=True)
  errors.number('area', area, 0, 1, open_low=True)
  x = space.x
  repaint = _repaint_l2 if space.norm == 'l2' else _repaint_linf
  repaint = jax.vmap(repaint, (0, 0, None, None))
  first, rest = jax.random.split(key)
  stripes = _stripes(images.keys(first, x), space)
  wide = (-1, 1, 1, 1)

  def query(carry, now):
    z, value, best = carry
    turn, side = now
    keys = images.keys(jax.random.fold_in(rest, turn), x)
    new = balls.project(space, x + repaint(keys, z - x, side, space.eps))
    new = jnp.where(turn == 0, stripes, new)
    new_value, verdict = judge(new)
    best = search.keep(best, new, verdict)
    better = verdict.admissible & (new_value <= value)
    z = jnp.where(better.reshape(wide), new, z)
    return (z, jnp.where(better, new_value, value), best), best.score

  nothing = jnp.zeros(x.shape[0], bool)
  best = search.Best(x, start_score, nothing, ~nothing)
  _, height, width, _ = x.shape
  side = jnp.asarray(sides(queries, height, width, area))
  (_, _, best), curve = jax.lax.scan(
    query, (x, start_value, best), (jnp.arange(queries), side)
  )
  return best, curve
