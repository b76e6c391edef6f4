"""Does the transformer show what maps need, at no price while training?"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import models
from implicit_attr.errors import InputError
from implicit_attr.models import interventions, vit
from implicit_attr.models.attention import KERNELS

OWN = {'width': 8, 'heads': 2, 'depth': 2, 'patch': 2, 'num_classes': 3}
L = 17


def make(**options):
  return vit.ViT(**(OWN | options))


@functools.cache
def start(**options):
  """Parameters, with biases and scales that are not where they start."""
  module = make(**options)
  params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  rng = np.random.default_rng(1)
  draw = lambda p: np.asarray(p) + 0.3 * rng.normal(size=p.shape)
  params = jax.tree.map(draw, params['params'])
  return jax.tree.map(lambda p: p.astype(np.float32), params)


def images(n=3):
  rng = np.random.default_rng(0)
  return rng.random((n, 8, 8, 1)).astype(np.float32)


def shapes(module):
  tree = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  return jax.tree.map(lambda a: a.shape, tree['params'])


@functools.cache
def evaluated(attention, layer_scale=0.0):
  module = make(attention=attention, layer_scale=layer_scale)
  params = start(layer_scale=layer_scale)
  apply = jax.jit(lambda p, x: module.apply({'params': p}, x))
  return params, jax.device_get(apply(params, images()))


KINDS = ('softmax', 'elu1_sum', 'relu_n', 'softplus_rms', 'relu_pointwise')


@pytest.mark.parametrize('name', KINDS)
def test_out_is_what_the_blocks_did(name):
  """A v is o; factors and scores make A; projections make the next tokens."""
  params, (_, out) = evaluated(name)
  for i in range(2):
    of = lambda key: out[key][i]
    a, v = of('attention'), of('values')
    assert a.shape == (3, 2, L, L) and v.shape == (3, L, 2, 4)
    o = np.einsum('bhij,bjhd->bihd', a, v)
    np.testing.assert_allclose(of('mixed'), o, rtol=1e-4, atol=1e-5)
    if name == 'softmax':
      z = of('scores')
      np.testing.assert_allclose(
        z - z.mean(-1, keepdims=True),
        np.log(a) - np.log(a).mean(-1, keepdims=True),
        atol=1e-4,
      )
    elif name == 'relu_pointwise':
      np.testing.assert_array_equal(of('scores'), a)
    else:
      totals = of('scores').sum(-1, keepdims=True)
      share = of('scores') / np.where(totals > 0, totals, 1)
      sums = a.sum(-1, keepdims=True)
      np.testing.assert_allclose(share * sums, a, rtol=1e-4, atol=1e-6)
    if name in ('elu1_sum', 'relu_n'):
      phi_q, phi_k, inverse = of('factors')
      made = np.einsum('bihm,bjhm->bhij', phi_q, phi_k)
      made = made * inverse.swapaxes(1, 2)[..., None]
      np.testing.assert_allclose(made, a, rtol=1e-4, atol=1e-6)
    else:
      assert 'factors' not in out
    before = out['tokens'] if i == 0 else out['layers'][0]
    p = params[f'block_{i}_out']
    middle = np.einsum('bihd,hde->bie', of('mixed'), of('projections'))
    middle = before + middle + p['bias']
    f = of('activations')
    p = params[f'block_{i}_mlp_1']
    after = middle + f @ p['kernel'] + p['bias']
    np.testing.assert_allclose(of('layers'), after, rtol=1e-4, atol=1e-4)


def test_weights_are_not_made_where_nobody_asks_for_them():
  """Not in training at all; compiled away where the logits are all one wants.

  With a linear kernel no array of a gradient's program has the length of the
  sequence twice.
  """
  module = make(attention='linear', depth=1)
  params, x = start(depth=1), images()
  _, out = jax.eval_shape(
    lambda p: module.apply({'params': p}, x, train=True), params
  )
  assert 'attention' not in out and 'layers' in out
  square = re.compile(rf'\[(\d+,)*{L},(\d+,)?{L}[\],]')
  text = lambda f: jax.jit(f).lower(params).compile().as_text()
  logits = lambda p: module.apply({'params': p}, x)[0].sum()
  weights = lambda p: module.apply({'params': p}, x)[1]['attention'][0]
  assert not square.search(text(jax.grad(logits)))
  assert square.search(text(weights))


def test_layer_scale_multiplies_branches_and_is_no_weight_without():
  plain, scaled = shapes(make()), shapes(make(layer_scale=0.1))
  added = {f'block_{i}_scale_{j}': (8,) for i in range(2) for j in range(2)}
  assert scaled == plain | added
  params = jax.jit(make(layer_scale=0.1).init)(
    jax.random.key(0), jnp.zeros((1, 8, 8, 1))
  )['params']
  np.testing.assert_allclose(params['block_1_scale_0'], 0.1, rtol=1e-6)
  # Folded into the dense layers before it, it is the plain network.
  params, (logits, out) = evaluated('softmax', 0.1)
  folded = {k: dict(v) for k, v in params.items() if hasattr(v, 'keys')}
  folded |= {k: v for k, v in params.items() if k in ('cls', 'positions')}
  for i in range(2):
    for j, layer in enumerate(('out', 'mlp_1')):
      scale = params[f'block_{i}_scale_{j}']
      layer = folded[f'block_{i}_{layer}']
      layer['kernel'] = layer['kernel'] * scale
      layer['bias'] = layer['bias'] * scale
  module = make()
  other, plain_out = jax.jit(lambda p, x: module.apply({'params': p}, x))(
    folded, images()
  )
  np.testing.assert_allclose(logits, other, rtol=1e-4, atol=1e-5)
  for a, b in zip(out['projections'], plain_out['projections'], strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_stochastic_depth_drops_branches_by_example_and_keeps_the_mean():
  """Block l of n at l / n of the rate; nothing is drawn in evaluation."""
  module = make(stochastic_depth=0.6)
  params, x = start(), np.repeat(images(1), 4000, 0)
  assert shapes(module) == shapes(make())

  @jax.jit
  def layers(key):
    options = {'train': True, 'rngs': {'dropout': key}}
    _, out = module.apply({'params': params}, x, **options)
    first = module.apply({'params': params}, x[:1])[1]
    return out['layers'][0], first['tokens']

  found, tokens = layers(jax.random.key(0))
  # Four outcomes in the first block, where 0.3 of each branch is dropped.
  untouched = np.isclose(found, tokens, atol=1e-6).all((1, 2)).mean()
  assert abs(untouched - 0.3**2) < 0.02
  values = np.unique(np.round(np.asarray(found[:, 1, 0]), 4))
  assert len(values) == 4
  again = layers(jax.random.key(0))[0]
  np.testing.assert_array_equal(found, again)
  other = layers(jax.random.key(1))[0]
  assert (np.asarray(found) != np.asarray(other)).any()


def test_stochastic_depth_keeps_the_expected_branch():
  """A single branch, dropped at rate r, is divided by 1 - r."""
  module = make(depth=1, stochastic_depth=0.5)
  y = np.ones((20000, 1, 1), np.float32)

  def branch(module, y):
    return module._stay(y, 0, True)

  found = module.apply(
    {'params': {}}, y, rngs={'dropout': jax.random.key(0)}, method=branch
  )
  assert set(np.unique(found)) == {0.0, 2.0}
  assert abs(float(found.mean()) - 1) < 0.03


SIZES = {  # tokens, million parameters without the read-out
  'digits': (8, 17, 0.0685), 'cifar': (32, 65, 5.36), 'ti': (224, 197, 5.52),
  's': (224, 197, 21.67), 'b': (224, 197, 85.8),
}  # fmt: skip


@pytest.mark.parametrize('size', models.SIZES)
def test_named_sizes_are_those_of_the_vision_transformer(size):
  """Ti, S and B have the 5.5, 21.7 and 85.8 million weights of DeiT's."""
  pixels, tokens, million = SIZES[size]
  module = models.build('vit', size=size)
  x = jnp.zeros((1, pixels, pixels, 1 if size == 'digits' else 3))
  tree = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  assert tree['positions'].shape[1] == tokens
  count = sum(np.prod(p.shape) for p in jax.tree.leaves(tree))
  count -= sum(np.prod(p.shape) for p in jax.tree.leaves(tree['logits']))
  assert count / 1e6 == pytest.approx(million, rel=0.005)


def overlap(a, b, k=4):
  """Shared share of the k largest of each row."""
  top = lambda a: np.argsort(-a, -1, kind='stable')[..., :k]
  hits = (top(a)[..., :, None] == top(b)[..., None, :]).any(-1)
  return hits.sum(-1) / k


@pytest.mark.parametrize(
  ('name', 'free'), [('softmax', True), ('relu_sum', True), ('linear', False)]
)
def test_scaled_scores_leave_ranks_and_overlaps_of_softmax_and_relu(
  name, free, x64
):
  """Theorem A.3 and C: of x and a moved x, at any size of W_Q and W_K."""
  module = make(attention=name, depth=1)
  params = jax.tree.map(lambda p: p.astype(np.float64), start())
  x = images().astype(np.float64)
  moved = x + 0.3 * np.random.default_rng(2).normal(size=x.shape)

  @jax.jit
  def weights(tau):
    scaled = interventions.scale_scores(params, tau)
    read = lambda x: module.apply({'params': scaled}, x)[1]['attention'][0]
    return read(x), read(moved)

  found = {tau: weights(jnp.asarray(tau)) for tau in (0.1, 1.0, 3.0)}
  order = lambda a: np.argsort(a, -1, kind='stable')
  overlaps = {tau: overlap(*map(np.asarray, p)) for tau, p in found.items()}
  for tau in (0.1, 3.0):
    a, b = found[tau][0], found[1.0][0]
    # relu has ties at 0, in which rounding decides.
    same = (order(np.asarray(a)) == order(np.asarray(b))).mean()
    assert (same > 0.999) == free
    # Both parameters carry tau: the logits are tau squared times as large.
    assert ((overlaps[tau] == overlaps[1.0]).mean() > 0.999) == free
  if name == 'softmax':
    z = [np.log(found[t][0]) for t in (1.0, 3.0)]
    centred = [a - a.mean(-1, keepdims=True) for a in z]
    np.testing.assert_allclose(centred[1], 9 * centred[0], rtol=1e-8)


def test_swapped_and_unnormalised_kernels_keep_the_weights_of_the_network():
  """Same tree; without the normaliser rows no longer sum to one."""
  module = make(attention='softmax')
  linear = interventions.swap_kernel(module, 'linear')
  free = interventions.without_normalizer(linear)
  constant = interventions.without_normalizer(linear, 'nm')
  assert shapes(module) == shapes(linear) == shapes(free) == shapes(constant)
  assert (free.attention, constant.attention) == ('elu1_none', 'elu1_nm')
  assert free.width == module.width

  @jax.jit
  def read(x):
    return [
      m.apply({'params': start()}, x)[1] for m in (linear, free, constant)
    ]

  normal, raw, scaled = jax.device_get(read(images()))
  first = lambda out: out['attention'][0]
  sums = first(raw).sum(-1, keepdims=True)
  assert sums.std() > 0.1
  np.testing.assert_allclose(first(raw) / sums, first(normal), rtol=1e-4)
  np.testing.assert_allclose(first(scaled) * L * 4, first(raw), rtol=1e-4)


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (
      lambda: make(patch=3).apply({'params': {}}, images()),
      'model.patch=3 must be a divisor of 8 and 8',
    ),
    (
      lambda: interventions.swap_kernel(make(), 'sofmax'),
      "did you mean 'softmax'",
    ),
    (
      lambda: interventions.swap_kernel(models.build('mlp'), 'softmax'),
      "model.name='MLP' must be a network with a field",
    ),
    (
      lambda: interventions.without_normalizer(make()),
      "model.attention='softmax' must be a kernel with features",
    ),
    (
      lambda: interventions.without_normalizer(make(attention='favor')),
      "model.attention='favor' must be a kernel with features",
    ),
    (
      lambda: interventions.without_normalizer(make(), 'sum'),
      "normalize='sum' is not known",
    ),
    (
      lambda: interventions.scale_scores({'first': {}}, 2.0),
      "params='a tree' must be that of models.build('vit')",
    ),
    (
      lambda: models.build('vit', attention='favor_none'),
      "model.attention='favor_none' is not known",
    ),
  ],
)
def test_what_cannot_be_is_said_in_one_line(call, words):
  with pytest.raises(InputError) as error:
    call()
  assert words in str(error.value) and '\n' not in str(error.value)


def test_every_kernel_that_can_has_one_without_its_normaliser():
  for name, (kind, feature_map, _) in KERNELS.items():
    if kind == 'linear' and feature_map != 'favor':
      free = interventions.without_normalizer(make(attention=name))
      assert KERNELS[free.attention] == ('linear', feature_map, 'none')
