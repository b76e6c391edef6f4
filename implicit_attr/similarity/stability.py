"""How much does a map move when its image is moved a little at random?

Sampled figures are lower bounds of the worst case and grow with `draws`; the
gradient-driven ones are in `attacks.sensitivity`. None is worth reporting
without a faithfulness number: a constant map is perfectly stable.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array, Explain, Predict


class Sensitivity(NamedTuple):
  maximum: Array  # [B], largest over the draws
  average: Array  # [B], mean over the draws


def norms(a: Array) -> Array:
  """‖a‖₂ of each example; [B, ...] -> [B]."""
  return jnp.linalg.norm(a.reshape(a.shape[0], -1), axis=-1)


def _neighbour(key, x, radius, bounds):
  noise = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
  z = x + jnp.asarray(radius, x.dtype) * noise
  return z if bounds is None else jnp.clip(z, *bounds)


def sensitivity(
  key: Array,
  explain: Explain,
  x: Array,
  y: Array,
  *,
  radius: float | Array,
  draws: int = 50,
  relative: bool = False,
  bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Sensitivity:
  """max and mean of ‖A(z) - A(x)‖₂ over z uniform in the linf ball; [B].

  Max- and average-sensitivity of Yeh et al. (arXiv 1901.09392). Not squared.
  `relative` divides by ‖A(x)‖₂ (inf or NaN where that is 0). The noise is
  two-sided and fresh for every example; radius in pixel units, z clipped to
  `bounds` unless None.
  """
  errors.number('draws', draws, 1, integer=True)
  clean = explain(x, y)

  def draw(carry, turn):
    z = _neighbour(jax.random.fold_in(key, turn), x, radius, bounds)
    moved = norms(explain(z, y) - clean)
    return Sensitivity(
      jnp.maximum(carry.maximum, moved), carry.average + moved / draws
    ), None

  zero = jnp.zeros(x.shape[0], clean.dtype)
  result, _ = jax.lax.scan(draw, Sensitivity(zero, zero), jnp.arange(draws))
  if relative:
    result = jax.tree.map(lambda value: value / norms(clean), result)
  return result


def local_lipschitz(
  key: Array,
  explain: Explain,
  x: Array,
  y: Array,
  *,
  radius: float | Array,
  draws: int = 50,
  bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Array:
  """max ‖A(z) - A(x)‖₂ / ‖z - x‖₂ over z uniform in the linf ball; [B].

  Alvarez-Melis & Jaakkola (arXiv 1806.08049), by sampling.
  """
  errors.number('draws', draws, 1, integer=True)
  clean = explain(x, y)

  def draw(worst, turn):
    z = _neighbour(jax.random.fold_in(key, turn), x, radius, bounds)
    step = norms(z - x)
    slope = norms(explain(z, y) - clean) / jnp.where(step > 0, step, 1)
    return jnp.maximum(worst, slope), None

  zero = jnp.zeros(x.shape[0], clean.dtype)
  return jax.lax.scan(draw, zero, jnp.arange(draws))[0]


def neighbour_lipschitz(
  maps: Array, x: Array, *, radius: float | Array
) -> Array:
  """max ‖A(x_j) - A(x_i)‖₂ / ‖x_j - x_i‖₂ over images x_j near x_i; [B].

  The discrete form of Alvarez-Melis & Jaakkola (arXiv 1806.08049): neighbours
  are the other images of the batch at ℓ2 distance at most `radius` and not
  equal to x_i. NaN where there is none.
  """

  def one(image, a):
    step, moved = norms(x - image[None]), norms(maps - a[None])
    near = (step > 0) & (step <= radius)
    slope = moved / jnp.where(near, step, 1)
    worst = jnp.max(jnp.where(near, slope, -jnp.inf))
    return jnp.where(jnp.any(near), worst, jnp.nan)

  return jax.lax.map(lambda pair: one(*pair), (x, maps))


def jacobian_norm(
  key: Array, explain: Explain, x: Array, y: Array, *, iterations: int = 20
) -> Array:
  """Largest singular value of dA/dx at x, by power iteration on JᵀJ; [B].

  The Lipschitz constant of the map at x; for a logit's gradient map it is the
  spectral norm of the logit's Hessian. A lower bound that rises with every
  iteration. One linearisation serves all products.
  """
  errors.number('iterations', iterations, 1, integer=True)
  moved = lambda z: explain(z, y)
  _, push = jax.linearize(moved, x)
  pull = jax.linear_transpose(push, x)
  wide = (-1,) + (1,) * (x.ndim - 1)

  def unit(v):
    size = norms(v).reshape(wide)
    return v / jnp.where(size > 0, size, 1)

  def iterate(v, _):
    image = push(v)
    return unit(pull(image)[0]), norms(image)

  start = unit(jax.random.normal(key, x.shape, x.dtype))
  v, _ = jax.lax.scan(iterate, start, None, length=iterations)
  return norms(push(v))


class RelativeStability(NamedTuple):
  """Largest relative change of the map per change of …; NaN if none kept."""

  input: Array  # [B], relative change of the image
  output: Array  # [B], absolute change of the logits
  representation: Array | None  # [B], relative change of hidden features
  kept: Array  # [B] int32, draws that kept the predicted label


def relative_change(old: Array, new: Array, floor: float | Array) -> Array:
  """‖(old - new) / old‖₂ with |old| clipped from below at `floor`; [B]."""
  size = jnp.maximum(jnp.abs(old), floor)
  return norms((old - new) / size)


def relative_stability(
  key: Array,
  explain: Explain,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  radius: float | Array,
  draws: int = 50,
  hidden: Callable[[Array], Array] | None = None,
  floor: float | Array = 1e-6,
  bounds: tuple[float, float] | None = (0.0, 1.0),
) -> RelativeStability:
  """RIS, ROS and RRS of Agarwal et al. (arXiv 2203.06877), ℓ2 norms.

  Numerator: `relative_change` of the map. Denominators: `relative_change` of
  the image (RIS) and of `hidden(x)` [B, ...] (RRS), the plain ℓ2 change of the
  logits (ROS), each clipped from below at `floor`. Only draws that keep the
  predicted label count, and their number is returned. Noise is uniform in the
  linf ball of `radius`, pixel units.
  """
  errors.number('draws', draws, 1, integer=True)
  clean, logits = explain(x, y), predict(x)
  label = jnp.argmax(logits, -1)
  features = None if hidden is None else hidden(x)

  def draw(carry, turn):
    z = _neighbour(jax.random.fold_in(key, turn), x, radius, bounds)
    seen = predict(z)
    same = jnp.argmax(seen, -1) == label
    top = relative_change(clean, explain(z, y), floor)

    def worst(old, bottom):
      ratio = top / jnp.maximum(bottom, floor)
      return jnp.where(same, jnp.fmax(old, ratio), old)

    third = carry.representation
    if hidden is not None:
      third = worst(third, relative_change(features, hidden(z), floor))
    return RelativeStability(
      worst(carry.input, relative_change(x, z, floor)),
      worst(carry.output, norms(logits - seen)),
      third,
      carry.kept + same,
    ), None

  none = jnp.full(x.shape[0], jnp.nan, clean.dtype)
  start = RelativeStability(
    none,
    none,
    None if hidden is None else none,
    jnp.zeros(x.shape[0], jnp.int32),
  )
  return jax.lax.scan(draw, start, jnp.arange(draws))[0]
