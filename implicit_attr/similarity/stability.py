"""Max-sensitivity (Yeh et al., arXiv 1901.09392), local Lipschitz constants
(Alvarez-Melis & Jaakkola, arXiv 1806.08049) and relative stability (Agarwal et
al., arXiv 2203.06877), by sampling.

Sampled figures are lower bounds of the worst case and grow with `draws`; the
gradient-driven ones are in `attacks.sensitivity`. None is worth reporting
without a faithfulness number: a constant map is perfectly stable.

Images outside `bounds` are refused, for clipping would move them farther than
`radius`. Noise is uniform in the linf ball of `radius`, pixel units, and drawn
for each image by itself: its place in the batch does not count.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors, losses
from implicit_attr.similarity import images
from implicit_attr.similarity.maps import floating, norms
from implicit_attr.types import Array, Explain, Predict


class Sensitivity(NamedTuple):
  maximum: Array  # [B], largest over the draws
  average: Array  # [B], mean over the draws


def _neighbour(key, x, radius, bounds):
  draw = lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -1, 1)
  noise = jax.vmap(draw)(images.keys(key, x))
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
  `relative` divides by ‖A(x)‖₂ (NaN or infinite for a zero map). Fresh noise
  for every draw; z is clipped to `bounds` unless None.

  Raises:
    InputError: see `images.check`; no draw.
  """
  errors.number('draws', draws, 1, integer=True)
  x = images.check(x, bounds)
  clean = floating(explain(x, y))

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

  Raises:
    InputError: see `images.check`; no draw.
  """
  errors.number('draws', draws, 1, integer=True)
  x = images.check(x, bounds)
  clean = floating(explain(x, y))

  def draw(worst, turn):
    z = _neighbour(jax.random.fold_in(key, turn), x, radius, bounds)
    step = norms(z - x)
    slope = norms(explain(z, y) - clean) / jnp.where(step > 0, step, 1)
    return jnp.maximum(worst, slope), None

  zero = jnp.zeros(x.shape[0], clean.dtype)
  return jax.lax.scan(draw, zero, jnp.arange(draws))[0]


class RelativeStability(NamedTuple):
  """Largest relative change of the map per change of …; NaN if none kept."""

  input: Array  # [B], relative change of the image
  output: Array  # [B], absolute change of the logits
  representation: Array | None  # [B], relative change of hidden features
  kept: Array  # [B] int32, draws that kept the predicted label


def relative_change(old: Array, new: Array, floor: float | Array) -> Array:
  """‖(old - new) / old‖₂ with |old| clipped from below at `floor`; [B]."""
  old, new = floating(old), floating(new)
  return norms((old - new) / jnp.maximum(jnp.abs(old), floor))


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
  predicted label count, and their number is returned.

  Raises:
    InputError: see `images.check`; no draw; a single logit, whose label is
      always kept.
  """
  errors.number('draws', draws, 1, integer=True)
  x = images.check(x, bounds)
  clean, logits = floating(explain(x, y)), predict(x)
  label = jnp.argmax(logits, -1)
  losses.check_labels(logits, label)
  features = x if hidden is None else hidden(x)

  def draw(carry, turn):
    z = _neighbour(jax.random.fold_in(key, turn), x, radius, bounds)
    seen = predict(z)
    same = jnp.argmax(seen, -1) == label
    top = relative_change(clean, explain(z, y), floor)

    def worst(old, bottom):
      ratio = top / jnp.maximum(bottom, floor)
      return jnp.where(same, jnp.fmax(old, ratio), old)

    third = carry.representation
    if hidden is not None and third is not None:
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
