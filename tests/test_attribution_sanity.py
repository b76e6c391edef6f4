"""Is a map that does not look at the network, or says nothing, found out?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors, models, similarity

B, SIDE, CLASSES = 4, 6, 3
LAYERS = ('logits', 'conv_1', 'first')
Y = jnp.array([0, 2, 1, 0])


@functools.cache
def case():
  """A small network, weights of two keys, and images."""
  module = models.build(
    'cnn', width=4, depth=2, hidden=0, num_classes=CLASSES,
    activation='softplus',
  )  # fmt: skip
  x = jax.random.uniform(jax.random.key(0), (B, SIDE, SIDE, 1))
  init = jax.jit(lambda key: module.init(key, x)['params'])
  params, fresh = (init(jax.random.key(i)) for i in (1, 2))
  apply_fn = lambda params, x: module.apply({'params': params}, x)
  return apply_fn, params, fresh, x


def explain(name, params, x, y):
  key = jax.random.key(3)
  return attribution.METHODS[name](case()[0], params, x, y, key=key)


def likeness(a, b):
  return jnp.abs(similarity.cosine(a, b))


def randomised(name, **options):
  _, params, fresh, x = case()
  options = {'layers': LAYERS} | options
  fun = lambda params, fresh, x: attribution.parameter_randomisation(
    functools.partial(explain, name), params, fresh, x, Y, likeness, **options
  )
  return jax.jit(fun)(params, fresh, x)


@pytest.mark.parametrize('independent', [False, True])
def test_each_row_is_the_map_of_a_network_put_together_by_hand(independent):
  _, params, fresh, x = case()
  found = randomised('gradient', independent=independent)
  clean = explain('gradient', params, x, Y)
  assert found.shape == (3, B)
  for row, layer in enumerate(LAYERS):
    replaced = (layer,) if independent else LAYERS[: row + 1]
    mixed = {k: fresh[k] if k in replaced else params[k] for k in params}
    wanted = likeness(clean, explain('gradient', mixed, x, Y))
    np.testing.assert_allclose(found[row], wanted, rtol=1e-4, atol=1e-6)


def test_maps_of_the_network_change_when_its_weights_are_lost():
  for name in ('gradient', 'integrated_gradients'):
    found = np.asarray(randomised(name))
    assert found[-1].mean() < 0.6 and found.max(0).max() < 1 - 1e-3


def test_maps_that_ignore_the_network_stay_and_so_are_found_out():
  for name in ('edges', 'random'):
    np.testing.assert_allclose(randomised(name), 1, rtol=1e-5)


def test_layers_may_be_paths_and_what_is_not_named_stays():
  _, params, fresh, x = case()
  found = randomised('gradient', layers=('first/kernel', 'logits/bias'))
  mixed = params | {
    'first': params['first'] | {'kernel': fresh['first']['kernel']}
  }
  clean = explain('gradient', params, x, Y)
  wanted = likeness(clean, explain('gradient', mixed, x, Y))
  # The bias of the logits has no part in the gradient.
  np.testing.assert_allclose(found, [wanted, wanted], rtol=1e-4, atol=1e-6)


def test_bad_layers_and_weights_name_the_argument():
  _, params, fresh, x = case()
  run = lambda fresh, layers: attribution.parameter_randomisation(
    functools.partial(explain, 'gradient'), params, fresh, x, Y, likeness,
    layers=layers,
  )  # fmt: skip
  bad = [
    ("layers='head'.*allowed", fresh, ('head',)),
    ('layers.*apart', fresh, ('first', 'first/kernel')),
    ('layers.*apart', fresh, ('first', 'first')),
    ('layers.*at least one', fresh, ()),
    ('fresh', {'first': fresh['first']}, LAYERS),
    ('fresh', jax.tree.map(lambda p: p[None], fresh), LAYERS),
  ]
  for named, weights, layers in bad:
    with pytest.raises(errors.InputError, match=named):
      run(weights, layers)


# Collapse


def test_gini_and_entropy_are_those_written_out(x64):
  rng = np.random.default_rng(0)
  a = rng.normal(size=(3, 5, 4, 2))
  v = np.abs(a).sum(-1).reshape(3, -1)
  # Half the mean difference of all pairs over the mean, and Shannon's sum.
  pairs = np.abs(v[:, :, None] - v[:, None]).mean((1, 2))
  gini = pairs / (2 * v.mean(1))
  p = v / v.sum(1, keepdims=True)
  entropy = -(p * np.log(p)).sum(1) / np.log(20)
  a = jnp.asarray(a)
  np.testing.assert_allclose(attribution.gini(a), gini, rtol=1e-12)
  np.testing.assert_allclose(attribution.entropy(a), entropy, rtol=1e-12)
  # Neither the scale nor the sign of a map matters, nor overflow.
  for scale in (-3, 1e-300, 1e300):
    np.testing.assert_allclose(attribution.gini(scale * a), gini, rtol=1e-12)


def test_one_pixel_and_equal_pixels_are_the_two_ends():
  a = np.zeros((3, 5, 4))
  a[0, 2, 1] = -7
  a[1] = -0.3
  a = jnp.asarray(a)  # and one that is 0 everywhere
  ends = [1 - 1 / 20, 0, 0]
  np.testing.assert_allclose(attribution.gini(a), ends, atol=1e-6)
  np.testing.assert_allclose(attribution.entropy(a), [0, 1, 1], atol=1e-6)


def test_normal_noise_has_the_gini_index_of_its_docstring(x64):
  a = jax.random.normal(jax.random.key(0), (1, 200, 200, 1))
  assert attribution.gini(a)[0] == pytest.approx(2**0.5 - 1, abs=0.005)


def test_a_constant_map_is_flagged_and_a_map_of_the_network_is_not():
  """The steadiest map is perfectly stable; this is what gives it away."""
  _, params, _, x = case()
  constant = lambda x, y: jnp.full(x.shape, 0.2)
  flat = constant(x, Y).at[:, 0, 0].add(1e-3)
  found = similarity.sensitivity(jax.random.key(0), constant, x, Y, radius=0.1)
  assert not np.any(found.maximum)
  for a in (constant(x, Y), flat):
    assert np.all(attribution.gini(a) < 0.05)
    assert np.all(attribution.entropy(a) > 0.999)
  for name in ('gradient', 'gradient_x_input', 'random', 'edges'):
    a = explain(name, params, x, Y)
    assert np.all(attribution.gini(a) > 0.05), name
    assert np.all(attribution.entropy(a) < 0.99), name
