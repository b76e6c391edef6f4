"""Are maps made of weights what their papers' formulas say, dense or not?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution
from implicit_attr.attribution import attention, attention_norms
from implicit_attr.errors import InputError

B, H, L, DH, M, BLOCKS = 2, 3, 5, 4, 6, 3


def draw(seed=0, normal=True):
  """Weights [B, H, L, L] of some blocks; rows sum to 1 if `normal`."""
  rng = np.random.default_rng(seed)
  blocks = rng.random((BLOCKS, B, H, L, L)) ** 3
  return blocks / blocks.sum(-1, keepdims=True) if normal else blocks


def factored(seed=0):
  rng = np.random.default_rng(seed)
  q, k = rng.random((2, BLOCKS, B, L, H, M))
  d = rng.random((BLOCKS, B, L, H)) + 0.5
  return [
    attention.Factored(*map(jnp.asarray, block))
    for block in zip(q, k, d, strict=True)
  ]


def rows(kind='cls'):
  one = np.eye(L)[0] if kind == 'cls' else np.full(L, 1 / L)
  return jnp.asarray(np.broadcast_to(one, (B, L)))


whole = jnp.broadcast_to(jnp.eye(L), (B, L, L))


def rollout_by_hand(blocks, residual):
  """Matrix products, one example after the other (arXiv 2005.00928, eq. 1)."""
  found = []
  for b in range(B):
    product = np.eye(L)
    for block in blocks:
      a = sum(block[b]) / H
      if residual == 'renorm':
        m = 0.5 * np.eye(L) + 0.5 * a / a.sum(1)[:, None]
      elif residual == 'rows':
        m = (a + np.eye(L)) / (a + np.eye(L)).sum(1)[:, None]
      else:
        m = a + np.eye(L)
      product = m @ product
    found.append(product)
  return np.array(found)


@pytest.mark.parametrize('residual', attention.RESIDUALS)
@pytest.mark.parametrize('normal', [True, False])
def test_rollout_is_the_product_of_its_paper(residual, normal, x64):
  blocks = draw(normal=normal)
  found = attention.rollout(
    list(map(jnp.asarray, blocks)),
    whole.astype(float),
    residual=residual,
  )
  by_hand = rollout_by_hand(blocks, residual)
  np.testing.assert_allclose(found, by_hand, rtol=1e-10)
  if residual != 'raw':
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


def test_rollout_of_rows_of_one_does_not_see_which_way_they_are_made_one(x64):
  blocks = list(map(jnp.asarray, draw()))
  roll = lambda r: attention.rollout(blocks, rows()[:, None], residual=r)
  np.testing.assert_allclose(roll('renorm'), roll('rows'), rtol=1e-12)


def test_heads_and_discard(x64):
  """Against loops; the entry of the class token is never discarded."""
  blocks = draw(1)
  for heads, fun in (('max', np.max), ('min', np.min), ('mean', np.mean)):
    found = attention.fused(jnp.asarray(blocks[0]), heads, 0.5)[:, 0]
    for b in range(B):
      a = fun(blocks[0][b], axis=0)
      kept = sorted(a.ravel())[int(0.5 * L * L) :]
      by_hand = np.where(a >= kept[0], a, 0)
      by_hand[0, 0] = a[0, 0]
      np.testing.assert_allclose(found[b], by_hand, rtol=1e-14)
    np.testing.assert_allclose(
      attention.raw(jnp.asarray(blocks[0]), rows(), heads),
      fun(blocks[0][:, :, 0], axis=1),
      rtol=1e-14,
    )


@pytest.mark.parametrize('kind', ['cls', 'mean'])
def test_factored_weights_give_the_maps_of_dense_ones(kind, x64):
  """And make no array of size L L; relative 1e-12."""
  blocks, r = factored(), rows(kind)
  dense = [attention.dense(a) for a in blocks]
  rng = np.random.default_rng(2)
  values, gradient = map(jnp.asarray, rng.normal(size=(2, B, L, H, DH)))
  maps = {
    'raw': lambda a: attention.raw(a[-1], r),
    'signed': lambda a: attention.gradient_x_attention(
      a[-1], values, gradient, r, rectify=False
    ),
    'grad_cam': lambda a: attention.grad_cam(a[-1], values, gradient, r, 1),
  }
  for residual in attention.RESIDUALS:
    maps[residual] = lambda a, residual=residual: attention.rollout(
      a, r[:, None], residual=residual
    )
  for name, fun in maps.items():
    np.testing.assert_allclose(fun(blocks), fun(dense), rtol=1e-12)
    shapes = [
      v.aval.shape
      for eqn in jax.make_jaxpr(fun)(blocks).jaxpr.eqns
      for v in eqn.outvars
    ]
    assert not any(s[-2:] == (L, L) for s in shapes), name
  first = attention.first(blocks[0])
  np.testing.assert_allclose(
    attention.dense(first), dense[0][:, :, :1], rtol=1e-12
  )


def test_weights_times_gradients_sum_to_output_times_gradient(x64):
  """Σ_j A_ij G_ij = o_i · dy/do_i, whatever the rows sum to."""
  rng = np.random.default_rng(3)
  a = draw(3, normal=False)[0]
  values, gradient = rng.normal(size=(2, B, L, H, DH))
  o = np.einsum('bhij,bjhd->bihd', a, values)
  g = attention.weight_gradient(jnp.asarray(values), jnp.asarray(gradient))
  np.testing.assert_allclose(
    (a * g).sum(-1), np.einsum('bihd,bihd->bhi', o, gradient), rtol=1e-10
  )


def test_chefer_is_the_rule_of_its_paper(x64):
  """Equations 5 and 6 of arXiv 2103.15679 in numpy, one example at a time."""
  blocks = draw(4)
  g = np.random.default_rng(5).normal(size=blocks.shape)
  found = attention.chefer(
    list(map(jnp.asarray, g)),
    list(map(jnp.asarray, blocks)),
    whole.astype(float),
  )
  for b in range(B):
    r = np.eye(L)
    for a, gradient in zip(blocks, g, strict=True):
      bar = np.mean(
        [np.maximum(a[b, h] * gradient[b, h], 0) for h in range(H)], 0
      )
      r = r + bar @ r
    np.testing.assert_allclose(found[b], r, rtol=1e-10)


def test_grad_cam_weighs_heads_by_their_mean_gradient(x64):
  a = draw(6)[0]
  values, gradient = np.random.default_rng(7).normal(size=(2, B, L, H, DH))
  found = attention.grad_cam(
    *map(jnp.asarray, (a, values, gradient)), rows(), 1
  )
  g = np.einsum('bihd,bjhd->bhij', gradient, values)
  alpha = g[:, :, 0, 1:].mean(-1)
  by_hand = np.maximum((alpha[..., None] * a[:, :, 0]).mean(1), 0)
  np.testing.assert_allclose(found, by_hand, rtol=1e-12)


def norms_by_hand(a, values, projections, tokens):
  """Value norms and ALTI by loops over tokens."""
  norms, shares = np.zeros((2, B, L, L))
  for b in range(B):
    for i in range(L):
      parts = np.array(
        [
          sum(
            a[b, h, i, j] * values[b, j, h] @ projections[h] for h in range(H)
          )
          for j in range(L)
        ]
      )
      norms[b, i] = np.sqrt((parts**2).sum(-1))
      parts[i] += tokens[b, i]
      y = parts.sum(0)
      near = np.abs(y).sum() - np.abs(y - parts).sum(-1)
      shares[b, i] = np.maximum(near, 0) / np.maximum(near, 0).sum()
  return norms, shares


def test_value_norms_and_alti_are_their_formulas(x64):
  rng = np.random.default_rng(8)
  a, values = draw(8)[0], rng.normal(size=(B, L, H, DH))
  projections, tokens = rng.normal(size=(H, DH, 7)), rng.normal(size=(B, L, 7))
  norms, shares = norms_by_hand(a, values, projections, tokens)
  given = tuple(map(jnp.asarray, (a, values, projections)))
  found = attention_norms.value_norms(*given)
  np.testing.assert_allclose(found, norms, rtol=1e-10)
  found = attention_norms.alti(*given, jnp.asarray(tokens))
  np.testing.assert_allclose(found, shares, rtol=1e-10)
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)
  # A factor may move from the weights to the values.
  moved = attention_norms.value_norms(given[0] * 3, given[1] / 3, given[2])
  np.testing.assert_allclose(moved, norms, rtol=1e-10)


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda a: attention.rollout(a, rows(), residual='row'), "mean 'rows'"),
    (lambda a: attention.rollout(a, rows(), heads='maxi'), "mean 'max'"),
    (lambda a: attention.rollout(a, rows(), discard=2), 'discard=2 must be'),
    (
      lambda a: attention.rollout(factored(), rows(), heads='max'),
      "heads='max' must be 'mean', and discard 0",
    ),
  ],
)
def test_what_makes_no_sense_is_said_in_one_line(call, words):
  with pytest.raises(InputError) as error:
    call(list(map(jnp.asarray, draw())))
  assert words in str(error.value) and '\n' not in str(error.value)


def test_a_map_of_tokens_is_an_image_of_square_patches():
  grid = functools.partial(attribution.token_grid, jnp.arange(8.0)[None])
  assert grid(jnp.zeros((1, 4, 8, 1))).shape == (1, 2, 4)
  assert grid(jnp.zeros((1, 8, 4, 3))).shape == (1, 4, 2)
  with pytest.raises(InputError, match='square patches of 4 x 4 pixels'):
    grid(jnp.zeros((1, 4, 4, 1)))
