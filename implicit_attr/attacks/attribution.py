"""Attack on attribution maps: iterated steps of Ghorbani et al. (arXiv
1710.10547), restarted and annealed, with the prediction held fixed.

Beside eight other objectives at equal gradients the default leaves the least of
the top-k set at most radii and maps: studies/attack_strength.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attacks import (
  balls,
  inputs,
  map_losses,
  measures,
  search,
  step_rules,
)
from implicit_attr.attacks.result import (
  AttackResult,
  default_k,
  warn_stalled,
)
from implicit_attr.types import Array, Explain, Predict

Surrogate = Callable[[Array, Array, Array], Array]
LABEL_RULES = ('reject', 'penalty', 'both')


def attack_attribution(
  key: Array,
  explain: Explain,
  predict: Predict,
  x: Array,
  y: Array,
  *,
  eps: float | Array,
  norm: str = 'linf',
  objective: str = 'border',
  k: int | float | None = None,
  steps: int = 30,
  step_size: float | Array | None = None,
  restarts: int = 5,
  label_rule: str = 'reject',
  select: str = 'topk',
  surrogate: Surrogate | None = None,
  bounds: tuple[float, float] = (0.0, 1.0),
  betas: tuple[float, float] | None = None,
  rule: str | None = None,
  target: Array | None = None,
  mask: Array | None = None,
  penalty: float | Array = 1.0,
  start: Array | None = None,
) -> AttackResult:
  """Searches the ball around x for the image whose map is least like x's.

  Follows the true second-order gradient of `objective` through `explain` (or
  through `surrogate`), from random starts, and judges every image it visits by
  `select` on the true network. Source: Ghorbani et al. (arXiv
  1710.10547), with random start, restarts and annealing after Dombrowski et
  al. (arXiv 1906.07983).

  Args:
    key: typed key; draws starts (restart r from (key, r) and the image; the
      first begins near x, the others anywhere in the ball) and pairs. What is
      found for an image depends neither on its place in the batch nor on its
      neighbours, save for rounding.
    explain: x, y -> signed map, the one under attack: with the shape of x, or
      [B, H, W], or one number a token [B, L].
    predict: x -> logits [B, C]; the true network.
    x: images [B, H, W, C] inside `bounds`.
    y: labels [B] that `explain` is asked about; int.
    eps: radius in pixel units (a count of pixels for 'l0'); may be traced.
    norm: a name in `balls.NORMS`.
    objective: a name in `map_losses.OBJECTIVES`, what the gradient lowers.
    k: size of the top-k set, a count or a share; a tenth of the pixels if
      None.
    steps: gradient steps of each restart.
    step_size: pixel units, one or [steps], may be traced;
      `step_rules.default_size` if None.
    restarts: independent random starts.
    label_rule: 'reject' admits images with the predicted label of x only;
      'penalty' admits all and adds `penalty` times the squared change of the
      class probabilities to the objective; 'both' does both.
    select: a name in `measures.MEASURES`, or 'objective'.
    surrogate: x, y, beta -> map, the same parameters under a smooth
      activation; used for the gradient only.
    bounds: the pixel box.
    betas: first and last beta handed to `surrogate`, geometric in between;
      `step_rules.default_betas` if None.
    rule: a name in `step_rules.RULES`; signs of a momentum for 'linf' and
      'patch', else normalised gradients.
    target: region or map of the two targeted objectives.
    mask: the pixels of a 'patch', [H, W] or [B, H, W].
    penalty: weight of the penalty; may be traced.
    start: images [B, H, W, C] from which the first restart begins, brought
      into the ball; what an attack at another radius found, say. It counts as
      visited.

  Returns:
    AttackResult. `x_adv` is inside the ball and the box and its score is never
    worse than that of x, which counts as visited; `curve` never rises. `kept`
    says whether the search met an admissible image other than its start x
    (under 'penalty': whether x_adv keeps the label). Where it met none, x_adv
    is x. With eps=0 x_adv is x. Where the measure is not defined for the clean
    map (a constant one has no ranks) the score is NaN and x_adv is x; a map on
    the way for which it is not is never the best.

  Warns where the gradient was zero throughout, if not traced.

  Raises:
    InputError: see `inputs.check`; an unknown name; k larger than the map.
  """
  x, y = inputs.check(
    x, y, eps=eps, norm=norm, bounds=bounds, steps=steps, restarts=restarts
  )
  errors.choose('label_rule', label_rule, LABEL_RULES)
  space = balls.ball(x, eps=eps, norm=norm, bounds=bounds, mask=mask)
  clean, logits = explain(x, y), predict(x)
  inputs.check_map(clean, x)
  inputs.check_labels(y, logits, x)
  label, probability = jnp.argmax(logits, -1), jax.nn.softmax(logits)
  k, (pair_key, start_key) = default_k(k), jax.random.split(key)
  loss = map_losses.make(objective, clean, k=k, key=pair_key, target=target)
  measure = measures.make(select, clean, k=k, objective=loss)
  clean_score = measure(clean)

  def admissible(z):
    same = jnp.argmax(predict(z), -1) == label
    return same if label_rule != 'penalty' else jnp.ones_like(same)

  def judge(z):
    return search.Verdict(measure(explain(z, y)), admissible(z))

  def lowered(z, beta):
    # Examples do not see each other: one gradient of the sum serves all.
    b = explain(z, y) if surrogate is None else surrogate(z, y, beta)
    return jnp.sum(loss(b)), b

  def strayed(z):
    return jnp.sum(jnp.square(jax.nn.softmax(predict(z)) - probability))

  def probe(z, beta):
    grad, b = jax.grad(lowered, has_aux=True)(z, beta)
    if surrogate is not None:
      b = explain(z, y)
    live = search.alive(grad)
    if label_rule != 'reject':
      grad += penalty * jax.grad(strayed)(z)
    return grad, search.Verdict(measure(b), admissible(z)), live

  if rule is None:
    rule = step_rules.default_rule(norm)
    rule = 'momentum' if rule == 'sign' else rule
  if step_size is None:
    step_size = step_rules.default_size(norm, space.eps, steps, bounds, rule)
  if betas is None:
    schedule = step_rules.default_betas(norm, space.eps, steps, bounds)
  else:
    schedule = jnp.geomspace(*betas, steps, dtype=x.dtype)
  best, curve, scores = search.descend(
    start_key,
    search.Walk(probe, judge),
    space,
    clean_score,
    rule=rule,
    step_size=jnp.asarray(step_size, x.dtype),
    schedule=schedule,
    restarts=restarts,
    start=start,
  )
  kept = best.found
  if label_rule == 'penalty':
    kept = jnp.argmax(predict(best.x), -1) == label
  stalled = ~best.moved & (space.eps > 0)
  warn_stalled(stalled)
  return AttackResult(
    best.x, best.score, kept, clean_score, curve, scores, stalled
  )
