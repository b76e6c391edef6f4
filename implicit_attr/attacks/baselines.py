"""Random signs and random walks, changes that know nothing of the network.

Every robustness number stands beside one of these: top-k overlap falls under
small random noise too, which makes noise look like an attack (Kamath et al.,
arXiv 2312.10534).
"""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attacks import balls, inputs, measures, search, step_rules
from implicit_attr.attacks.result import AttackResult, default_k
from implicit_attr.similarity import images
from implicit_attr.types import Array, Explain, Predict


def _setting(explain, predict, x, y, eps, norm, bounds, k, select, mask):
  x, y = inputs.check(x, y, eps=eps, norm=norm, bounds=bounds)
  errors.choose('select', select, measures.MEASURES)
  space = balls.ball(x, eps=eps, norm=norm, bounds=bounds, mask=mask)
  clean, logits = explain(x, y), predict(x)
  inputs.check_map(clean, x)
  inputs.check_labels(y, logits, x)
  label = jnp.argmax(logits, -1)
  measure = measures.make(select, clean, k=default_k(k), objective=None)

  def judge(z):
    same = jnp.argmax(predict(z), -1) == label
    return search.Verdict(measure(explain(z, y)), same)

  return space, judge, measure(clean)


def _once(z, space, judge, clean_score):
  verdict = judge(z)
  kept = verdict.admissible
  score = jnp.where(kept, verdict.score, clean_score)
  x_adv = jnp.where(kept.reshape(-1, 1, 1, 1), z, space.x)
  stalled = jnp.zeros_like(kept)
  return AttackResult(
    x_adv, score, kept, clean_score, score[None], score[None], stalled
  )


def random_sign(
  key: Array,
  explain: Explain,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  k: int | float | None = None,
  select: str = 'topk',
  bounds: tuple[float, float] = (0.0, 1.0),
  mask: Array | None = None,
) -> AttackResult:
  """One draw of x ± eps, the largest noise in the ball, clipped to the box.

  For 'l2' the signs are scaled to length eps; for 'l0' the pixels and their
  values are drawn uniformly. Arguments as `attack_attribution`. Where the
  prediction changed, x_adv is x and kept is False. What is drawn for an image
  depends on `key` and the image alone.
  """
  space, judge, clean = _setting(
    explain, predict, x, y, eps, norm, bounds, k, select, mask
  )
  if norm == 'l0':
    return _once(balls.random_start(key, space), space, judge, clean)
  draw = lambda key: jax.random.rademacher(key, x.shape[1:], space.x.dtype)
  signs = jax.vmap(draw)(images.keys(key, space.x))
  z = balls.project(space, space.x + space.eps * signs)
  return _once(z, space, judge, clean)


def random_sign_walk(
  key: Array,
  explain: Explain,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  k: int | float | None = None,
  select: str = 'topk',
  bounds: tuple[float, float] = (0.0, 1.0),
  mask: Array | None = None,
  steps: int = 50,
  step_size: float | Array | None = None,
) -> AttackResult:
  """A walk of random steps from x, of which the best admissible image is kept.

  The random attack that Ghorbani et al. (arXiv 1710.10547) released: it sees
  the maps, unlike `random_sign`, and so is the stronger of the two. Arguments
  as `attack_attribution`.
  """
  space, judge, clean = _setting(
    explain, predict, x, y, eps, norm, bounds, k, select, mask
  )
  errors.number('steps', steps, 1, integer=True)

  def probe(z, step_key):
    draw = lambda key: jax.random.normal(key, z.shape[1:], z.dtype)
    move = jax.vmap(draw)(images.keys(step_key, space.x))
    return move, judge(z), search.alive(move)

  if step_size is None:
    step_size = step_rules.default_size(norm, space.eps, steps, bounds)
  best, curve, scores = search.descend(
    key,
    search.Walk(probe, judge),
    space,
    clean,
    rule=step_rules.default_rule(norm),
    step_size=jnp.asarray(step_size, space.x.dtype),
    schedule=jax.random.split(key, steps),
    restarts=1,
    random_start=False,
  )
  return AttackResult(
    best.x, best.score, best.found, clean, curve, scores, ~best.moved
  )
