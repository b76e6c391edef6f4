"""Does an audit measure what an attack does, and refuse what it cannot?"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import errors
from implicit_attr.audit import audit
from implicit_attr.runtime import memory

FEW = {
  'attributions': ('gradient',), 'steps': 5, 'restarts': 1, 'batch_size': 8
}  # fmt: skip


def network(activation):
  def apply_fn(params, x):
    h = activation(x.reshape(len(x), -1) @ params['w'])
    return h @ params['v'], {}

  return apply_fn


@pytest.fixture(scope='module')
def problem():
  draw = np.random.default_rng(0)
  params = {
    'w': jnp.array(draw.normal(size=(64, 16)), jnp.float32),
    'v': jnp.array(draw.normal(size=(16, 3)), jnp.float32),
  }
  x = draw.random((12, 8, 8, 1), np.float32)
  logits, _ = network(jnp.tanh)(params, x)
  return params, x, np.asarray(jnp.argmax(logits, -1))


def test_without_a_radius_every_map_is_unchanged(problem):
  result = audit(network(jnp.tanh), *problem, eps=0.0, **FEW)
  for row in result.rows:
    assert row['n'] == 12
    for value in row['metrics'].values():
      np.testing.assert_allclose(value['mean'], 1, rtol=1e-5)


def test_the_attack_moves_maps_further_than_random_signs_do(problem):
  result = audit(network(jnp.tanh), *problem, eps=0.1, **FEW)
  topk = {row['attack']: row['metrics']['topk']['mean'] for row in result.rows}
  assert topk['border'] < topk['random_sign'] - 0.05
  assert f'{topk["border"]:.3f}' in str(result)


def test_a_relu_network_gets_a_surrogate_equal_to_the_one_made_by_hand(problem):
  params, x, _ = problem
  relu, smooth = network(jax.nn.relu), lambda params, x, beta: network(
    lambda z: jax.nn.softplus(beta * z) / beta
  )(params, x)  # fmt: skip
  y = np.asarray(jnp.argmax(relu(params, x)[0], -1))
  by_hand = audit(relu, params, x, y, eps=0.1, smooth_fn=smooth, **FEW)
  forms = {
    'relu': relu,
    'jitted': jax.jit(relu),
    'vmapped': lambda p, x: jax.vmap(lambda x: relu(p, x[None])[0][0])(x),
    'where': network(lambda z: jnp.where(z > 0, z, 0)),
  }
  for name, form in forms.items():
    own = audit(form, params, x, y, eps=0.1, **FEW)
    assert own.rows[0]['n_stalled'] == 0, name
    assert 'softplus(β) for its rectifiers' in str(own)
    np.testing.assert_allclose(
      own.arrays['score/gradient/border/topk'],
      by_hand.arrays['score/gradient/border/topk'],
      atol=1e-5, err_msg=name,
    )  # fmt: skip
  assert 'softplus' not in str(by_hand)


@pytest.mark.parametrize('smooth', [jnp.tanh, jax.nn.elu, jax.nn.softplus])
def test_a_network_without_a_kink_gets_no_surrogate(problem, smooth):
  params, x, _ = problem
  y = np.asarray(jnp.argmax(network(smooth)(params, x)[0], -1))
  result = audit(network(smooth), params, x, y, eps=0.1, **FEW)
  assert 'rectifiers' not in str(result)


def test_kinks_that_are_not_understood_stall_with_a_warning(problem):
  params, x, _ = problem
  absolute = network(jnp.abs)
  y = np.asarray(jnp.argmax(absolute(params, x)[0], -1))
  with pytest.warns(UserWarning, match='smooth_fn='):
    stuck = audit(absolute, params, x, y, eps=0.1, **FEW)
  assert stuck.rows[0]['n_stalled'] == 12


def test_the_layout_of_images_changes_no_number():
  draw = np.random.default_rng(1)
  x = draw.random((6, 5, 8, 3), np.float32)
  params = {
    'w': jnp.array(draw.normal(size=(120, 16)), jnp.float32),
    'v': jnp.array(draw.normal(size=(16, 3)), jnp.float32),
  }
  y = np.asarray(jnp.argmax(network(jnp.tanh)(params, x)[0], -1))
  last = audit(network(jnp.tanh), params, x, y, eps=0.1, **FEW)
  first = lambda p, x: network(jnp.tanh)(p, jnp.moveaxis(x, 1, -1))
  turned = np.moveaxis(x, -1, 1)
  with pytest.raises(errors.InputError, match="layout='NCHW'"):
    audit(first, params, turned, y, eps=0.1, **FEW)
  found = audit(first, params, turned, y, eps=0.1, layout='NCHW', **FEW)
  for name in ('map/gradient/clean', 'score/gradient/border/topk'):
    np.testing.assert_allclose(
      found.arrays[name], last.arrays[name], rtol=1e-4, atol=1e-6
    )


def test_mean_and_std_stay_between_the_image_and_the_network(problem):
  params, x, y = problem
  whole = audit(
    lambda p, x: network(jnp.tanh)(p, (x - 0.5) / 0.25), params, x, y,
    eps=0.1, **FEW,
  )  # fmt: skip
  given = audit(
    network(jnp.tanh), params, x, y, eps=0.1, mean=0.5, std=[0.25], **FEW
  )
  assert given.rows == whole.rows
  plain = audit(network(jnp.tanh), params, x, y, eps=0.1, **FEW)
  assert given.rows != plain.rows


@pytest.mark.parametrize('shape', [(-1,), (-1, 1)])
def test_the_sign_of_a_single_logit_is_its_class(problem, shape):
  params, x, _ = problem
  first = lambda p, x: network(jnp.tanh)(p, x)[0][:, 0]
  middle = float(jnp.median(first(params, x)))
  one = lambda p, x: (first(p, x) - middle).reshape(shape)
  z = one(params, x).ravel()
  y = np.asarray(z > 0).astype(int)
  assert 0 < y.sum() < 12
  result = audit(one, params, x, y, eps=0.1, **FEW)
  assert result.rows[0]['n'] == 12  # all are labelled rightly
  two = lambda p, x: jnp.stack([-(z := one(p, x).ravel()) / 2, z / 2], -1)
  assert result.rows == audit(two, params, x, y, eps=0.1, **FEW).rows


def test_running_statistics_among_the_parameters_are_named(problem):
  params, x, y = problem
  whole = {'params': params, 'batch_stats': {'norm': {'mean': jnp.zeros(3)}}}
  apply_fn = lambda v, x: network(jnp.tanh)(v['params'], x)
  with pytest.warns(UserWarning, match=r'batch_stats.*norm.*mean'):
    audit(apply_fn, whole, x, y, eps=0.0, **FEW)


def test_the_truth_where_known_is_compared_with_the_map(problem):
  mask = np.zeros((12, 8, 8), bool)
  mask[:, :4] = True
  result = audit(network(jnp.tanh), *problem, eps=0.0, mask=mask, **FEW)
  share = result.rows[0]['faithfulness']['mask_mass']['mean']
  assert 0.3 < share < 0.7


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'x': lambda x: x + 2}, 'x='),
    ({'x': lambda x: np.full_like(x, np.nan)}, 'finite'),
    ({'x': lambda x: x[..., 0]}, 'x.shape'),
    ({'layout': 'HWC'}, 'layout='),
    ({'std': 0.0}, 'std='),
    ({'mean': [0.1, 0.2]}, 'mean='),
    ({'y': lambda y: y + 3}, 'labels < 3'),
    ({'y': lambda y: y[:3]}, 'y.shape'),
    ({'attributions': ('gradeint',)}, 'gradient'),
    ({'objectives': ('target_map',)}, 'attacks'),
    ({'k': 2.0}, 'k='),
    ({'eps': -1.0}, 'eps='),
    ({'eps': 8.0}, '8/255'),
    ({'eps': 9.0, 'norm': 'l2'}, '8/255'),
    ({'similarities': ('sim',)}, "did you mean 'ssim'"),
    ({'y': lambda y: y.astype(float)}, 'y.dtype'),
    ({'norm': 'l3'}, 'norm='),
    ({'steps': 0}, 'steps='),
    ({'batch_size': 0}, 'batch_size='),
    ({'memory_gb': 0.0}, 'memory_gb='),
  ],
)
def test_bad_input_is_one_line_with_its_name(problem, change, message):
  params, x, y = problem
  given = FEW | {'eps': 0.1, 'x': x, 'y': y}
  given |= {k: v(given[k]) if callable(v) else v for k, v in change.items()}
  with pytest.raises(errors.InputError, match=message) as refused:
    audit(network(jnp.tanh), params, given.pop('x'), given.pop('y'), **given)
  assert '\n' not in str(refused.value)


def test_logits_alone_lists_and_uint8_are_taken(problem):
  params, x, y = problem
  given = FEW | {'eps': 0.1}
  levels = np.rint(255 * x).astype(np.uint8)
  plain = audit(network(jnp.tanh), params, levels / np.float32(255), y, **given)
  alone = lambda params, x: network(jnp.tanh)(params, x)[0]
  labels = [int(label) for label in y]
  taken = audit(alone, params, levels, labels, **given)
  assert taken.rows == plain.rows
  assert 'uint8 were divided by 255' in str(taken)
  assert 'uint8' not in str(plain)


@pytest.mark.parametrize('images', ['float32', 'bfloat16'])
def test_a_bfloat16_network_is_attacked_and_explained_in_float32(
  problem, images
):
  params, x, y = problem
  half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
  seen = set()

  def apply_fn(params, x):
    seen.add(str(x.dtype))
    return network(jnp.tanh)(params, x.astype(jnp.bfloat16))[0]

  wide = audit(network(jnp.tanh), params, x, y, eps=0.1, **FEW)
  result = audit(apply_fn, half, x.astype(images), y, eps=0.1, **FEW)
  assert seen == {images}
  assert (images in str(result)) == (images != 'float32')
  given = result.arrays['images'].astype(np.float32)
  for name in ('map/gradient/clean', 'adv/gradient/border'):
    assert result.arrays[name].dtype == np.float32
  moved = result.arrays['adv/gradient/border'] - given
  assert 0.09 < np.abs(moved).max() <= 0.1 + 1e-6
  # Two digits less in the network: another walk, no other finding.
  for row, like in zip(result.rows, wide.rows, strict=True):
    left, usual = (r['metrics']['topk']['mean'] for r in (row, like))
    assert abs(left - usual) < 0.15


@pytest.mark.parametrize(
  ('shape', 'kind'), [((5, 8, 2), 'float32'), ((9, 4, 4), 'float16')]
)
def test_images_of_any_sides_and_two_or_four_channels(shape, kind):
  draw = np.random.default_rng(2)
  n = int(np.prod(shape))
  params = {
    'w': jnp.array(draw.normal(size=(n, 16)), jnp.float32),
    'v': jnp.array(draw.normal(size=(16, 3)), jnp.float32),
  }
  x = draw.random((3, *shape), np.float32).astype(kind)
  y = np.asarray(jnp.argmax(network(jnp.tanh)(params, x)[0], -1))
  result = audit(network(jnp.tanh), params, x, y, eps=0.1, **FEW)
  assert result.arrays['map/gradient/border'].shape == x.shape
  assert result.arrays['map/gradient/border'].dtype == np.float32
  assert [row['n'] for row in result.rows] == [3, 3]


def test_memory_of_an_image_is_every_intermediate_and_no_parameter(problem):
  params, *_ = problem
  bytes_of = lambda fun: memory.of_an_image(fun, params, (8, 8, 1), jnp.float32)
  numbers = 64 + 16 + 16 + 3  # flat, h, tanh(h), logits
  assert bytes_of(network(jnp.tanh)) == 4 * numbers
  assert bytes_of(jax.jit(network(jnp.tanh))) == 4 * numbers
  half = lambda p, x: network(jnp.tanh)(jax.tree.map(jnp.bfloat16, p), x)
  assert bytes_of(half) == 4 * numbers
  loop = lambda p, x: jax.lax.fori_loop(0, 7, lambda _, z: jnp.sin(z), x)
  assert bytes_of(loop) == pytest.approx(7 * 4 * 64, rel=0.01)


def test_images_at_a_time_follow_from_the_memory_and_change_no_number(problem):
  given = {**FEW, 'attributions': ('integrated_gradients',)}
  given = {**given, 'batch_size': None, 'steps': 2, 'eps': 0.1}
  one = 4 * (64 + 16 + 16 + 3)
  whole = audit(network(jnp.tanh), *problem, **given)
  assert whole.settings['batch_size'] == 12
  assert 'chunk' not in whole.settings['options']['integrated_gradients']
  parts = audit(
    network(jnp.tanh), *problem, memory_gb=2 * one * 10 / 1e9, **given
  )
  # Ten would leave two for a second turn: six and six.
  assert parts.settings['batch_size'] == 6
  assert parts.settings['options']['integrated_gradients']['chunk'] == 1
  for name, a in whole.arrays.items():  # the first batch of both draws alike
    if name.startswith(('map', 'score')):
      np.testing.assert_allclose(
        parts.arrays[name][:6], a[:6], rtol=1e-3, atol=1e-4, err_msg=name
      )


def test_maps_with_a_nan_are_counted_shown_and_warned_of(problem):
  params, x, y = problem

  def apply_fn(params, x):
    logits, out = network(jnp.tanh)(params, x)
    broken = x[:, 0, 0] > 0.99
    return logits * jnp.where(broken, jnp.nan, 1.0), out

  x = np.minimum(x, 0.5)
  x[4, 0, 0] = 1.0
  y = np.asarray(jnp.argmax(network(jnp.tanh)(params, x)[0], -1))
  with pytest.warns(UserWarning, match=r'a NaN .* gradient \(1 images\)'):
    result = audit(apply_fn, params, x, y, eps=0.1, **FEW)
  for row in result.rows:
    assert row['n_nan'] == 1
    assert row['metrics']['topk']['n'] == 11
  head, attack, _ = str(result).splitlines()
  assert 'nan' in head.split() and '  1  ' in attack


def test_the_table_tells_one_pixel_from_all_of_them(problem):
  given = FEW | {'eps': 0.1, 'steps': 1, 'objectives': ('topk',)}
  one = audit(network(jnp.tanh), *problem, k=1, **given)
  with pytest.warns(UserWarning, match='no attack gradient'):
    every = audit(network(jnp.tanh), *problem, k=1.0, **given)
  assert 'Top-k kept (1 pixel)' in str(one)
  assert 'Top-k kept (all pixels)' in str(every)
  for row in every.rows:
    assert row['metrics']['topk']['mean'] == 1
  scores = one.arrays['score/gradient/random_sign/topk']
  assert set(scores) == {0.0, 1.0}


def test_further_similarities_are_columns_of_the_table(problem):
  result = audit(
    network(jnp.tanh), *problem, eps=0.0, similarities=('ssim',), **FEW
  )
  assert result.rows[0]['metrics']['ssim'] == pytest.approx(
    {'mean': 1, 'low': 1, 'high': 1, 'n': 12}, rel=1e-5
  )
  assert 'SSIM' in str(result)


def test_a_dead_network_has_no_robustness_to_report(problem):
  params, x, _ = problem
  dead = jax.tree.map(jnp.zeros_like, params)
  with pytest.warns(UserWarning, match='no attack gradient'):
    result = audit(
      network(jnp.tanh), dead, x, np.zeros(12, int), eps=0.1, **FEW
    )
  for row in result.rows:
    assert row['n'] == row['n_undefined'] == 12
    for name in ('cosine', 'pearson'):
      value = row['metrics'][name]
      assert value == {'mean': None, 'low': None, 'high': None, 'n': 0}, name
  assert 'undefined' in str(result)


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_under_x64_the_numbers_are_those_of_float32_to_rounding(
  problem, x64, kind
):
  params, x, y = problem
  params = jax.tree.map(lambda p: p.astype(kind), params)
  result = audit(
    network(jnp.tanh), params, x.astype(kind), y.astype(np.int64), eps=0.0,
    similarities=('ssim', 'lens_recall'), **FEW,
  )  # fmt: skip
  assert result.arrays['map/gradient/clean'].dtype == kind
  for row in result.rows:
    assert row['n'] == 12
    for value in row['metrics'].values():
      np.testing.assert_allclose(value['mean'], 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('config', ['digits_cnn', 'digits_vit'])
def test_the_main_job_runs_under_x64(config, tmp_path):
  options = {
    'curvature': 64, 'sanity': True, 'certificates': True,
    'similarities': "('ssim','lens_recall')",
  }  # fmt: skip
  done = subprocess.run(
    [
      sys.executable, '-m', 'implicit_attr.main',
      f'--config=configs/{config}.py:smoke', f'--workdir={tmp_path}',
      *(f'--config.evaluation.{name}={v}' for name, v in options.items()),
    ],
    env=os.environ | {'JAX_ENABLE_X64': '1', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'report.html').exists()
