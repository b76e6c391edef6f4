"""Do the networks keep what their docstrings promise?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import models
from implicit_attr.errors import InputError
from implicit_attr.models import features

SMALL = {
  'mlp': ('mlp', {'widths': (6, 5)}),
  'cnn': ('cnn', {'width': 3, 'depth': 2, 'hidden': 4}),
  'cnn_pool': ('cnn', {'width': 3, 'depth': 2, 'downsample': 'avg_pool'}),
  'resnet_none': ('resnet8', {'width': 2}),
  'resnet_group': ('resnet8', {'width': 2, 'norm': 'group'}),
  'vit': ('vit', {'width': 8, 'heads': 2, 'depth': 1, 'patch': 4}),
  'vit_linear': (
    'vit',
    {
      'width': 8,
      'heads': 2,
      'depth': 1,
      'patch': 4,
      'readout': 'mean',
      'attention': 'softplus_nm',
    },
  ),
}
CLASSES = 3


def make(name, **options):
  name, own = SMALL[name]
  return models.build(name, num_classes=CLASSES, **(own | options))


def init(name, channels=1):
  """Parameters of the network `name`, whatever its other options."""
  return _init(name, channels, jax.config.jax_enable_x64)


@functools.cache
def _init(name, channels, x64):  # x64: what was drawn in float64 stays there
  x = jnp.zeros((1, 8, 8, channels))
  return jax.jit(make(name).init)(jax.random.key(1), x)['params']


@pytest.fixture
def images():
  rng = np.random.default_rng(0)
  return rng.random((3, 8, 8, 1))


@pytest.mark.parametrize('name', SMALL)
def test_a_network_gives_logits_and_features_example_by_example(name, images):
  module = make(name)
  params = init(name)
  x = images.astype(np.float32)
  apply = jax.jit(lambda p, x: module.apply({'params': p}, x))
  logits, out = apply(params, x)
  assert logits.shape == (3, CLASSES) and logits.dtype == jnp.float32
  assert 'kernel' in params['first']
  assert out['features'].ndim == {'m': 2, 'v': 3}.get(name[0], 4)
  assert out['features'].shape[0] == 3
  assert np.isfinite(logits).all()
  assert 0 < float(jnp.abs(logits).max()) < 2
  if name == 'vit':
    (a,) = out['attention']
    assert a.shape == (3, 2, 5, 5) and a.dtype == jnp.float32
    np.testing.assert_allclose(a.sum(-1), 1.0, rtol=1e-5)
  mates = np.concatenate([x[:1], 1 - 5 * x[1:]])
  np.testing.assert_allclose(
    logits[0], apply(params, mates)[0][0], rtol=1e-5, atol=1e-7
  )


@pytest.mark.parametrize('name', sorted(set(SMALL) - {'resnet_none'}))
def test_hessian_products_in_x_and_theta_are_exact(name, images, x64):
  """Against differences of float64 gradients, dense in the input."""
  module = make(name, activation='softplus', beta=3.0, mean=0.4, std=0.5)
  # numpy arithmetic outside of the compiled functions: nothing to compile.
  params = jax.tree.map(lambda p: np.asarray(p, np.float64), init(name))
  x, y = images[:1], 1

  def fun(params, x):
    # Odd powers of every logit: no second derivative is zero by symmetry.
    logits, _ = module.apply({'params': params}, x)
    return -jax.nn.log_softmax(logits)[0, y] + jnp.sum((logits + 0.5) ** 3)

  # (gradient, Hessian product), so that one compilation serves for both.
  both = jax.jit(lambda z, v: jax.jvp(jax.grad(fun, (0, 1)), z, v))
  rng = np.random.default_rng(1)
  z = (params, x)
  step = 2e-6

  def difference(v):
    near = [
      jax.device_get(both(jax.tree.map(lambda z, v: z + s * v, z, v), v)[0])
      for s in (step, -step)
    ]
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), *near)

  v = jax.tree.map(lambda p: rng.normal(size=p.shape), z)
  exact, near = jax.device_get(both(z, v)[1]), difference(v)
  scale = max(np.abs(d).max() for d in jax.tree.leaves(near))
  assert scale > 1e-3
  for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(near), strict=True):
    assert a.dtype == np.float64
    np.testing.assert_allclose(a / scale, b / scale, atol=1e-7)

  zero = jax.tree.map(np.zeros_like, params)
  basis = np.eye(x.size).reshape(x.size, *x.shape)
  dense = np.stack([difference((zero, e))[1].ravel() for e in basis])
  u = rng.normal(size=x.shape)
  scale = np.abs(dense).max()
  assert scale > 1e-6
  np.testing.assert_allclose(
    jax.device_get(both(z, (zero, u))[1][1]).ravel() / scale,
    dense.T @ u.ravel() / scale,
    atol=1e-6,
  )
  np.testing.assert_allclose(dense / scale, dense.T / scale, atol=1e-6)


def shapes(module):
  x = jnp.zeros((1, 8, 8, 1))
  tree = jax.eval_shape(module.init, jax.random.key(0), x)
  return jax.tree.map(lambda a: (a.shape, str(a.dtype)), tree)


def test_every_kernel_has_one_parameter_tree():
  reference = shapes(make('vit'))
  for name in models.KERNELS:
    assert shapes(make('vit', attention=name)) == reference, name


def test_gelu_is_that_of_jax_to_the_second_derivative(x64):
  x = jnp.linspace(-9.0, 9.0, 501)
  ours = lambda x: models.activate('gelu', 0.0)(x)
  theirs = lambda x: jax.nn.gelu(x, approximate=False)
  np.testing.assert_allclose(ours(x), theirs(x), atol=1e-14)
  second = lambda fun: jax.vmap(jax.grad(jax.grad(fun)))(x)
  np.testing.assert_allclose(second(ours), second(theirs), atol=1e-13)


@pytest.mark.parametrize('name', ['mlp', 'cnn', 'resnet_none', 'vit'])
def test_every_activation_has_one_parameter_tree(name):
  reference = shapes(make(name))
  for activation in models.ACTIVATIONS:
    assert shapes(make(name, activation=activation)) == reference


def test_both_ways_to_downsample_have_the_same_shapes():
  assert shapes(make('cnn')) == shapes(
    make('cnn', downsample='avg_pool', activation='tanh')
  )


@pytest.mark.parametrize('kind', ['softplus', 'centred_softplus'])
def test_softplus_tends_to_relu_and_is_smooth(kind, x64):
  x = jnp.linspace(-3, 3, 61)  # includes 0
  for beta in (1.0, 10.0, 100.0):
    gap = models.activate(kind, beta)(x) - jax.nn.relu(x)
    low = -np.log(2) / beta if kind == 'centred_softplus' else 0.0
    assert (gap >= low - 1e-15).all()
    assert (gap <= low + np.log(2) / beta + 1e-15).all()
    curve = jax.vmap(jax.grad(jax.grad(models.activate(kind, beta))))(x)
    sigma = 1 / (1 + np.exp(-beta * np.asarray(x)))
    np.testing.assert_allclose(
      curve, beta * sigma * (1 - sigma), rtol=1e-9, atol=1e-12
    )
  huge = models.activate(kind, 1e3)
  values = jax.vmap(jax.value_and_grad(huge))(jnp.array([-1e4, 0.0, 1e4]))
  assert all(np.isfinite(v).all() for v in values)


def test_the_surrogate_tends_to_the_relu_network(images):
  module = make('cnn')
  params = init('cnn')
  smooth = module.clone(activation='softplus')
  x = images.astype(np.float32)
  apply = lambda m, b: m.apply({'params': params}, x, beta=b)[0]
  truth = apply(module, None)
  gaps = [float(jnp.abs(apply(smooth, b) - truth).max()) for b in (1, 10, 1e4)]
  assert gaps[0] > 3 * gaps[1] > 0
  assert gaps[2] < 1e-4


def test_beta_is_traced_and_replaces_the_option(images):
  module = make('mlp', activation='softplus', beta=2.0)
  params = init('mlp')
  x = images.astype(np.float32)
  traces = []

  @jax.jit
  def apply(beta):
    traces.append(beta)
    return module.apply({'params': params}, x, beta=beta)[0]

  low, high = apply(2.0), apply(50.0)
  assert len(traces) == 1
  np.testing.assert_allclose(low, module.apply({'params': params}, x)[0], 1e-5)
  assert not np.allclose(low, high)


def test_pixels_are_standardised_inside(images):
  x = np.repeat(images, 3, -1).astype(np.float32)
  mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
  moved = ((x - np.array(mean)) / np.array(std)).astype(np.float32)
  plain, inside = make('cnn'), make('cnn', mean=mean, std=std)
  params = init('cnn', channels=3)
  np.testing.assert_allclose(
    inside.apply({'params': params}, x)[0],
    plain.apply({'params': params}, moved)[0],
    rtol=1e-5,
    atol=1e-6,
  )


def test_batch_statistics_move_in_training_only(images):
  module = models.build('resnet8', width=2, norm='batch', num_classes=3)
  x = images.astype(np.float32)
  variables = jax.jit(module.init)(jax.random.key(0), x)
  assert set(variables) == {'params', 'batch_stats'}
  still = jax.jit(module.apply)(variables, x)[0]
  train = jax.jit(
    lambda v, x: module.apply(v, x, train=True, mutable=['batch_stats'])
  )
  (logits, _), updated = train(variables, x)
  assert not np.allclose(still, logits)
  before, after = (
    jax.tree.leaves(v['batch_stats']) for v in (variables, updated)
  )
  assert all(not np.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_stochastic_depth_leaves_branches_out_by_block_in_training_only(images):
  """Block l of n at l / n of the rate; nothing is drawn in evaluation."""
  module = models.build('resnet8', width=2, num_classes=3, stochastic_depth=0.6)
  plain = models.build('resnet8', width=2, num_classes=3)
  x = np.repeat(images[:1].astype(np.float32), 4000, 0)
  params = jax.jit(plain.init)(jax.random.key(0), x[:1])['params']
  run = lambda module, **options: jax.jit(
    lambda p, x: module.apply({'params': p}, x, **options)
  )(params, x)
  np.testing.assert_array_equal(run(module)[0], run(plain)[0])
  key = jax.random.key(1)
  layers = run(module, train=True, rngs={'dropout': key})[1]['layers']
  again = run(module, train=True, rngs={'dropout': key})[1]['layers']
  np.testing.assert_array_equal(layers[-1], again[-1])
  for outcomes, layer in ((2, layers[0]), (4, layers[1]), (8, layers[2])):
    seen = np.round(np.asarray(layer).reshape(len(x), -1), 4)
    rows, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(rows) == outcomes
    least = {2: 0.2, 4: 0.2 * 0.4, 8: 0.2 * 0.4 * 0.4}[outcomes]
    assert counts.min() / len(x) == pytest.approx(least, abs=0.01)


def test_initial_weights_are_one_draw_that_jit_does_not_change():
  module = models.build('mlp', widths=(300, 200))
  x = jnp.zeros((1, 10, 10, 1))
  key = jax.random.key(3)
  params = module.init(key, x)['params']
  jitted = jax.jit(module.init)(key, x)['params']
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-5), params, jitted
  )
  pieces = []
  for name, gain in (('first', 2), ('dense_1', 2), ('logits', 0.01)):
    kernel = np.asarray(params[name]['kernel'])
    assert not params[name]['bias'].any()
    pieces.append(kernel.ravel() / np.sqrt(gain / kernel.shape[0]))
  for piece in pieces:
    assert abs(piece.std() - 1) < 4 / np.sqrt(2 * piece.size)
    assert abs(piece.mean()) < 4 / np.sqrt(piece.size)
  assert np.unique(np.concatenate(pieces)).size > 0.99 * sum(
    p.size for p in pieces
  )
  other = module.init(jax.random.key(4), x)['params']
  assert not np.allclose(params['first']['kernel'], other['first']['kernel'])


@pytest.mark.parametrize('name', ['cnn', 'resnet_none', 'vit_linear'])
def test_plain_sgd_trains_from_the_start(name):
  """Four fixed images are learned in a few dozen steps of SGD."""
  module = make(name)
  rng = np.random.default_rng(5)
  x = jnp.asarray(rng.random((4, 8, 8, 1)), jnp.float32)
  y = jnp.array([0, 1, 2, 0])

  def loss(params):
    log_p = jax.nn.log_softmax(module.apply({'params': params}, x)[0])
    return -jnp.mean(jnp.take_along_axis(log_p, y[:, None], 1))

  @jax.jit
  def train(params):
    def step(carry, _):
      params, velocity = carry
      value, grads = jax.value_and_grad(loss)(params)
      velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
      params = jax.tree.map(lambda p, v: p - 0.05 * v, params, velocity)
      return (params, velocity), value

    zeros = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(step, (params, zeros), length=150)[1]

  losses = train(init(name))
  assert abs(float(losses[0]) - np.log(3)) < 0.3
  assert float(losses[-1]) < 0.2


@pytest.mark.parametrize(
  ('name', 'options', 'words'),
  [
    ('resnet9', {}, "model.name='resnet9' is not known; did you mean 'resnet"),
    ('cnn', {'activation': 'rellu'}, "did you mean 'relu'"),
    ('vit', {'attention': 'sofmax'}, "did you mean 'softmax'"),
    ('vit', {'size': 'digit'}, "did you mean 'digits'"),
    ('resnet8', {'norm': 'batchnorm'}, "did you mean 'batch'"),
    ('cnn', {'widht': 3}, "did you mean 'width'"),
    ('cnn', {'width': 0}, 'model.width=0 must be an integer >= 1'),
    ('cnn', {'width': '8'}, "model.width='8' must be an integer"),
    ('mlp', {'beta': -1}, 'model.beta=-1 must be a number > 0'),
    ('mlp', {'widths': 3}, 'model.widths=3 must be a tuple'),
    ('mlp', {'widths': [3, 0]}, 'model.widths=0 must be an integer >= 1'),
    ('mlp', {'std': (0.2, 0.0)}, 'model.std=0.0 must be a number > 0'),
    ('mlp', {'mean': 'imagenet'}, "model.mean='imagenet' must be a number"),
    ('vit', {'width': 10, 'heads': 4}, 'model.heads=4 must be a divisor'),
    ('vit', {'qk_norm': 1}, 'model.qk_norm=1 must be True or False'),
    ('mlp', {'parent': None}, "model option='parent' is not known"),
  ],
)
def test_a_bad_option_is_named_with_what_is_allowed(name, options, words):
  with pytest.raises(InputError) as error:
    models.build(name, **options)
  assert words in str(error.value)
  assert '\n' not in str(error.value)


def test_a_patch_that_does_not_divide_the_image_is_refused():
  module = models.build('vit', patch=3)
  with pytest.raises(InputError, match=r'model\.patch=3 must be a divisor'):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def test_gain_multiplies_the_weights_at_the_start():
  x = np.zeros((1, 4), np.float32)
  key = jax.random.key(0)
  one, third = (
    models.build('mlp', widths=(8,), **options).init(key, x)
    for options in ({}, {'gain': 0.3})
  )
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(third), strict=True):
    np.testing.assert_allclose(0.3 * a, b, rtol=1e-6)
  with pytest.raises(InputError, match=r'model\.gain'):
    models.build('mlp', gain=0.0)


def test_elu1_is_differentiable_at_zero_and_far_from_it():
  """C¹: 1 at 0 from both sides, e^x below, without overflow above."""
  slope = jax.vmap(jax.grad(features.elu1))
  at = jnp.array([-80.0, -1.0, -1e-6, 0.0, 1e-6, 1e3])
  np.testing.assert_allclose(slope(at), np.exp(np.minimum(at, 0)), rtol=1e-6)
  assert jax.grad(features.relu2)(0.0) == 0


@pytest.mark.parametrize(
  'maker', [models.ViT, lambda heads=2: models.ViT(width=8, heads=heads)]
)
def test_a_network_of_ones_own_is_built_by_its_name(maker, monkeypatch):
  """A class, or a function of the options; both are checked alike."""
  monkeypatch.setitem(models.MODELS, 'mine', maker)
  assert models.build('mine', heads=4).heads == 4
  with pytest.raises(InputError, match="did you mean 'heads'"):
    models.build('mine', head=2)
  with pytest.raises(InputError, match='a divisor of the width'):
    models.build('mine', heads=5)
