"""Square Attack (arXiv 1912.00049) on maps and on labels: outputs suffice."""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attacks import (
  balls,
  inputs,
  map_losses,
  margins,
  measures,
  search,
  squares,
)
from implicit_attr.attacks.prediction import PredictionResult, report
from implicit_attr.attacks.result import AttackResult, default_k
from implicit_attr.types import Array, Explain, Predict


def attack_black_box(
  key: Array,
  explain: Explain,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  objective: str = 'topk',
  k: int | float | None = None,
  queries: int = 500,
  restarts: int = 1,
  select: str = 'topk',
  area: float = 0.3,
  bounds: tuple[float, float] = (0.0, 1.0),
  target: Array | None = None,
  mask: Array | None = None,
) -> AttackResult:
  """`attack_attribution` by random search: for maps that have no gradient.

  Accepts a repainted square (see `squares`) where the label holds and the
  objective does not rise; keeps the best admissible image under `select`.

  Args:
    key: typed key.
    explain: x, y -> signed map; need not be differentiable.
    predict: x -> logits [B, C].
    x: images [B, H, W, C] inside `bounds`.
    y: labels [B], int.
    eps: radius in pixel units; may be traced.
    norm: 'linf', 'l2' or 'patch'.
    objective: a name in `map_losses.OBJECTIVES`.
    k: size of the top-k set; a tenth of the pixels if None.
    queries: maps asked for in each restart.
    restarts: independent searches.
    select: a name in `measures.MEASURES`, or 'objective'.
    area: share of the image that the first squares cover.
    bounds: the pixel box.
    target: region or map of the targeted objectives.
    mask: the pixels of a 'patch'.

  Returns:
    AttackResult with the guarantees of `attack_attribution`; `curve` has one
    row a query. `stalled` is False.

  Raises:
    InputError: as `attack_attribution`.
  """
  x, y = inputs.check(
    x,
    y,
    eps=eps,
    norm=norm,
    bounds=bounds,
    queries=queries,
    restarts=restarts,
  )
  space = balls.ball(x, eps=eps, norm=norm, bounds=bounds, mask=mask)
  clean, logits = explain(x, y), predict(x)
  inputs.check_map(clean, x)
  inputs.check_labels(y, logits, x)
  label, k = jnp.argmax(logits, -1), default_k(k)
  pair_key, key = jax.random.split(key)
  loss = map_losses.make(objective, clean, k=k, key=pair_key, target=target)
  measure = measures.make(select, clean, k=k, objective=loss)
  start_value, start_score = loss(clean), measure(clean)

  def judge(z):
    b = explain(z, y)
    same = jnp.argmax(predict(z), -1) == label
    return loss(b), search.Verdict(measure(b), same)

  def restart(overall, turn):
    best, curve = squares.random_search(
      jax.random.fold_in(key, turn),
      judge,
      space,
      start_value,
      start_score,
      queries=queries,
      area=area,
    )
    verdict = search.Verdict(best.score, best.found)
    return search.keep(overall, best.x, verdict), (curve, best.score)

  no = jnp.zeros(x.shape[0], bool)
  best, (curves, scores) = jax.lax.scan(
    restart, search.Best(x, start_score, no, no), jnp.arange(restarts)
  )
  curve = jnp.min(curves, 0)
  return AttackResult(
    best.x, best.score, best.found, start_score, curve, scores, no
  )


def square(
  key: Array,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  queries: int = 1000,
  area: float = 0.8,
  bounds: tuple[float, float] = (0.0, 1.0),
) -> PredictionResult:
  """Square attack on the label: random search on the margin, no gradients.

  Andriushchenko et al. (arXiv 1912.00049); the pattern of a square under 'l2'
  is a simpler one of the same kind. `norm` is 'linf' or 'l2', other arguments
  as `pgd`; `curve` has one row a query.

  Raises:
    InputError: see `inputs.check`; an unknown norm.
  """
  x, y = inputs.check(x, y, eps=eps, norm=norm, bounds=bounds, queries=queries)
  errors.choose('norm', norm, ('linf', 'l2'))
  space = balls.ball(x, eps=eps, norm=norm, bounds=bounds)
  logits = predict(x)
  inputs.check_labels(y, logits, x)
  always = jnp.ones(x.shape[0], bool)

  def judge(z):
    value = margins.margin(predict(z), y)
    return value, search.Verdict(value, always)

  clean = margins.margin(logits, y)
  best, curve = squares.random_search(
    key, judge, space, clean, clean, queries=queries, area=area
  )
  return report(predict, best.x, y, curve, ~always)
