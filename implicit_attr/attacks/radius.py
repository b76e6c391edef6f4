"""ε50: the radius at which half of an attribution's top-k set is left.

A share left at one radius has a floor and a ceiling; the radius itself has
neither. An attack (Ghorbani et al., arXiv 1710.10547) is run at a grid of
radii, each begun where the last one ended, and the first interval in which the
share falls to a half is bisected, image by image.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr.types import Array

Find = Callable[[Array, Array, Array, Array], tuple[Array, Array]]
"""(image [1, H, W, C], label [1], radius [], start [1, H, W, C]) -> (image
found [1, H, W, C], share left [1])."""


class RadiusResult(NamedTuple):
  """What is left at each of R radii, and the radius that leaves a half."""

  x_adv: Array  # [B, R, H, W, C]
  share: Array  # [B, R], of the clean top-k set
  eps50: Array  # [B], an end of the radii where censored; NaN if undefined
  censored: Array  # [B] int: -1 half is gone at the first radius, 1 not at last


def half_radius(
  find: Find, x: Array, y: Array, radii: Array, bisections: int
) -> RadiusResult:
  """The radius [B] at which `find` leaves half of the top-k set of an image.

  One compiled program serves all radii: they are traced, and the images of a
  batch, each at a radius of its own, are one `vmap`.

  Args:
    find: an attack at a radius of the user's choice, from a start in the ball
      of a smaller radius, or of a larger one that it projects.
    x: images [B, H, W, C].
    y: labels [B].
    radii: [R], R > 1, ascending and positive, in pixel units; may be traced.
    bisections: of the interval that holds the crossing, in log ε: the radius
      is known up to a factor of (interval's ratio) ** 2 ** -(bisections + 1).

  Returns:
    RadiusResult. The share of a radius is that of `find`; where it crosses a
    half more than once (noise may) the first crossing counts. A share that is
    NaN gives a radius that is NaN.
  """
  radii = jnp.asarray(radii, x.dtype)

  def one(x: Array, y: Array) -> RadiusResult:
    x, y = x[None], y[None]

    def widen(start, eps):
      found, share = find(x, y, eps, start)
      return found, (found[0], share[0])

    _, (found, share) = jax.lax.scan(widen, x, radii)
    half = share <= 0.5
    first = jnp.argmax(half)  # 0 where there is none, as for the first radius
    censored = jnp.where(half.any(), -(first == 0).astype(int), 1)
    ends = jnp.log(radii[jnp.maximum(first - 1, 0)]), jnp.log(radii[first])

    def halve(carry, _):
      low, high, near = carry
      middle = (low + high) / 2
      # What crossed at the larger radius is a better start than what did not.
      there, share = find(x, y, jnp.exp(middle), near)
      crossed = share[0] <= 0.5
      low, high = (
        jnp.where(crossed, low, middle),
        jnp.where(crossed, middle, high),
      )
      return (low, high, jnp.where(crossed, there, near)), None

    carry = (*ends, found[first][None])
    (low, high, _), _ = jax.lax.scan(halve, carry, length=bisections)
    end = jnp.where(censored < 0, radii[0], radii[-1])
    eps50 = jnp.where(censored == 0, jnp.exp((low + high) / 2), end)
    eps50 = jnp.where(jnp.isnan(share).any(), jnp.nan, eps50)
    return RadiusResult(found, share, eps50, censored.astype(jnp.int32))

  return jax.vmap(one)(x, y)
