"""Projected gradient descent with restarts, keeping the best image visited.

One loop serves every gradient attack here: a scan over steps inside a scan
over restarts, with the best image so far in the carry.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr.attacks import balls, step_rules
from implicit_attr.types import Array

# How far the first restart begins from x, as a share of a random draw.
FIRST_START = 0.01


class Verdict(NamedTuple):
  """What an image is worth: lower `score` [B] is better, if `admissible`."""

  score: Array
  admissible: Array


class Best(NamedTuple):
  x: Array  # [B, ...]
  score: Array  # [B], lowest among admissible images, the start x included
  found: Array  # [B] bool, was any admissible image but x itself seen?
  moved: Array  # [B] bool, was any gradient other than exactly zero?


class Walk(NamedTuple):
  """What a gradient walk needs to know about its problem.

  `probe(x, setting)` -> (gradient of what is to be lowered, Verdict on x,
  `alive` of that gradient), one call so that they can share work; entries that
  are not finite count as zero; `setting` is the step's entry of the
  schedule (a beta, a key). `judge(x)` -> Verdict alone.
  """

  probe: Callable[[Array, Array], tuple[Array, Verdict, Array]]
  judge: Callable[[Array], Verdict]


def alive(grad: Array) -> Array:
  """Has the gradient an entry that is finite and not exactly zero? [B]."""
  useful = jnp.isfinite(grad) & (grad != 0)
  return jnp.any(useful, tuple(range(1, grad.ndim)))


def _wide(flag: Array, x: Array) -> Array:
  return flag.reshape(flag.shape + (1,) * (x.ndim - 1))


def keep(best: Best, x: Array, verdict: Verdict) -> Best:
  """`best`, or x where it is admissible and strictly better; NaN never is."""
  gain = verdict.score < best.score
  gain |= jnp.isnan(best.score) & ~jnp.isnan(verdict.score)
  gain &= verdict.admissible
  return Best(
    jnp.where(_wide(gain, x), x, best.x),
    jnp.where(gain, verdict.score, best.score),
    best.found | verdict.admissible,
    best.moved,
  )


def descend(
  key: Array,
  walk: Walk,
  space: balls.Ball,
  start_score: Array,
  *,
  rule: str,
  step_size: Array,
  schedule: Array,
  restarts: int,
  random_start: bool = True,
  start: Array | None = None,
  keep_last: bool = False,
) -> tuple[Best, Array, Array]:
  """Walks down `len(schedule)` steps from each start; x itself has start_score.

  `step_size` is one number or one a step; `start`, where the first walk begins
  once it is brought into the ball, near x if None.
  With `keep_last` a restart is worth its last image, good or bad, as in
  published protocols; the best restart is kept all the same.

  Returns:
    The best image over steps and restarts, the best score after each step
    over all restarts [steps, B], and the best score of each restart
    [restarts, B]. Restart r depends on (key, r) and x, so asking for more
    restarts only adds to those already made.
  """
  x = space.x
  sizes = jnp.broadcast_to(step_size, len(schedule))
  nothing = jnp.zeros(x.shape[0], bool)
  clean = Best(x, start_score, nothing, nothing)

  def restart(overall, turn):
    here = x
    if random_start:
      here = balls.random_start(jax.random.fold_in(key, turn), space)
      # The first walk begins next to x, off the points where objectives are
      # stationary but where the label still holds; the others anywhere.
      share = jnp.where(turn == 0, FIRST_START, 1).astype(x.dtype)
      here = balls.project(space, x + share * (here - x))
      if start is not None:
        given = balls.project(space, start)
        here = jnp.where(turn == 0, given, here)

    def step(carry, now):
      (z, best, state), (setting, size) = carry, now
      grad, verdict, live = walk.probe(z, setting)
      best = keep(best, z, verdict)
      best = best._replace(moved=best.moved | live)
      # One NaN in z would end the walk of this example for good.
      grad = jnp.where(jnp.isfinite(grad), grad, 0)
      move, state = step_rules.direction(rule, space.norm, grad, state)
      z = balls.project(space, z - size * move)
      return (z, best, state), best.score

    carry = (here, clean, step_rules.init(x))
    (z, best, _), curve = jax.lax.scan(step, carry, (schedule, sizes))
    end = walk.judge(z)
    if keep_last:
      best = Best(z, end.score, end.admissible, best.moved)
    else:
      best = keep(best, z, end)
    # The probe of step t judges where step t - 1 ended.
    curve = jnp.concatenate([curve[1:], best.score[None]])
    merged = keep(overall, best.x, Verdict(best.score, best.found))
    merged = merged._replace(moved=overall.moved | best.moved)
    return merged, (curve, best.score)

  # The last image counts even where it is no better than x.
  worth = jnp.full_like(start_score, jnp.inf) if keep_last else start_score
  first = clean._replace(score=worth)
  best, (curves, scores) = jax.lax.scan(restart, first, jnp.arange(restarts))
  return best, jnp.min(curves, 0), scores
