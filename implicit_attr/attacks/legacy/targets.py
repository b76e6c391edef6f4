"""Target-map attacks of Dombrowski et al. (arXiv 1906.07983) and RobustAGA
(Joo et al., arXiv 2211.15900) as released.

Both move pixels by Adam in the standardised space of their network and give
the last image, whatever its label.
"""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attacks import balls, inputs, search
from implicit_attr.attacks.legacy.result import LegacyResult, Network, compare
from implicit_attr.similarity import magnitude, mass
from implicit_attr.types import Array


def _pull(x: Array, space: balls.Ball, cost, *, step_size, schedule, unit):
  """Adam down cost(z, beta) -> [], in units of `unit` pixel ranges."""
  always = jnp.ones(x.shape[0], bool)
  verdict = search.Verdict(jnp.zeros(x.shape[0], x.dtype), always)

  def probe(z, beta):
    grad = unit * jax.grad(cost)(z, beta)
    return grad, verdict, search.alive(grad)

  best, _, worth = search.descend(
    jax.random.key(0),  # nothing is drawn
    search.Walk(probe, lambda z: verdict),
    space,
    verdict.score,
    rule='adam',
    step_size=jnp.asarray(step_size, x.dtype),
    schedule=schedule,
    restarts=1,
    random_start=False,
    keep_last=True,
  )
  return best, worth


def _report(network, x, best, worth, clean, changed, k) -> LegacyResult:
  """The last images with the maps at x and there; every image counts."""
  topk, kendall = compare(clean, changed, k, last=False)
  return LegacyResult(
    x_adv=best.x,
    kept=network.label(best.x) == network.label(x),
    failed=~best.moved,
    counted=jnp.ones_like(best.moved),
    topk=topk,
    kendall=kendall,
    attempts=worth,
  )


def dombrowski(
  key: Array,
  network: Network,
  x: Array,
  y: Array,
  *,
  lr: float | Array = 2e-4,
  steps: int = 1500,
  gammas: tuple[float, float] = (1e11, 1e6),
  beta_growth: bool = True,
  betas: tuple[float, float] = (10.0, 100.0),
  unit: float = 0.225,
  method: str = 'gradient',
  k: int | float = 0.1,
  target_x: Array | None = None,
) -> LegacyResult:
  """Pulls the map of x to that of another image, as Dombrowski et al. released.

  Source: arXiv 1906.07983; github.com/pankessel/adv_explanation_ref,
  src/run_attack.py. `lr` is the default of the code, whose default method is
  LRP; `unit` the deviation of ImageNet's pixels, by which it standardises.

  What it does: γ₁ MSE of the maps (|channels| summed, sum 1) plus γ₂ MSE of the
  class probabilities, under Adam, every pixel clipped to its range after each
  step. With `beta_growth` the network is a softplus one with
  β_i = β₀ (β₁ / β₀)^(i / steps) and the maps to match come from β = 1000.

  Faults: no ball, so the size of the change is whatever lr and steps give; the
  released default is beta_growth=False, and then the gradient of a ReLU network
  never moves; the γ fit maps of 224² pixels: the first mean falls with the
  square of their number, so on small images the class hardly counts; labels may
  change, and the final map is of the class that is predicted then, compared
  with a map of the class that was.

  Args:
    key: not used.
    network: with `methods[method]`.
    x, y: images in [0, 1]; labels only have to fit, the map is of the class
      that is predicted. All examples are counted.
    lr: of Adam, in units of `unit`.
    steps, gammas, beta_growth, betas, unit: as above.
    method: the map.
    k: of the reported top-k intersection; ours, the code reports none.
    target_x: images [B, H, W, C] whose maps are wanted; each its neighbour in
      the batch if None.

  Raises:
    InputError: see `inputs.check`.
  """
  x, y = inputs.check(x, y, eps=0.0, norm='linf', bounds=(0, 1), steps=steps)
  inputs.check_labels(y, network.predict(x), x)
  target_x = jnp.roll(x, 1, 0) if target_x is None else target_x
  frozen = 1000.0 if beta_growth else None
  logits = lambda z, beta: (
    network.apply_fn if beta is None else network.smooth(beta)
  )(network.params, z)[0]
  share = lambda z, y, beta: mass(
    network.explain(method, 'logit', {}, beta)(z, y)
  )
  label = jnp.argmax(logits(x, frozen), -1)
  wanted = share(target_x, jnp.argmax(logits(target_x, frozen), -1), frozen)
  probability = jax.nn.softmax(logits(x, frozen))

  def cost(z, beta):
    beta = beta if beta_growth else None
    moved = jnp.mean(jnp.square(share(z, label, beta) - wanted), (1, 2))
    strayed = jax.nn.softmax(logits(z, beta)) - probability
    # Adam would turn a difference of one rounding into whole steps.
    same = jnp.abs(strayed) < 8 * jnp.finfo(x.dtype).eps
    strayed = jnp.square(jnp.where(same, 0, strayed))
    return jnp.sum(gammas[0] * moved + gammas[1] * jnp.mean(strayed, -1))

  best, worth = _pull(
    x,
    balls.ball(x, eps=jnp.inf),
    cost,
    step_size=unit * lr,
    schedule=jnp.geomspace(*betas, steps, endpoint=False, dtype=x.dtype),
    unit=unit,
  )
  explain = network.explain(method, 'logit', {})
  changed = explain(best.x, network.label(best.x))
  return _report(network, x, best, worth, explain(x, label), changed, k)


def robust_aga(
  key: Array,
  network: Network,
  x: Array,
  y: Array,
  *,
  eps: float | Array = 4 / 255,
  steps: int = 100,
  gamma: float = 0.5,
  beta: float | Array = 20.0,
  frame: int = 5,
  unit: float = 0.2,
  method: str = 'gradient',
  k: int | float = 0.1,
) -> LegacyResult:
  """Pulls the map into a frame, as Joo et al. (RobustAGA) released their test.

  Source: arXiv 2211.15900; github.com/joshua840/RobustAGA,
  project/module/test_taps_saps.py and utils/interpreter.py, settings of its
  argument parser.

  What it does: Adam (lr 4 eps / steps) on γ Σ (h - frame)² + (1 - γ) MSE of the
  logits, h the channel-summed |map| over its largest entry, the frame 1 on the
  outer `frame` pixels of 32; ball, then box, after each step; the last image.

  Faults: the surrogate (β = 20) is asked to give the logits of the ReLU
  network, which differ already at x; the box is the least and the largest pixel
  of the batch, not the range of a pixel; eps is 5 eps of standardised pixels,
  which is eps only where their deviation is 0.2 (`unit`; the released code used
  0.2023, 0.1994 and 0.2010 for all three channels); the map is of the true
  label even where another is predicted, those examples are counted too, and so
  are those whose label changed.

  Args:
    key: not used.
    network: with `methods[method]`.
    x, y: images in [0, 1] and true labels. All are counted.
    eps, steps, gamma, beta, frame, unit: as above; eps in pixel units.
    method: the map.
    k: of the reported top-k intersection; ours, the code reports none.

  Raises:
    InputError: see `inputs.check`; a frame that leaves no pixel inside.
  """
  x, y = inputs.check(x, y, eps=eps, norm='linf', bounds=(0, 1), steps=steps)
  logits = network.predict(x)
  inputs.check_labels(y, logits, x)
  side = min(x.shape[1:3])
  errors.number('frame', frame, 1, (side - 1) // 2, integer=True)
  border = jnp.ones((1, *x.shape[1:3]), x.dtype)
  border = border.at[:, frame:-frame, frame:-frame].set(0)
  smooth = network.smooth(beta)
  explain = network.explain(method, 'logit', {}, beta)

  def cost(z, _):
    h = magnitude(explain(z, y))
    h = h / (jnp.max(h, (1, 2), keepdims=True) + 1e-8)
    moved = jnp.sum(jnp.square(h - border), (1, 2))
    strayed = jnp.square(smooth(network.params, z)[0] - logits)
    return jnp.mean(gamma * moved + (1 - gamma) * jnp.mean(strayed, -1))

  space = balls.ball(x, eps=eps, bounds=(jnp.min(x), jnp.max(x)))
  best, worth = _pull(
    x,
    space,
    cost,
    step_size=4 * space.eps / steps,
    schedule=jnp.arange(steps),
    unit=unit,
  )
  explain = network.explain(method, 'logit', {})
  maps = explain(x, y), explain(best.x, y)
  return _report(network, x, best, worth, *maps, k)
