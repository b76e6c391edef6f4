"""ε50, the radius at which half of a top-k set is left."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, theory

RADII = tuple(2.0**i / 64 for i in range(7))


def predict(x):
  return jnp.broadcast_to(jnp.array([1.0, 0.0]), (len(x), 2))


def finder(explain, **options):
  def find(x, y, eps, start):
    found = attacks.attack_attribution(
      jax.random.key(0), explain, predict, x, y, eps=eps, k=1, start=start,
      bounds=(-4.0, 4.0), restarts=1, **{'steps': 10, **options},
    )  # fmt: skip
    return found.x_adv, found.score

  return find


@functools.cache
def quadratic():
  """A pair of pixels: the gradient of a quadratic logit is A x + b."""
  key = jax.random.key(3)
  a = jax.random.normal(key, (2, 2))
  matrix = a + a.T
  x = jax.random.uniform(jax.random.fold_in(key, 1), (6, 1, 2, 1))
  explain = lambda x, y: (x.reshape(-1, 2) @ matrix + 1).reshape(x.shape)
  return matrix, explain, x


def test_of_an_affine_map_the_radius_is_the_affine_radius():
  matrix, explain, x = quadratic()
  y = jnp.zeros(len(x), int)
  phi = np.asarray(explain(x, y)).reshape(-1, 2)
  want = np.asarray(theory.affine_radius(np.asarray(matrix), phi, 1, 'linf'))
  got = jax.jit(lambda r: attacks.half_radius(finder(explain), x, y, r, 12))(
    jnp.array(RADII)
  )
  inside = (want > RADII[0]) & (want < RADII[-1])
  assert inside.sum() >= 3
  np.testing.assert_allclose(got.eps50[inside], want[inside], rtol=1e-3)
  np.testing.assert_array_equal(got.censored == 0, inside)
  np.testing.assert_array_equal(got.censored == -1, want <= RADII[0])


def test_the_share_left_never_rises_with_the_radius():
  _, explain, x = quadratic()
  wavy = lambda x, y: jnp.sin(9 * explain(x, y))
  y = jnp.zeros(len(x), int)
  share = attacks.half_radius(finder(wavy, steps=3), x, y, RADII, 2).share
  assert np.all(np.diff(share, axis=1) <= 0)
  assert np.ptp(share) > 0


def test_a_map_that_no_image_changes_is_censored_above():
  x = jnp.full((2, 1, 2, 1), 0.5)
  still = lambda x, y: (
    jnp.broadcast_to(jnp.array([1.0, 2.0]), (len(x), 2))
    + (0 * x.reshape(-1, 2))
  )
  got = attacks.half_radius(finder(still), x, jnp.zeros(2, int), RADII, 2)
  np.testing.assert_array_equal(got.censored, 1)
  np.testing.assert_allclose(got.eps50, RADII[-1])


@pytest.mark.parametrize('eps', [0.5, 1.0])
def test_an_attack_from_a_start_is_never_worse_than_the_start(eps):
  _, explain, x = quadratic()
  y = jnp.zeros(len(x), int)
  attack = functools.partial(
    attacks.attack_attribution, jax.random.key(1), explain, predict, x, y,
    k=1, bounds=(-4.0, 4.0), restarts=1,
  )  # fmt: skip
  strong = attack(eps=eps, steps=20)
  again = attack(eps=eps, steps=1, start=strong.x_adv)
  assert np.all(again.score <= strong.score)
  assert np.any(strong.score < 1)
