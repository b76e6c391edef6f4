"""Curves of similarity over the radius of an attack, and ε50, as they are
evaluated: `attacks.half_radius` around the attack and around random signs.
"""

import functools

import jax
import jax.numpy as jnp

from implicit_attr import attacks, numerics
from implicit_attr.evaluation import scores
from implicit_attr.evaluation.aggregate import BASELINE
from implicit_attr.train.settings import Evaluation
from implicit_attr.types import Array, Explain, Predict

BISECTIONS = 3
"""Radii a factor of two apart give ε50 to a factor of 2 ** (1 / 16), 4 %."""


def over_radii(
  kind: str,
  key: Array,
  explain: Explain,
  predict: Predict,
  x: Array,
  settings: Evaluation,
  surrogate: attacks.Surrogate | None,
) -> dict[str, Array]:
  """The attack `kind`, or random signs, at each of `settings.radii`.

  An attack has three fifths of the steps and half the restarts of the one at a
  single radius, and its first start is where the attack at the last radius
  ended: seven radii and the bisections cost three attacks.

  Returns:
    'score/<kind>/log2_eps50' [B], of ε50 in pixel units;
    'radius/<kind>/censored' [B], see `attacks.RadiusResult`; and
    'radius/<kind>/<similarity>' [B, R].
  """
  ball = {'norm': settings.norm, 'k': settings.k}
  attack = {
    'objective': kind, 'steps': -(-3 * settings.steps // 5),
    'restarts': max(1, settings.restarts // 2),
    'surrogate': surrogate,
  }  # fmt: skip

  def find(x, y, eps, start):
    problem = key, explain, predict, x, y
    if kind == BASELINE:
      found = attacks.random_sign(*problem, eps=eps, **ball)
    else:
      found = attacks.attack_attribution(
        *problem, eps=eps, start=start, **attack, **ball
      )
    return found.x_adv, found.score

  with numerics.exact():
    y = jnp.argmax(predict(x), axis=-1).astype(jnp.int32)
    found = attacks.half_radius(
      find, x, y, jnp.asarray(settings.radii, x.dtype), BISECTIONS
    )
    clean = explain(x, y)
    like = functools.partial(scores.similar, settings.k, ('ssim',), x, clean)
    curves = jax.lax.map(
      lambda z: like(explain(z, y)), jnp.swapaxes(found.x_adv, 0, 1)
    )
  return {
    f'score/{kind}/log2_eps50': jnp.log2(found.eps50),
    f'radius/{kind}/censored': found.censored,
    **{f'radius/{kind}/{name}': a.T for name, a in curves.items()},
  }
