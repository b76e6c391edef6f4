"""Worst-case max-sensitivity and local Lipschitz constant, by PGD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attacks import balls, inputs, search, step_rules
from implicit_attr.similarity.maps import floating, norms
from implicit_attr.types import Array, Explain


class WorstCase(NamedTuple):
  value: Array  # [B]
  x_adv: Array  # [B, H, W, C], where it is reached
  stalled: Array  # [B] bool: the gradient was exactly zero at every step


def worst_sensitivity(
  key: Array,
  explain: Explain,
  x: Array,
  y: Array,
  *,
  radius: float | Array,
  norm: str = 'linf',
  quantity: str = 'distance',
  steps: int = 30,
  step_size: float | Array | None = None,
  restarts: int = 2,
  bounds: tuple[float, float] = (0.0, 1.0),
) -> WorstCase:
  """Lower bound of a supremum over the ball, by projected gradient ascent.

  Args:
    key: typed key of the random starts.
    explain: x, y -> map, differentiable in x.
    x: images [B, H, W, C] inside `bounds`.
    y: labels [B], int; the label of the network plays no part.
    radius: of the ball, pixel units; may be traced.
    norm: a name in `balls.NORMS` but 'patch'.
    quantity: 'distance' is ‖A(z) - A(x)‖₂, max-sensitivity of Yeh et al.
      (arXiv 1901.09392); 'relative' divides it by ‖A(x)‖₂; 'lipschitz' by
      ‖z - x‖₂, the local Lipschitz constant of Alvarez-Melis & Jaakkola (arXiv
      1806.08049). None is squared.
    steps: gradient steps of each restart.
    step_size: pixel units, may be traced; `step_rules.default_size` if None.
    restarts: independent random starts.
    bounds: the pixel box.

  Raises:
    InputError: see `inputs.check`; an unknown name.
  """
  x, y = inputs.check(
    x, y, eps=radius, norm=norm, bounds=bounds, steps=steps, restarts=restarts
  )
  errors.choose('norm', norm, ('linf', 'l2', 'l0'))
  errors.choose('quantity', quantity, ('distance', 'relative', 'lipschitz'))
  space = balls.ball(x, eps=radius, norm=norm, bounds=bounds)
  clean = floating(explain(x, y))
  inputs.check_map(clean, x)
  always = jnp.ones(x.shape[0], bool)

  def value(z):
    moved = norms(explain(z, y) - clean)
    if quantity == 'lipschitz':
      return moved, norms(z - x)
    return moved, jnp.ones_like(moved)

  def score(moved, below):
    return -moved / jnp.where(below > 0, below, 1)

  def judge(z):
    return search.Verdict(score(*value(z)), always)

  def lowered(z):
    moved, below = value(z)
    # Logarithms have no scale, so that small maps have slopes all the same.
    safe = lambda v: jnp.log(jnp.where(v > 0, v, 1))
    return -jnp.sum(safe(moved) - safe(below)), (moved, below)

  def probe(z, _):
    grad, parts = jax.grad(lowered, has_aux=True)(z)
    return grad, search.Verdict(score(*parts), always), search.alive(grad)

  if step_size is None:
    step_size = step_rules.default_size(norm, space.eps, steps, bounds)
  best, _, _ = search.descend(
    key,
    search.Walk(probe, judge),
    space,
    jnp.zeros(x.shape[0], clean.dtype),
    rule=step_rules.default_rule(norm),
    step_size=jnp.asarray(step_size, x.dtype),
    schedule=jnp.arange(steps),
    restarts=restarts,
  )
  worst = -best.score
  if quantity == 'relative':
    worst = worst / norms(clean)
  return WorstCase(worst, best.x, ~best.moved)
