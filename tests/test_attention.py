"""Is every kernel the kernel it says, implicit and dense, and always finite?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr.errors import InputError
from implicit_attr.models import attention
from implicit_attr.models.features import FEATURE_MAPS, favor, feature_pair

KERNELS = attention.KERNELS
GRID = (2, 3)
L = 1 + GRID[0] * GRID[1]
SHORT = [  # one of each kind for the expensive tests
  'softmax',
  'sigmoid_pointwise',
  'relu_pointwise',
  'gaussian_pointwise',
  'elu1_sum',
  'relu_n',
  'relu2_rms',
  'softplus_none',
  'sigmoid_nm',
  'taylor2_sum',
  'hedgehog_sum',
  'favor_sum',
  'cosformer_sum',
]


def draw(seed=0, batch=2, scale=1.0, dtype=np.float64):
  rng = np.random.default_rng(seed)
  q, k, v = rng.normal(size=(3, batch, L, 2, 4))
  return tuple(jnp.asarray(a, dtype) for a in (scale * q, scale * k, v))


@functools.partial(jax.jit, static_argnums=0)
def attend(name, q, k, v):
  return attention.attend(name, q, k, v, grid=GRID, return_weights=True)


def scores(name, q, k):
  """phi(q_i) . phi(k_j) by loops over numpy vectors, from the formulas."""
  d = q.size
  s = q @ k / np.sqrt(d)
  relu = lambda x: np.maximum(x, 0)
  sigma = lambda x: 1 / (1 + np.exp(-x))
  elu1 = lambda x: np.where(x > 0, x + 1, np.exp(x))
  soft = lambda x: np.exp(x) / np.exp(x).sum()
  ends = lambda x: soft(np.concatenate([x, -x]))
  return {
    'elu1': lambda: elu1(q) @ elu1(k),
    'relu': lambda: relu(q) @ relu(k),
    'relu2': lambda: relu(q) ** 2 @ relu(k) ** 2,
    'softplus': lambda: np.log1p(np.exp(q)) @ np.log1p(np.exp(k)),
    'sigmoid': lambda: sigma(q) @ sigma(k),
    'taylor2': lambda: 1 + s + s**2 / 2,
    'hedgehog': lambda: ends(q) @ ends(k),
    'softmax': lambda: np.exp(s),
    'sigmoid_pointwise': lambda: sigma(s - np.log(L)),
    'relu_pointwise': lambda: relu(s) / L,
    'gaussian_pointwise': lambda: np.exp(
      -((q - k) ** 2).sum() / (2 * np.sqrt(d))
    ),
  }[name]()


def by_hand(name, q, k, v):
  """(o, A) of one head, row by row."""
  kind, feature_map, normalize = KERNELS[name]
  a = np.array(
    [[scores(feature_map or name, qi, kj) for kj in k] for qi in q], float
  )
  u = a @ v
  d = np.ones(len(a))
  m = {'taylor2': 21, 'hedgehog': 8}.get(feature_map, 4)
  if kind == 'softmax':
    d = a.sum(1)
  elif normalize == 'sum':
    d = a.sum(1) + 1e-6
  elif normalize in ('n', 'nm'):
    d = d * L * (m if normalize == 'nm' else 1)
  elif normalize == 'rms':
    d = np.sqrt((u**2).mean(1) + 1e-6)
  return u / d[:, None], a / d[:, None]


def test_kernels_are_their_formulas(x64):
  """Every map with one normaliser, every normaliser with one map."""
  q, k, v = draw()
  for name, (kind, feature_map, normalize) in KERNELS.items():
    if feature_map in ('favor', 'cosformer'):
      continue
    if kind == 'linear' and feature_map != 'elu1' and normalize != 'sum':
      continue
    o, a = attend(name, q, k, v)
    for b, h in ((0, 0), (1, 1)):
      head = lambda x: np.asarray(x[b, :, h])
      o_hand, a_hand = by_hand(name, head(q), head(k), head(v))
      np.testing.assert_allclose(o[b, :, h], o_hand, 1e-9, err_msg=name)
      np.testing.assert_allclose(a[b, h], a_hand, 1e-9, err_msg=name)


def test_implicit_and_dense_are_one_function(x64):
  """o from phi(k)^T v equals A v, in value and in the gradients."""
  q, k, v = draw(1)
  w = np.random.default_rng(2).normal(size=v.shape)
  mix = lambda a, v: jnp.einsum('bhij,bjhd->bihd', a, v)
  for name, kernel in KERNELS.items():
    if kernel.kind != 'linear' or kernel.normalize in ('n', 'nm'):
      continue  # the last two are none times a constant
    o, a = jax.device_get(attend(name, q, k, v))
    dense = np.einsum('bhij,bjhd->bihd', a, v)
    np.testing.assert_allclose(o, dense, 1e-12, 1e-13, err_msg=name)
    assert (a >= 0).all(), name
  for name in ('elu1_sum', 'relu2_rms', 'taylor2_sum'):
    implicit = lambda *z: jnp.vdot(attend(name, *z)[0], w)
    dense = lambda *z: jnp.vdot(mix(attend(name, *z)[1], z[2]), w)
    both = jax.jit(
      lambda *z: [jax.grad(f, (0, 1, 2))(*z) for f in (implicit, dense)]
    )
    for g, h in zip(*both(q, k, v), strict=True):
      np.testing.assert_allclose(g, h, 1e-9, 1e-11, err_msg=name)


def test_the_normaliser_sum_gives_rows_of_one():
  q, k, v = draw(3, dtype=np.float32)
  for name in ('softmax', 'linear', 'taylor2', 'hedgehog', 'favor'):
    a = attend(name, q, k, v)[1]
    np.testing.assert_allclose(a.sum(-1), 1.0, atol=3e-5)


def test_favor_is_an_estimate_of_softmax(x64):
  q, k, v = draw(4, scale=0.5)
  exact = attend('softmax', q, k, v)[1]
  errors = []
  for draws in (16, 4096):
    a = jnp.einsum(
      'blhm,bjhm->bhlj',
      favor(q, over_positions=False, draws=draws),
      favor(k, over_positions=True, draws=draws),
    )
    a = a / a.sum(-1, keepdims=True)
    errors.append(float(jnp.abs(a - exact).sum(-1).mean()))
  assert errors[1] < 0.05
  assert errors[1] < errors[0] / 5


def test_favor_before_its_normaliser_is_the_exponential_kernel(x64):
  """Up to the stabilisers, one number a query and one a head: no more."""
  q, k, _ = draw(12, scale=0.5)
  phi_q = favor(q, over_positions=False, draws=8192)
  phi_k = favor(k, over_positions=True, draws=8192)
  logs = np.log(np.einsum('blhm,bjhm->bhlj', phi_q, phi_k))
  left = logs - np.einsum('blhd,bjhd->bhlj', q, k) / np.sqrt(q.shape[-1])
  # What is left is a sum over queries alone: no key differs from another.
  assert np.abs(left - left.mean(-1, keepdims=True)).max() < 0.1
  assert np.ptp(left.mean(-1)) > 0.1


def test_cosformer_prefers_near_tokens_in_both_directions(x64):
  """Equal queries and keys: what is left is the two cosines."""
  one = jnp.ones((1, L, 1, 1))
  phi_q, phi_k = feature_pair('cosformer', one, one, GRID)
  a = np.einsum('lm,jm->lj', phi_q[0, :, 0], phi_k[0, :, 0])
  place = [(0.5, 1.0)] + [(r, c) for r in range(2) for c in range(3)]
  for i, (r, c) in enumerate(place):
    for j, (s, t) in enumerate(place):
      near = np.cos(np.pi / 2 * (r - s) / 2) * np.cos(np.pi / 2 * (c - t) / 3)
      np.testing.assert_allclose(a[i, j], near, rtol=1e-12)


def test_a_gradient_keeps_the_features_and_nothing_for_their_slope():
  """q, k and v, and phi(q) and phi(k); a sum over positions is small."""
  qkv = np.random.default_rng(0).normal(size=(3, 1, 64, 2, 16))
  attend = functools.partial(attention.attend, 'elu1_none')
  _, pull = jax.vjp(attend, *jnp.asarray(qkv, jnp.float32))
  kept = sum(leaf.size for leaf in jax.tree.leaves(pull))
  assert kept < 5.5 * qkv[0].size


@pytest.mark.parametrize('name', SHORT)
def test_rows_of_any_size_stay_finite_with_their_derivatives(name):
  """Large, all-negative (dead) and zero rows; value, gradient, product."""
  q, k, v = draw(5, dtype=np.float32)
  stacks = [(200 * q, -200 * k), (-abs(q), -abs(k)), (-abs(q), abs(k))]
  stacks += [(0 * q, 0 * k), (1e3 * q, 1e3 * q)]

  def fun(q, k, v):
    o, a = attend(name, q, k, v)
    return jnp.sum(jnp.tanh(o)) + jnp.sum(jnp.tanh(a) ** 2)

  grad = jax.grad(fun, (0, 1, 2))
  check = jax.jit(lambda *z: (attend(name, *z), jax.jvp(grad, z, z)))
  for q_, k_ in stacks:
    for leaf in jax.tree.leaves(check(q_, k_, v)):
      assert np.isfinite(leaf).all()


@pytest.mark.parametrize('name', SHORT)
def test_second_derivatives_are_those_of_differences(name, x64):
  q, k, v = draw(6, batch=1)

  def fun(*z):
    o, a = attend(name, *z)
    return jnp.sum(o**3) + jnp.sum(jnp.sin(3 * a))

  both = jax.jit(lambda z, u: jax.jvp(jax.grad(fun, (0, 1, 2)), z, u))
  u = draw(7, batch=1)
  product = both((q, k, v), u)[1]
  step = 1e-6
  near = [
    both(tuple(z + s * d for z, d in zip((q, k, v), u, strict=True)), u)[0]
    for s in (step, -step)
  ]
  for p, a, b in zip(product, *near, strict=True):
    scale = float(jnp.abs(p).max())
    np.testing.assert_allclose(
      p / scale, (a - b) / (2 * step * scale), atol=1e-6
    )


def test_examples_do_not_see_their_mates_and_nothing_is_redrawn():
  q, k, v = draw(8, dtype=np.float32)
  # So large that favor's features need their own stabiliser.
  k = k.at[0].mul(20)
  for name in SHORT:
    first = attend(name, q, k, v)
    other = attend(name, q.at[1].mul(9), k.at[1].mul(40), v.at[1].mul(-3))
    for a, b in zip(first, other, strict=True):
      np.testing.assert_allclose(a[0], b[0], 1e-6, 1e-7, err_msg=name)
    for a, b in zip(first, attend(name, q, k, v), strict=True):
      np.testing.assert_array_equal(a, b)


def test_tokens_may_be_permuted_in_all_but_cosformer():
  q, k, v = draw(9, dtype=np.float32)
  order = np.random.default_rng(1).permutation(L)
  for name in SHORT:
    o, a = attend(name, q, k, v)
    o_new, a_new = attend(name, q[:, order], k[:, order], v[:, order])
    same = np.allclose(o_new, o[:, order], 1e-4, 1e-5) and np.allclose(
      a_new, a[:, :, order][:, :, :, order], 1e-4, 1e-5
    )
    assert same == (name != 'cosformer_sum'), name


def test_scores_are_float32_for_a_bfloat16_trunk():
  q, k, v = draw(10, dtype=np.float32)
  low = tuple(z.astype(jnp.bfloat16) for z in (q, k, v))
  for name in SHORT:
    o, a = attend(name, *low)
    assert o.dtype == jnp.bfloat16 and a.dtype == jnp.float32, name


def test_top_weights_do_not_see_the_temperature_of_softmax_and_relu(x64):
  """Rank certificates are free of tau: softmax and relu, but not elu1."""
  q, k, v = draw(11, batch=16)
  ranks = lambda name, tau: np.argsort(attend(name, tau * q, k, v)[1], -1)
  for name, free in (('softmax', True), ('linear', False)):
    same = (ranks(name, 0.1) == ranks(name, 3.0)).all()
    assert same == free, name
  low, high = (attend('relu_none', t * q, k, v)[1] for t in (0.1, 3.0))
  np.testing.assert_allclose(30 * low, high, rtol=1e-12)


def test_every_map_and_normaliser_has_a_name_or_is_refused():
  qkv = draw(dtype=np.float32)
  for feature_map in FEATURE_MAPS:
    for normalize in attention.NORMALIZERS:
      name = f'{feature_map}_{normalize}'
      if feature_map == 'favor' and normalize in ('none', 'n', 'nm'):
        assert name not in KERNELS
        with pytest.raises(InputError, match='sum or rms with the feature map'):
          attention.linear(*qkv, feature_map, normalize)
      else:
        assert KERNELS[name] == ('linear', feature_map, normalize)
  assert KERNELS['linear'] == KERNELS['elu1_sum']


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda z: attention.attend('softmx', *z), "did you mean 'softmax'"),
    (lambda z: attention.linear(*z, 'taylor'), "did you mean 'taylor2'"),
    (lambda z: attention.linear(*z, 'elu1', 'summ'), "did you mean 'sum'"),
    (lambda z: attention.pointwise(*z, 'sigmoyd'), "did you mean 'sigmoid'"),
  ],
)
def test_an_unknown_name_gets_the_nearest_one(call, words):
  with pytest.raises(InputError) as error:
    call(draw(dtype=np.float32))
  assert words in str(error.value)
