"""Does MadryCNN keep what its docstring and its configs promise?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from implicit_attr import attribution, losses, models, objectives
from implicit_attr.configs import mnist10k_madry
from implicit_attr.configs.sweeps import explicit
from implicit_attr.errors import InputError
from implicit_attr.sweeps import sweep
from implicit_attr.train import experiment

SMOOTH = {'activation': 'softplus', 'beta': 3.0, 'pool': 'avg'}
PUBLISHED = {'activation': 'relu', 'pool': 'max'}


def make(**options):
  return models.build('madry', **{'width': 2, 'hidden': 4, **options})


@functools.cache
def weights():
  """float64 parameters of `make()`, whatever its activation and pool."""
  x = jnp.zeros((1, 7, 6, 1))
  params = jax.jit(make().init)(jax.random.key(1), x)['params']
  rng = np.random.default_rng(2)
  # Biases of 0 would hide what they do.
  return jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape), params)


@pytest.fixture
def images():
  return np.random.default_rng(0).random((3, 7, 6, 1))


def shapes(module, size=28):
  x = jnp.zeros((2, size, size, 1))
  params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  out = jax.eval_shape(lambda p: module.apply({'params': p}, x), params)
  return jax.tree.map(lambda a: a.shape, params), out


def test_the_defaults_are_the_published_network():
  params, (logits, out) = shapes(models.build('madry'))
  assert params == {
    'first': {'kernel': (5, 5, 1, 32), 'bias': (32,)},
    'conv_1': {'kernel': (5, 5, 32, 64), 'bias': (64,)},
    'hidden': {'kernel': (7 * 7 * 64, 1024), 'bias': (1024,)},
    'logits': {'kernel': (1024, 10), 'bias': (10,)},
  }
  leaves = jax.tree.leaves(params, is_leaf=lambda s: isinstance(s, tuple))
  assert sum(np.prod(s) for s in leaves) == 3_274_634
  assert logits.shape == (2, 10)
  first, second = out['layers']
  assert first.shape == (2, 14, 14, 32)
  assert second.shape == out['features'].shape == (2, 7, 7, 64)


def test_neither_pool_nor_activation_changes_shapes():
  reference = shapes(make())
  for options in (SMOOTH, {'activation': 'gelu'}, {'pool': 'avg'}):
    found = shapes(make(**options))
    assert found[0] == reference[0]
    assert jax.tree.map(lambda a, b: a.shape == b.shape, found[1], reference[1])


def test_sizes_are_rounded_up_and_the_hidden_layer_can_go():
  params, (_, out) = shapes(make(hidden=0), size=7)
  assert [a.shape[1:3] for a in out['layers']] == [(4, 4), (2, 2)]
  assert params['logits']['kernel'] == (2 * 2 * 4, 10)
  assert 'hidden' not in params


def by_hand(params, x, act, pool):
  """One image [H, W, 1] through scipy's correlation, pixel by pixel."""
  layers = []
  for name in ('first', 'conv_1'):
    kernel, bias = (np.asarray(params[name][n]) for n in ('kernel', 'bias'))
    maps = [
      sum(
        signal.correlate2d(x[..., c], kernel[..., c, d], 'same')
        for c in range(x.shape[-1])
      )
      for d in range(kernel.shape[-1])
    ]
    x = act(np.stack(maps, -1) + bias)
    rows, cols = (-(-n // 2) for n in x.shape[:2])
    # An odd last row is pooled with itself: the mean and maximum of what is
    # there.
    x = np.stack(
      [
        np.stack(
          [
            pool(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], (0, 1))
            for j in range(cols)
          ]
        )
        for i in range(rows)
      ]
    )
    layers.append(x)
  x = act(x.ravel() @ params['hidden']['kernel'] + params['hidden']['bias'])
  return x @ params['logits']['kernel'] + params['logits']['bias'], layers


@pytest.mark.parametrize('options', [SMOOTH, PUBLISHED])
def test_logits_and_features_are_those_of_a_transcription(options, images, x64):
  params = weights()
  act, pool = {
    'softplus': (lambda z: np.logaddexp(0, 3 * z) / 3, np.mean),
    'relu': (lambda z: np.maximum(z, 0), np.max),
  }[options['activation']]
  apply = jax.jit(lambda p, x: make(**options).apply({'params': p}, x))
  logits, out = apply(params, images)
  for i, image in enumerate(images):
    expected, layers = by_hand(params, image, act, pool)
    np.testing.assert_allclose(logits[i], expected, rtol=1e-12)
    for ours, theirs in zip(out['layers'], layers, strict=True):
      np.testing.assert_allclose(ours[i], theirs, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(out['features'][i], out['layers'][1][i])


@pytest.mark.parametrize('options', [SMOOTH, PUBLISHED])
def test_second_derivatives_in_x_and_theta_are_exact(options, images, x64):
  """Products with the Hessian against differences of gradients."""
  module, params, x = make(**options), weights(), images[:2]

  def fun(params, x):
    logits, _ = module.apply({'params': params}, x)
    return -jnp.sum(jax.nn.log_softmax(logits)[:, 1]) + jnp.sum(logits**3)

  both = jax.jit(lambda z, v: jax.jvp(jax.grad(fun, (0, 1)), z, v))
  rng, z, step = np.random.default_rng(1), (params, x), 1e-6
  v = jax.tree.map(lambda a: rng.normal(size=a.shape), z)
  at = lambda s: jax.device_get(
    both(jax.tree.map(lambda z, v: z + s * v, z, v), v)[0]
  )
  near = jax.tree.map(lambda a, b: (a - b) / (2 * step), at(step), at(-step))
  exact = jax.device_get(both(z, v)[1])
  for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(near), strict=True):
    scale = np.abs(b).max()
    assert scale > 1e-3
    np.testing.assert_allclose(a / scale, b / scale, atol=1e-6)


def test_published_logits_have_no_curvature_in_x_and_smooth_ones_do(
  images, x64
):
  params = weights()
  v = np.random.default_rng(3).normal(size=images.shape)

  def bent(options):
    logit = lambda x: jnp.sum(
      make(**options).apply({'params': params}, x)[0][:, 2]
    )
    bend = jax.jit(lambda x, v: jax.jvp(jax.grad(logit), (x,), (v,))[1])
    return float(np.abs(bend(images, v)).max())

  assert bent(PUBLISHED) == 0
  assert bent(SMOOTH) > 1e-3


def test_equal_pixels_share_the_derivative_of_their_maximum():
  x = jnp.zeros((1, 2, 3, 1)).at[0, 0, 2].set(1.0)
  grad = jax.grad(lambda x: jnp.sum(models.cnn.pooled(x, 'max')))(x)
  np.testing.assert_array_equal(
    grad[0, ..., 0], [[0.25, 0.25, 1], [0.25, 0.25, 0]]
  )


@pytest.mark.parametrize('name', ['guided_backprop', 'lrp_zplus', 'grad_cam'])
def test_methods_that_look_inside_find_their_way(name, images):
  module = make(**PUBLISHED)
  params = jax.tree.map(lambda p: np.asarray(p, np.float32), weights())
  apply_fn = lambda p, x: module.apply({'params': p}, x)
  x, y = images.astype(np.float32), jnp.array([0, 3, 2])
  found = jax.jit(functools.partial(attribution.METHODS[name], apply_fn))(
    params, x, y
  )
  assert found.shape == x.shape
  assert float(jnp.abs(found).max()) > 0


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'pool': 'mean'}, "model.pool='mean' is not known"),
    ({'pool': 'mx'}, "did you mean 'max'"),
    ({'width': 0}, 'model.width=0 must be an integer >= 1'),
    ({'hidden': -1}, 'model.hidden=-1 must be an integer >= 0'),
    ({'depth': 3}, "model option='depth' is not known"),
  ],
)
def test_a_bad_option_is_named_with_what_is_allowed(options, words):
  with pytest.raises(InputError) as error:
    models.build('madry', **options)
  assert words in str(error.value)


@pytest.mark.parametrize('network', ['smooth', 'published'])
def test_the_config_is_the_network_of_its_argument(network):
  config = mnist10k_madry.get_config(f'network={network}')
  assert config.data.name == 'mnist10k'
  module = models.build(num_classes=10, **config.model)
  wanted = {'smooth': ('gelu', 'avg'), 'published': ('relu', 'max')}[network]
  assert (module.activation, module.pool) == wanted
  assert (module.width, module.hidden) == (32, 1024)
  with pytest.raises(ValueError, match='allowed: smooth, published'):
    mnist10k_madry.get_config('network=smoth')


def test_the_smoke_takes_digits_and_keeps_the_network():
  config = mnist10k_madry.get_config('smoke')
  assert config.data.name == 'digits'
  built = experiment.build(config.to_dict())
  assert built.train_set.shape == (8, 8, 1)
  assert (built.module.width, built.module.hidden) == (32, 1024)
  assert built.total == 20


@pytest.mark.parametrize('size', ['madry', 'madry_small'])
def test_the_sweep_has_every_method_at_one_radius_and_three_seeds(size):
  arms = sweep.arms(explicit.get_config(size))
  assert len(arms) == 18
  methods = ['none', 'pgd', 'ig_norm', 'ig_sum_norm', 'trades', 'scorpio']
  eps = {'madry': 0.3, 'madry_small': 0.1}[size]
  for i, arm in enumerate(arms):
    found = arm.config['objective']
    assert found['name'] == methods[i % 6]
    assert arm.name == f'{found["name"]}/eps={eps}/seed_{i // 6}'
    assert arm.config['seed'] == i // 6
    assert found['options'].get('eps', eps) == arm.config['evaluation']['eps']
    models.build(num_classes=10, **arm.config['model'])
    objectives.make(loss=losses.make('cross_entropy'), **found)
