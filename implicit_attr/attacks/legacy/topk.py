"""Top-k attacks of Ghorbani et al. (arXiv 1710.10547) and RAR (Chen et al.,
arXiv 1905.09957) as released.
"""

from typing import Any

import jax
import jax.numpy as jnp

from implicit_attr.attacks import balls, inputs, measures, search
from implicit_attr.attacks.legacy.result import (
  LegacyResult,
  Network,
  compare,
  last_k,
)
from implicit_attr.similarity import magnitude, mass
from implicit_attr.types import Array, Explain


def mass_on(top: Array, b: Array) -> Array:
  """The sum over examples of the share of mass on `top`; []."""
  return jnp.sum(jnp.where(top, mass(b), 0))


def _climb(
  key: Array,
  network: Network,
  x: Array,
  y: Array,
  maps: tuple[Explain, Explain],
  *,
  eps: float | Array,
  step_size: float | Array,
  steps: int,
  attempts: int,
  k: int,
  select: str,
) -> tuple[search.Best, Array]:
  """Signed steps from x itself; the best label-preserving iterate is kept.

  What Ghorbani et al. and Chen et al. share. `maps` are those of the network
  and of its surrogate. Returns the best image and the worth of each attempt.
  """
  explain, smooth = maps
  clean = explain(x, y)
  inputs.check_map(clean, x)
  top = last_k(magnitude(clean), k)
  measure = measures.make(select, clean, k=k, objective=None)
  slope = jax.grad(lambda z: mass_on(top, smooth(z, y)))

  def judge(z):
    return search.Verdict(measure(explain(z, y)), network.label(z) == y)

  def probe(z, _):
    grad = slope(z)
    return grad, judge(z), search.alive(grad)

  best, _, worth = search.descend(
    key,
    search.Walk(probe, judge),
    balls.ball(x, eps=eps),
    jnp.ones(x.shape[0], x.dtype),  # only what is below 1 counts
    rule='sign',
    step_size=jnp.asarray(step_size, x.dtype),
    schedule=jnp.arange(steps),
    restarts=attempts,
    random_start=False,
  )
  return best, worth


def _report(
  network: Network,
  explain: Explain,
  x: Array,
  y: Array,
  best: search.Best,
  worth: Array,
  *,
  k: int,
  last: bool,
) -> LegacyResult:
  """Failures count as 1, examples with another prediction than y not at all."""
  failed = jnp.all(best.x == x, (1, 2, 3))
  topk, kendall = compare(explain(x, y), explain(best.x, y), k, last=last)
  return LegacyResult(
    x_adv=best.x,
    kept=network.label(best.x) == network.label(x),
    failed=failed,
    counted=network.label(x) == y,
    topk=jnp.where(failed, 1, topk),
    kendall=jnp.where(failed, 1, kendall),
    attempts=worth,
  )


def ghorbani(
  key: Array,
  network: Network,
  x: Array,
  y: Array,
  *,
  eps: float | Array = 8 / 255,
  step_size: float | Array = 0.5 / 255,
  steps: int = 300,
  k: int = 1000,
  beta: float | Array = 1.0,
) -> LegacyResult:
  """Top-k attack on the gradient of a logit, as Ghorbani et al. released it.

  Source: arXiv 1710.10547; github.com/amiratag/InterpretationFragility,
  utils.py, SimpleGradientAttack, settings of the ImageNet notebook. k = 1000
  is of 227² pixels: pass a smaller one for smaller images.

  What it does: signed steps from x down the share of mass on the k pixels that
  lead on the ReLU network, by the gradient of a softplus network; every image
  is judged on the ReLU network by its top-k intersection, and the lowest that
  kept the label stays.

  Faults: the surrogate has β = 1, a network whose maps are other maps; there is
  no random start and no restart; a run that found nothing returns its four
  numbers in another order, so that a confidence is read as a shift of the
  centre (not repeated here: it counts as 1); the attack called random is a walk
  of 300 random signs of which the best is kept by looking at the map, thus
  stronger than the one draw that the paper describes. That walk is
  `baselines.random_sign_walk` with this eps, step_size and steps.

  Args:
    key: not used, for nothing is random.
    network: with `methods['gradient']`.
    x, y: images in [0, 1] and true labels; an example predicted otherwise is
      attacked, but not counted.
    eps, step_size, steps, k, beta: as above; k is that of the report too.

  Raises:
    InputError: see `inputs.check`; k larger than the map.
  """
  x, y = inputs.check(x, y, eps=eps, norm='linf', bounds=(0, 1), steps=steps)
  inputs.check_labels(y, network.predict(x), x)
  maps = (
    network.explain('gradient', 'logit', {}, None),
    network.explain('gradient', 'logit', {}, beta),
  )
  best, worth = _climb(
    key, network, x, y, maps, eps=eps, step_size=step_size, steps=steps,
    attempts=1, k=k, select='topk',
  )  # fmt: skip
  return _report(network, maps[0], x, y, best, worth, k=k, last=False)


def rar_mnist(
  key: Array,
  network: Network,
  x: Array,
  y: Array,
  *,
  eps: float | Array = 0.3,
  step_size: float | Array = 0.01,
  steps: int = 100,
  k: int = 200,
  k_report: int = 100,
  points: int = 100,
  attempts: int = 3,
  beta: float | Array = 1.0,
) -> LegacyResult:
  """Evaluation of robust attribution regularisation on MNIST, as released.

  Source: Chen et al. (arXiv 1905.09957);
  github.com/jfc43/robust-attribution-regularization, MNIST/ig_attack.py and
  eval_attribution_attack.py, the numbers of its configuration files.

  What it does: `ghorbani` on integrated gradients of the logit (right end
  points, black baseline), judged by Kendall's tau; of `attempts` runs the one
  with the least tau is reported.

  Faults: every attempt starts from x and nothing in it is random, so all are
  one; β = 1; k = 200 is more than most digits have pixels that are not black,
  where the map is 0, so that the set is filled up by the order of ties, and so
  is the reported one (k_report = 100) of thin digits; tau is low on such maps
  without any attack.

  Args:
    key: not used.
    network: with `methods['integrated_gradients']`.
    x, y: images in [0, 1] and true labels; an example predicted otherwise is
      not counted, one for which no image below 1 was found counts as 1.
    eps, step_size, steps, beta: as in `ghorbani`.
    k, k_report: size of the attacked and of the reported set.
    points: of the path.
    attempts: identical runs.

  Raises:
    InputError: see `inputs.check`; k larger than the map.
  """
  x, y = inputs.check(
    x,
    y,
    eps=eps,
    norm='linf',
    bounds=(0, 1),
    steps=steps,
    attempts=attempts,
  )
  inputs.check_labels(y, network.predict(x), x)
  rule = {'rule': 'right', 'steps': points}
  maps = (
    network.explain('integrated_gradients', 'logit', rule, None),
    network.explain('integrated_gradients', 'logit', rule, beta),
  )
  best, worth = _climb(
    key, network, x, y, maps, eps=eps, step_size=step_size, steps=steps,
    attempts=attempts, k=k, select='kendall',
  )  # fmt: skip
  return _report(network, maps[0], x, y, best, worth, k=k_report, last=True)


def rar_fmnist(
  key: Array,
  network: Network,
  x: Array,
  y: Array,
  *,
  eps: float | Array = 0.1,
  k: int = 100,
  **changed: Any,
) -> LegacyResult:
  """`rar_mnist` with what the same code set for Fashion-MNIST.

  eps 0.1 and k = 100 for both sets; all else as there, faults too.
  """
  return rar_mnist(key, network, x, y, eps=eps, k=k, **changed)
