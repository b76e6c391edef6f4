"""Inner maximisation: projected ascent to the worst image near x.

The walk of every inner maximisation: the steps, balls and starts of `attacks`,
without the search for the best image that an attack on a finished network
does. Parameters must come in frozen; callers freeze the image too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr.attacks import balls, margins
from implicit_attr.attacks import step_rules as moves
from implicit_attr.types import ApplyFn, Array, Params

BOUNDS = (0.0, 1.0)  # images are in pixel units
STARTS = ('clean', 'uniform', 'normal')
NORMAL = 1e-3  # standard deviation of the start of TRADES


def ascend(
  key: Array,
  gain: Callable[[Array], Array],
  x: Array,
  *,
  eps: float | Array,
  norm: str,
  steps: int,
  step: float | Array,
  start: str = 'uniform',
) -> Array:
  """Where projected steepest ascent of `gain` ends; [B, ...], in ball and box.

  Args:
    key: of the start.
    gain: z [B, ...] -> [B].
    x: the centre, within the box 0 to 1.
    eps: radius, pixel units.
    norm: 'linf' takes signs as steps, 'l2' unit vectors.
    steps: gradients taken.
    step: length of a step as a share of eps.
    start: 'uniform' in the ball, 'normal' as TRADES, 'clean' at x.

  Gradients that are not finite count as zero.
  """
  space = balls.ball(x, eps=eps, norm=norm, bounds=BOUNDS)
  rule, size = moves.default_rule(norm), step * space.eps
  state = moves.init(x)
  z = x
  if start == 'uniform':
    z = balls.random_start(key, space)
  elif start == 'normal':
    noise = jax.random.normal(key, x.shape, x.dtype)
    z = balls.project(space, x + NORMAL * noise)
  rise = jax.grad(lambda z: jnp.sum(gain(z)))

  def move(z, _):
    grad = rise(z)
    grad = jnp.where(jnp.isfinite(grad), grad, 0)
    direction, _ = moves.direction(rule, norm, grad, state)
    return balls.project(space, z + size * direction), None

  return jax.lax.scan(move, z, None, steps)[0]


def against_label(
  key: Array,
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  attack: str,
  **walk,
) -> Array:
  """`ascend` of minus the margin `attack`, a name in `margins.MARGINS`."""
  lowered = margins.MARGINS[attack]
  gain = lambda z: -lowered(apply_fn(params, z)[0], y)
  return ascend(key, gain, x, **walk)
