"""Are maps right where numbers are extreme, and said to be undefined else?

Every map meets integers, constant images, NaN, targets of 1e-20 and a margin of
60; every number of a map meets integers, booleans, constants and NaN.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors, models, train

B, SIDE, C = 2, 6, 2
Y = jnp.zeros(2, int)
OPTIONS = {
  **{n: {'samples': 2} for n in ('smoothgrad', 'smoothgrad_squared')},
  'vargrad': {'samples': 3},
  'expected_gradients': {'samples': 2},
  'integrated_gradients': {'steps': 3},
  'lrp_epsilon': {'epsilon': 0.0},
  'occlusion': {'window': 3, 'stride': 3},
}
CONTROLS = ('random', 'edges')
SQUARES = ('smoothgrad_squared', 'vargrad', 'guided_grad_cam')

each_method = pytest.mark.parametrize('name', attribution.METHODS)
each_kind = pytest.mark.parametrize('target', ['log_prob', 'prob', 'loss'])


def network(params, x):
  """Two classes; the label leads by `lead`, and logits are times `scale`."""
  x = jax.lax.conv_general_dilated(
    x, params['k'], (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  features = jax.nn.softplus(4 * x) / 4
  x = jax.nn.softplus(4 * features.reshape(x.shape[0], -1) @ params['w']) / 4
  logits = x @ params['v']
  lead = params['lead'] * jnp.array([[1.0, 0.0]])
  return params['scale'] * logits + lead, {'features': features}


def case(*, lead=0.0, scale=1.0):
  rng = np.random.default_rng(0)
  params = {
    'k': rng.normal(size=(3, 3, C, 3)) / 3, 'w': rng.normal(size=(27, 8)) / 3,
    'v': rng.normal(size=(8, 2)) / 2, 'lead': lead, 'scale': scale,
  }  # fmt: skip
  x = rng.uniform(size=(B, SIDE, SIDE, C))
  return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, x))


def explain(name, params, x, target='logit'):
  return attribution.METHODS[name](
    network, params, x, Y, key=jax.random.key(0), target=target,
    **OPTIONS.get(name, {}),
  )  # fmt: skip


def margin(z, y):
  here = jnp.arange(len(y))
  return z[here, y] - z[here, 1 - y]


CLOSED = {
  'log_prob': lambda z, y: -jnp.log1p(jnp.exp(-margin(z, y))),
  'prob': lambda z, y: 1 / (1 + jnp.exp(-margin(z, y))),
  'loss': lambda z, y: jnp.log1p(jnp.exp(-margin(z, y))),
}
"""Of two classes, in whose derivatives nothing cancels either."""


@each_kind
@each_method
def test_maps_are_right_at_a_margin_of_60(name, target, monkeypatch):
  # A square of e^-60, or a product of two, is no float32.
  params, x = case(lead=40.0 if name in SQUARES else 60.0)
  found = explain(name, params, x, target)
  monkeypatch.setitem(attribution.TARGETS, target, CLOSED[target])
  wanted = np.asarray(explain(name, params, x, target))
  scale = np.abs(wanted).max()
  if (name, target) == ('occlusion', 'prob'):  # 1 - p is no float32
    scale = 1.0
  assert scale > 0
  np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-4)


@pytest.mark.parametrize('name', ['attn_lrp', 'chefer', 'chefer_lrp'])
def test_attention_maps_are_right_at_a_margin_of_60(name, monkeypatch):
  module = models.build('vit', num_classes=2, width=8, heads=2, depth=1)
  x = case()[1][..., :1]
  params = dict(module.init(jax.random.key(0), x)['params'])
  weights = jax.random.normal(jax.random.key(1), (8, 2))
  params['logits'] = {'kernel': weights, 'bias': jnp.array([60.0, 0.0])}
  method = functools.partial(
    attribution.ATTENTION_METHODS[name], train.frozen(module, {}), params, x,
    Y, target='log_prob',
  )  # fmt: skip
  found = method()
  monkeypatch.setitem(attribution.TARGETS, 'log_prob', CLOSED['log_prob'])
  wanted = np.asarray(method())
  assert np.abs(wanted).max() > 0
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-35)


def test_the_gradient_of_a_linear_network_points_along_its_weights():
  """A margin of 20: cosine 1, where 1 - p was 0 but for its rounding."""
  rng = np.random.default_rng(0)
  w = jnp.asarray(rng.normal(size=(64, 2)), jnp.float32)
  d = w[:, 0] - w[:, 1]
  x, y = jnp.full((1, 8, 8, 1), 0.5), jnp.zeros(1, int)
  b = jnp.array([20 - 0.5 * d.sum(), 0])
  linear = lambda params, x: (x.reshape(len(x), -1) @ w + b[None], {})
  for target in ('log_prob', 'prob', 'loss'):
    m = attribution.gradient(linear, None, x, y, target=target).ravel()
    cosine = m @ d / jnp.linalg.norm(m) / jnp.linalg.norm(d)
    assert abs(cosine) == pytest.approx(1, abs=1e-5), target


@each_method
def test_maps_scale_with_the_logit_down_to_1e_20(name):
  # From 1e-6, since Grad-CAM++ has a scale of its own, that of an exponential.
  whole, small = (explain(name, *case(scale=s)) for s in (1e-6, 1e-20))
  if name in CONTROLS:
    np.testing.assert_array_equal(small, whole)
  elif name in SQUARES:  # in units squared: no float32
    assert not np.any(small)
  else:
    atol = 1e-5 * np.abs(whole).max()
    np.testing.assert_allclose(small / 1e-14, whole, rtol=1e-4, atol=atol)


@each_method
def test_maps_of_a_constant_image_are_finite(name):
  params, x = case()
  found = explain(name, params, jnp.full_like(x, 0.5))
  assert np.all(np.isfinite(found))


@each_method
def test_images_of_integers_or_with_a_nan_are_refused_in_one_line(name):
  params, x = case()
  bad = [(x.astype(t), 'x.dtype') for t in (jnp.uint8, int, bool)]
  for wrong, field in [*bad, (x.at[0, 0].set(jnp.nan), 'x=')]:
    with pytest.raises(errors.InputError, match=field) as error:
      explain(name, params, wrong)
    assert '\n' not in str(error.value)


@each_kind
def test_a_single_logit_is_refused_where_classes_are_compared(target):
  _, x = case()
  one = lambda params, x: (jnp.sum(x, (1, 2, 3))[:, None], {})
  y = jnp.zeros(B, int)
  for name in (target, 'margin'):
    with pytest.raises(errors.InputError, match=r'logits\.shape.*\[0, z\]'):
      attribution.gradient(one, None, x, y, target=name)
  np.testing.assert_array_equal(attribution.gradient(one, None, x, y), 1)


# Sums


def test_sums_of_bfloat16_are_made_in_float32():
  """1,600 samples of 32, and of a variance of .0225."""
  x, y = jnp.zeros((1, 4), jnp.bfloat16), jnp.zeros(1, int)
  options = {'key': jax.random.key(0), 'samples': 1600}
  ones = jnp.ones((1, 4), jnp.bfloat16)
  half = lambda params, x: (-32 * x[:, :1] * ones[:, :2], {})
  found = attribution.expected_gradients(
    half, None, x, y, references=ones, **options
  )
  assert found.dtype == jnp.bfloat16
  assert float(found[0, 0]) == pytest.approx(32, rel=0.02)
  curved = lambda params, x: (jnp.square(x[:, :1]) * ones[:, :2] / 2, {})
  found = attribution.vargrad(curved, None, x, y, sigma=0.15, **options)
  assert found.dtype == jnp.bfloat16
  assert float(found[0, 0]) == pytest.approx(0.0225, rel=0.1)


# Numbers of maps

MASK = jnp.zeros((1, 2, 3), bool).at[0, :, 1].set(True)
REDUCTIONS = ('sum_abs', 'abs_sum', 'max_abs', 'l2')


def brightness(params, x):
  mean = jnp.mean(x, (1, 2, 3))
  return jnp.stack([mean, -mean], 1), {}


def of_network(fun):
  x = jnp.arange(6.0).reshape(1, 2, 3, 1) / 6
  call = getattr(attribution, fun)
  return lambda a: call(brightness, None, x, jnp.zeros(1, int), a)


def of_mask(fun):
  return lambda a: getattr(attribution, fun)(a, MASK)


NUMBERS = {
  **{n: of_network(n) for n in ('deletion_auc', 'insertion_auc')},
  'pixel_flipping': of_network('pixel_flipping'),
  **{n: of_mask(n) for n in ('mask_mass', 'mask_rank', 'pointing_game')},
}
each_number = pytest.mark.parametrize('name', NUMBERS)


@pytest.mark.parametrize('dtype', [jnp.uint8, jnp.int8, jnp.int32, bool])
@pytest.mark.parametrize('name', [*NUMBERS, 'gini', 'entropy'])
def test_integers_and_booleans_are_taken_as_float32(name, dtype):
  fun = NUMBERS.get(name) or getattr(attribution, name)
  a = jnp.array([[[200, 7, 100], [3, 128, 0]]]).astype(dtype)
  np.testing.assert_array_equal(fun(a), fun(a.astype(jnp.float32)))
  colours = jnp.repeat(a[..., None], 3, axis=-1)
  wide = colours.astype(jnp.float32)
  np.testing.assert_array_equal(fun(colours), fun(wide))


@pytest.mark.parametrize('name', REDUCTIONS)
def test_reductions_do_not_wrap(name):
  fun = getattr(attribution, name)
  for value, dtype in ((200, jnp.uint8), (-128, jnp.int8), (True, bool)):
    a = jnp.full((1, 2, 2, 3), value, dtype)
    wanted = fun(a.astype(jnp.float32))
    assert fun(a).dtype == jnp.float32
    np.testing.assert_array_equal(fun(a), wanted)


@pytest.mark.parametrize('name', REDUCTIONS)
def test_reductions_are_free_of_scale(name):
  a = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
  fun = getattr(attribution, name)
  whole = fun(a)
  for scale in (1e-20, 1e20):
    np.testing.assert_allclose(fun(scale * a) / scale, whole, rtol=1e-5)
  slope = jax.grad(lambda a: jnp.sum(fun(a)))
  np.testing.assert_allclose(slope(1e-20 * a), slope(a), rtol=1e-5)


@each_number
def test_a_map_with_a_nan_gives_nan_and_leaves_the_others(name):
  fun = jax.jit(NUMBERS[name])
  good = jnp.arange(6.0).reshape(1, 2, 3)
  assert np.all(np.isfinite(fun(good)))
  assert np.all(np.isnan(fun(good.at[0, 1, 2].set(jnp.nan))))
  assert np.all(np.isnan(fun(good.at[0, 0, 0].set(jnp.nan))))


@each_number
def test_a_map_that_ranks_nothing_gives_nan(name):
  """Constant and all-zero maps; the mass of a constant one is defined."""
  fun = NUMBERS[name]
  zero, constant = (fun(jnp.full((1, 2, 3), v)) for v in (0.0, 0.3))
  assert np.all(np.isnan(zero))
  if name == 'mask_mass':
    assert constant[0] == pytest.approx(1 / 3)
  else:
    assert np.all(np.isnan(constant))


def test_a_map_of_one_lit_pixel_is_ranked_with_the_rest_in_reading_order():
  a = jnp.zeros((1, 2, 3)).at[0, 1, 1].set(1.0)  # inside the mask
  assert attribution.pointing_game(a, MASK)[0] == 1
  assert attribution.mask_mass(a, MASK)[0] == 1
  assert attribution.mask_rank(a, MASK)[0] == 0.5  # then (0, 0), outside
  lit = [i for i in range(6) if i != 4]
  wanted = np.cumsum([0, 4, *lit]) / 6 / 6
  curve = attribution.replacement_curve(
    brightness, None, jnp.arange(6.0).reshape(1, 2, 3, 1) / 6,
    jnp.zeros(1, int), a, target='logit', steps=6,
  )  # fmt: skip
  np.testing.assert_allclose(curve[0], 15 / 36 - wanted, rtol=1e-5, atol=1e-7)


def test_a_map_of_a_single_pixel_ranks_nothing():
  a, mask = jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1), bool)
  assert np.isnan(attribution.mask_rank(a, mask)[0])
  assert np.isnan(attribution.pointing_game(a, mask)[0])
  assert attribution.mask_mass(a, mask)[0] == 1
