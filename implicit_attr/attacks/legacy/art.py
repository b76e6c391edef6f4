"""ART, attributional robustness training (Singh et al., arXiv 1911.13073):
its attack.
"""

import jax
import jax.numpy as jnp

from implicit_attr import similarity
from implicit_attr.attacks import balls, inputs, search
from implicit_attr.attacks.legacy.result import LegacyResult, Network, compare
from implicit_attr.attacks.legacy.topk import mass_on
from implicit_attr.similarity import magnitude, mass
from implicit_attr.types import Array


def _path_mean(
  network: Network, beta, x: Array, y: Array, points: int
) -> Array:
  """Mean gradient of the logit at x i / points, i = 1…points; [B, H, W, C]."""
  slope = network.explain('gradient', 'logit', {}, beta)

  @jax.checkpoint
  def step(total, share):
    return total + slope(share * x, y), None

  shares = jnp.arange(1, points + 1, dtype=x.dtype) / points
  return jax.lax.scan(step, jnp.zeros_like(x), shares)[0] / points


def art_cifar(
  key: Array,
  network: Network,
  x: Array,
  y: Array,
  *,
  eps: float | Array = 8 / 255,
  step_size: float | Array = 1 / 255,
  steps: int = 50,
  k: int = 100,
  points: int = 100,
  beta: float | Array = 50.0,
) -> LegacyResult:
  """Evaluation of attributional robustness training on CIFAR-10, as released.

  Source: Singh et al. (arXiv 1911.13073);
  github.com/nupurkmr9/Attributional-Robustness, cifar/saliency_pgd.py
  (saliency_attackIG) and eval_model.py.

  What it does: signed steps from a uniform start in the ball down the share of
  mass on the top k of integrated gradients of the logit, by a softplus network
  of β = 50; of the images before each step that kept the label it returns the
  one with the least Kendall's tau of two maps that are cut to the clean top k.
  What is reported is of integrated gradients of the *loss* (trapezoids).

  Faults: the map that is attacked is not the one that is reported; the path's
  gradient is followed, that of the factor x in front is not, as counterfactuals
  are made from a copy; tau of maps that are zero but for k entries mostly
  counts ties; the image after the last step is never judged; one start; an
  example for which no image kept the label is left out of the mean instead of
  counting as robust, which makes a network look the weaker the more it resists.

  Args:
    key: draws the start.
    network: with `methods['gradient']` and `['integrated_gradients']`.
    x, y: images in [0, 1] and true labels; an example predicted otherwise is
      not counted.
    eps, step_size, steps, k, points, beta: as above; k is that of the report.

  Raises:
    InputError: see `inputs.check`; k larger than the map.
  """
  x, y = inputs.check(x, y, eps=eps, norm='linf', bounds=(0, 1), steps=steps)
  inputs.check_labels(y, network.predict(x), x)
  space = balls.ball(x, eps=eps)
  clean = magnitude(x * _path_mean(network, None, x, y, points))
  top = similarity.top_mask(clean, k)
  cut = jnp.where(top, mass(clean), 0)

  def lowered(z, factor):
    return mass_on(top, factor * _path_mean(network, beta, z, y, points))

  def step(carry, _):
    z, best = carry
    seen = mass(z * _path_mean(network, None, z, y, points))
    tau = similarity.kendall_tau(jnp.where(top, seen, 0), cut)
    best = search.keep(best, z, search.Verdict(tau, network.label(z) == y))
    move = jnp.sign(jax.grad(lowered)(z, z))
    z = balls.project(space, z - jnp.asarray(step_size, z.dtype) * move)
    return (z, best), None

  no, worst = (
    jnp.zeros(x.shape[0], bool),
    jnp.full(x.shape[0], jnp.inf, x.dtype),
  )
  start = balls.random_start(key, space), search.Best(x, worst, no, no)
  (_, best), _ = jax.lax.scan(step, start, length=steps)
  judged = network.explain(
    'integrated_gradients', 'loss', {'rule': 'trapezoid', 'steps': points + 1}
  )
  topk, kendall = compare(judged(x, y), judged(best.x, y), k, last=True)
  return LegacyResult(
    x_adv=best.x,
    kept=network.label(best.x) == network.label(x),
    failed=~best.found,
    counted=(network.label(x) == y) & best.found,
    topk=topk,
    kendall=kendall,
    attempts=best.score[None],
  )
