"""Do the stability figures have their closed forms on a quadratic logit?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import errors, similarity
from implicit_attr.similarity import images as moved

SHAPE = (3, 3, 1)


def quadratic(seed=0):
  """A(x) = Q x + b, the gradient of ½ xᵀQx + bᵀx; Q symmetric."""
  draw = np.random.default_rng(seed)
  q = draw.normal(size=(9, 9))
  q, b = q + q.T, draw.normal(size=9)

  def explain(x, y):
    flat = x.reshape(x.shape[0], 9) @ q + b[None]
    return flat.reshape(x.shape)

  return q, explain


def images(n=4):
  x = np.random.default_rng(1).uniform(0.4, 0.6, size=(n, *SHAPE))
  return jnp.asarray(x), jnp.zeros(n, jnp.int32)


def test_sampled_figures_stay_below_the_closed_form(x64):
  q, explain = quadratic()
  x, y = images()
  key, top = jax.random.key(0), np.linalg.norm(q, 2)
  slope = similarity.local_lipschitz(key, explain, x, y, radius=0.1)
  assert np.all(slope <= top) and np.all(slope > 0.4 * top)
  found = similarity.sensitivity(key, explain, x, y, radius=0.1)
  assert np.all(found.maximum <= top * 0.1 * 3)
  assert np.all(found.average < found.maximum)


def test_relative_sensitivity_divides_by_the_size_of_the_map(x64):
  _, explain = quadratic()
  x, y = images()
  key, kind = jax.random.key(0), {'radius': 0.1, 'draws': 5}
  plain = similarity.sensitivity(key, explain, x, y, **kind)
  shared = similarity.sensitivity(key, explain, x, y, relative=True, **kind)
  size = np.linalg.norm(np.asarray(explain(x, y)).reshape(4, -1), axis=1)
  np.testing.assert_allclose(shared.maximum * size, plain.maximum)


def test_more_draws_never_lower_the_maximum():
  _, explain = quadratic()
  x, y = images()
  few, many = (
    similarity.sensitivity(
      jax.random.key(3), explain, x, y, radius=0.1, draws=draws
    ).maximum
    for draws in (3, 12)
  )
  assert np.all(many >= few)


def test_a_linear_network_is_perfectly_stable():
  explain = lambda x, y: jnp.ones_like(x)
  x, y = images()
  key = jax.random.key(0)
  found = similarity.sensitivity(key, explain, x, y, radius=0.1)
  np.testing.assert_array_equal(found.maximum, 0)
  slope = similarity.local_lipschitz(key, explain, x, y, radius=0.1)
  np.testing.assert_array_equal(slope, 0)


def two_classes(x):
  """The label is whether the image is bright."""
  mean = jnp.mean(x, (1, 2, 3))
  return jnp.stack([mean - 0.5, 0.5 - mean], -1)


def test_relative_stability_equals_a_loop_over_the_kept_draws(x64):
  _, explain = quadratic()
  x, y = images()
  key, hidden = jax.random.key(5), lambda x: jnp.tanh(x)
  got = similarity.relative_stability(
    key, explain, two_classes, x, y, radius=0.2, draws=20, hidden=hidden
  )
  size = lambda m: np.linalg.norm(np.asarray(m).reshape(4, -1), axis=1)
  change = lambda p, q: size((p - q) / np.asarray(p))
  best, kept = np.full((3, 4), -np.inf), np.zeros(4, int)
  label = np.argmax(two_classes(x), -1)
  for turn in range(20):
    keys = moved.keys(jax.random.fold_in(key, turn), x)
    draw = lambda key: jax.random.uniform(key, SHAPE, x.dtype, -1, 1)
    noise = jax.vmap(draw)(keys)
    z = jnp.clip(x + 0.2 * noise, 0, 1)
    same = np.argmax(two_classes(z), -1) == label
    top = change(explain(x, y), explain(z, y))
    below = [change(x, z), size(two_classes(x) - two_classes(z))]
    below.append(change(hidden(x), hidden(z)))
    ratio = top / np.array(below)
    best = np.where(same, np.maximum(best, ratio), best)
    kept += same
  assert kept.min() > 0 and kept.min() < 20
  np.testing.assert_array_equal(got.kept, kept)
  for mine, want in zip(
    (got.input, got.output, got.representation), best, strict=True
  ):
    np.testing.assert_allclose(mine, want, rtol=1e-9)


def test_relative_stability_without_a_kept_draw_is_nan_and_counts_none():
  _, explain = quadratic()
  x, y = images()
  # Two answers that no other image shares.
  flips = lambda z: jnp.stack(
    [jnp.all(z == x, (1, 2, 3)), jnp.any(z != x, (1, 2, 3))], -1
  ).astype(jnp.float32)
  got = similarity.relative_stability(
    jax.random.key(0), explain, flips, x, y, radius=0.1, draws=4
  )
  np.testing.assert_array_equal(got.kept, 0)
  assert np.isnan(got.input).all() and np.isnan(got.output).all()
  assert got.representation is None


def test_entries_near_zero_do_not_blow_up_a_relative_change():
  old, new = jnp.array([[1e-12, 1.0]]), jnp.array([[1e-3, 1.0]])
  got = similarity.relative_change(old, new, 0.01)
  np.testing.assert_allclose(got, [0.1], rtol=1e-5)


@pytest.mark.parametrize('draws', [0, -1, 2.5])
def test_a_count_of_draws_that_is_none_is_refused(draws):
  _, explain = quadratic()
  x, y = images()
  with pytest.raises(ValueError, match='draws='):
    similarity.sensitivity(
      jax.random.key(0), explain, x, y, radius=0.1, draws=draws
    )


STABILITY = {
  'sensitivity': lambda explain, x, **kw: (
    similarity.sensitivity(KEY, explain, x, label(x), **kw).average
  ),
  'local_lipschitz': lambda explain, x, **kw: similarity.local_lipschitz(
    KEY, explain, x, label(x), **kw
  ),
  'relative_stability': lambda explain, x, **kw: (
    similarity.relative_stability(
      KEY, explain, two_classes, x, label(x), **kw
    ).input
  ),
}
KEY = jax.random.key(7)
KIND = {'radius': 0.1, 'draws': 5}


def label(x):
  return jnp.zeros(len(x), int)


@pytest.mark.parametrize('name', STABILITY)
def test_an_image_outside_the_box_is_refused_not_moved(name):
  x, _ = images()
  explain = lambda x, y: x
  with pytest.raises(errors.InputError, match=r"x='in \(.*bounds"):
    STABILITY[name](explain, 4 * x, **KIND)
  # Without a box, or in a wider one, it is an image like all others.
  for bounds in (None, (0, 4)):
    found = STABILITY[name](explain, 4 * x, bounds=bounds, **KIND)
    assert np.isfinite(found).all()
  with pytest.raises(errors.InputError, match=r'x.shape=\(0, '):
    STABILITY[name](explain, x[:0], **KIND)
  with pytest.raises(errors.InputError, match='finite'):
    STABILITY[name](explain, x.at[0, 0, 0, 0].set(jnp.nan), **KIND)


@pytest.mark.parametrize('name', STABILITY)
def test_what_is_drawn_for_an_image_does_not_depend_on_its_place(name):
  _, explain = quadratic()
  x, _ = images()
  together = STABILITY[name](explain, x, **KIND)
  back = STABILITY[name](explain, x[::-1], **KIND)[::-1]
  alone = STABILITY[name](explain, x[2:3], **KIND)
  np.testing.assert_allclose(back, together, rtol=1e-4)
  np.testing.assert_allclose(alone, together[2:3], rtol=1e-4)
  assert len(np.unique(together)) == 4


@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_stability_of_small_and_large_maps_is_that_of_the_map(scale):
  _, explain = quadratic()
  x, y = images()
  scaled = lambda x, y: jnp.float32(scale) * explain(x, y).astype('float32')
  for name, power in (('sensitivity', 1), ('local_lipschitz', 1)):
    want = STABILITY[name](explain, x, **KIND)
    got = STABILITY[name](scaled, x, **KIND) / scale**power
    np.testing.assert_allclose(got, want, rtol=1e-5)
  shares = [
    similarity.sensitivity(KEY, e, x, y, relative=True, **KIND).maximum
    for e in (explain, scaled)
  ]
  np.testing.assert_allclose(shares[1], shares[0], rtol=1e-5)


@pytest.mark.parametrize('name', STABILITY)
def test_maps_of_bytes_do_not_wrap(name):
  # 0 or 255 as an image darkens: a difference of -255 is 1 in uint8.
  explain = lambda x, y: jnp.where(x > 0.5, 255, 0)
  x, _ = images()
  kind = {'radius': 0.2, 'draws': 5}
  want = STABILITY[name](lambda x, y: explain(x, y) * 1.0, x, **kind)
  got = STABILITY[name](lambda x, y: explain(x, y).astype('uint8'), x, **kind)
  np.testing.assert_array_equal(got, want)


def test_a_single_logit_keeps_every_label_and_is_refused():
  x, y = images()
  one = lambda x: jnp.mean(x, (1, 2, 3))[:, None]
  with pytest.raises(errors.InputError, match=r'logits.shape.*\[0, z\]'):
    similarity.relative_stability(KEY, lambda x, y: x, one, x, y, **KIND)
