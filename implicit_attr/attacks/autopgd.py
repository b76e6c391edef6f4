"""Auto-PGD, APGD and APGD-T (Croce & Hein, arXiv 2003.01690)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.attacks import (
  balls,
  inputs,
  margins,
  search,
  step_rules,
)
from implicit_attr.attacks.prediction import PredictionResult, report
from implicit_attr.types import Array, Predict

_MOMENTUM = 0.75
_PROGRESS = 0.75


def checkpoints(steps: int) -> tuple[np.ndarray, np.ndarray]:
  """At which steps is the step size questioned, and how many since the last?

  Shares p₁ = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06) of all
  steps. Returns (bool [steps], int [steps]).
  """
  shares = [0.0, 0.22]
  while shares[-1] < 1:
    gap = max(shares[-1] - shares[-2] - 0.03, 0.06)
    shares.append(shares[-1] + gap)
  # Rounded first: 0.41 · 100 must not become 42.
  ends = [round(p * steps, 6) for p in shares if 0 < p <= 1]
  marks = sorted({int(np.ceil(end)) for end in ends})
  due, since = np.zeros(steps, bool), np.ones(steps, int)
  for before, mark in zip([0] + marks, marks, strict=False):
    due[mark - 1], since[mark - 1] = True, max(1, mark - before)
  return due, since


def _run(
  start: Array,
  loss: Callable[[Array], tuple[Array, Array]],
  space: balls.Ball,
  steps: int,
) -> tuple[search.Best, Array]:
  """Lowers loss(x) -> (loss [B], margin [B]); keeps the lowest margin."""
  rule = step_rules.default_rule(space.norm)
  wide = lambda v: v.reshape(-1, 1, 1, 1)
  always = jnp.ones(start.shape[0], bool)

  def grad_of(z):
    def total(z):
      value, margin = loss(z)
      return jnp.sum(value), (value, margin)

    grad, (value, margin) = jax.grad(total, has_aux=True)(z)
    return jnp.where(jnp.isfinite(grad), grad, 0), value, margin

  def step(carry, now):
    due, since, first = now
    (z, old, grad, value), (low, low_z, low_grad), (size, count), last, best = (
      carry
    )
    move, _ = step_rules.direction(rule, space.norm, grad, step_rules.init(z))
    new = balls.project(space, z - wide(size) * move)
    share = jnp.where(first, 1, _MOMENTUM).astype(z.dtype)
    new = balls.project(space, z + share * (new - z) + (1 - share) * (z - old))
    new_grad, new_value, margin = grad_of(new)
    best = search.keep(best, new, search.Verdict(margin, always))
    best = best._replace(moved=best.moved | search.alive(new_grad))
    count += new_value < value
    gain = new_value < low
    low = jnp.where(gain, new_value, low)
    low_z = jnp.where(wide(gain), new, low_z)
    low_grad = jnp.where(wide(gain), new_grad, low_grad)
    # Too few steps helped, or nothing did since a step size that stayed.
    before, held = last
    slow = count < _PROGRESS * since
    stuck = held & (low >= before)
    halve = due & (slow | stuck)
    size = jnp.where(halve, size / 2, size)
    here = jnp.where(wide(halve), low_z, new)
    here_grad = jnp.where(wide(halve), low_grad, new_grad)
    value = jnp.where(halve, low, new_value)
    last = (jnp.where(due, low, before), jnp.where(due, ~halve, held))
    count = jnp.where(due, 0, count)
    state = (here, z, here_grad, value), (low, low_z, low_grad)
    return (*state, (size, count), last, best), best.score

  grad, value, margin = grad_of(start)
  best = search.Best(start, margin, always, search.alive(grad))
  size = jnp.full(start.shape[0], 2, start.dtype) * space.eps
  carry = (
    (start, start, grad, value),
    (value, start, grad),
    (size, jnp.zeros(start.shape[0], jnp.int32)),
    (value, ~always),
    best,
  )
  first = np.arange(steps) == 0
  due, since = checkpoints(steps)
  carry, curve = jax.lax.scan(
    step, carry, tuple(jnp.asarray(a) for a in (due, since, first))
  )
  return carry[-1], curve


def apgd(
  key: Array,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  loss: str = 'ce',
  steps: int = 100,
  restarts: int = 1,
  targets: int | None = None,
  bounds: tuple[float, float] = (0.0, 1.0),
) -> PredictionResult:
  """Auto-PGD of Croce & Hein (arXiv 2003.01690); needs no step size.

  Args:
    key: typed key of the random starts.
    predict: x -> logits [B, C].
    x: images [B, H, W, C] inside `bounds`.
    y: true labels [B], int.
    eps: radius in pixel units; may be traced.
    norm: 'linf' or 'l2'.
    loss: 'ce', 'cw' or 'dlr' (three classes at least).
    steps: gradient steps of each run.
    restarts: runs, each from its own random start.
    targets: APGD-T: `loss` must be 'dlr', and every restart makes one run
      against each of the `targets` most likely wrong classes (at most C - 1;
      9 in AutoAttack).
    bounds: the pixel box.

  Returns:
    The image with the lowest margin over all steps, runs and x itself; `curve`
    counts the steps of one run.

  Raises:
    InputError: see `inputs.check`; an unknown name; too few classes.
  """
  x, y = inputs.check(
    x, y, eps=eps, norm=norm, bounds=bounds, steps=steps, restarts=restarts
  )
  errors.choose('norm', norm, ('linf', 'l2'))
  errors.choose('loss', loss, margins.MARGINS if targets is None else ['dlr'])
  space = balls.ball(x, eps=eps, norm=norm, bounds=bounds)
  logits = predict(x)
  inputs.check_labels(y, logits, x)
  if targets is None:
    rivals = y[None]
    value_of = lambda seen, rival: margins.MARGINS[loss](seen, y)
  else:
    classes = logits.shape[1]
    errors.number('targets', targets, 1, classes - 1, integer=True)
    own = jax.nn.one_hot(y, classes, dtype=bool)
    wrong = jnp.where(own, -jnp.inf, logits)
    rivals = jax.lax.top_k(wrong, targets)[1].T
    value_of = lambda seen, rival: margins.targeted_dlr(seen, y, rival)

  def run(overall, turn):
    number, rival = turn

    def value(z):
      seen = predict(z)
      return value_of(seen, rival), margins.margin(seen, y)

    start = balls.random_start(jax.random.fold_in(key, number), space)
    best, curve = _run(start, value, space, steps)
    always = jnp.ones(x.shape[0], bool)
    merged = search.keep(overall, best.x, search.Verdict(best.score, always))
    return merged._replace(moved=overall.moved | best.moved), curve

  no = jnp.zeros(x.shape[0], bool)
  clean = search.Best(x, margins.margin(logits, y), no, no)
  rivals = jnp.tile(rivals, (restarts, 1))
  best, curves = jax.lax.scan(run, clean, (jnp.arange(len(rivals)), rivals))
  curve = jnp.minimum(jnp.min(curves, 0), clean.score[None])
  return report(predict, best.x, y, curve, ~best.moved)
