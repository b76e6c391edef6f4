"""Does an audit measure what an attack does, and refuse what it cannot?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import errors
from implicit_attr.audit import audit

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
  found = audit(network(jnp.tanh), *problem, eps=0.0, **FEW)
  for row in found.rows:
    assert row['n'] == 12
    for value in row['metrics'].values():
      np.testing.assert_allclose(value['mean'], 1, rtol=1e-5)


def test_the_attack_moves_maps_further_than_random_signs_do(problem):
  found = audit(network(jnp.tanh), *problem, eps=0.1, **FEW)
  topk = {row['attack']: row['metrics']['topk']['mean'] for row in found.rows}
  assert topk['topk'] < topk['random_sign'] - 0.05
  assert f'{topk["topk"]:.3f}' in str(found)


def test_piecewise_linear_maps_do_not_move_and_a_smooth_network_mends_it(
  problem,
):
  params, x, y = problem
  relu, smooth = network(jax.nn.relu), lambda params, x, beta: network(
    lambda z: jax.nn.softplus(beta * z) / beta
  )(params, x)  # fmt: skip
  y = np.asarray(jnp.argmax(relu(params, x)[0], -1))
  with pytest.warns(UserWarning, match='smooth_fn='):
    stuck = audit(relu, params, x, y, eps=0.1, **FEW)
  assert stuck.rows[0]['n_stalled'] == 12
  moved = audit(relu, params, x, y, eps=0.1, smooth_fn=smooth, **FEW)
  assert moved.rows[0]['n_stalled'] == 0


def test_the_truth_where_known_is_compared_with_the_map(problem):
  mask = np.zeros((12, 8, 8), bool)
  mask[:, :4] = True
  found = audit(network(jnp.tanh), *problem, eps=0.0, mask=mask, **FEW)
  share = found.rows[0]['faithfulness']['mask_mass']['mean']
  assert 0.3 < share < 0.7


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'x': lambda x: x + 2}, 'x='),
    ({'x': lambda x: np.full_like(x, np.nan)}, 'finite'),
    ({'x': lambda x: x[..., 0]}, 'x.shape'),
    ({'y': lambda y: y + 3}, 'labels < 3'),
    ({'y': lambda y: y[:3]}, 'y.shape'),
    ({'attributions': ('gradeint',)}, 'gradient'),
    ({'objectives': ('target_map',)}, 'attacks'),
    ({'k': 2.0}, 'k='),
    ({'eps': -1.0}, 'eps='),
    ({'norm': 'l3'}, 'norm='),
    ({'steps': 0}, 'steps='),
  ],
)
def test_bad_input_is_one_line_with_its_name(problem, change, message):
  params, x, y = problem
  given = FEW | {'eps': 0.1, 'x': x, 'y': y}
  given |= {k: v(given[k]) if callable(v) else v for k, v in change.items()}
  with pytest.raises(errors.InputError, match=message) as refused:
    audit(network(jnp.tanh), params, given.pop('x'), given.pop('y'), **given)
  assert '\n' not in str(refused.value)
