"""Does every statement of the theory hold, and would a wrong one be seen?"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import theory
from implicit_attr.errors import InputError
from implicit_attr.theory import (
  check,
  first_layer,
  invariance,
  kernels,
  maps,
  softmax,
  stability,
  transfer,
  weight_sharing,
)
from implicit_attr.theory import (
  small_networks as nets,
)

ABOUT = ('edge_of_stability', 'implicit_gradient_regularisation',
         'flat_kernel_limit')  # fmt: skip
"""Checks of a limit or an observation, with a tolerance of their own."""


@pytest.fixture(scope='module')
def results():
  """The run of every check that `theory.run` makes, too."""
  key = jax.random.key(0)
  return {name: c.run(key) for name, c in theory.CHECKS.items()}


@pytest.mark.parametrize('name', theory.CHECKS)
def test_a_check_holds(results, name):
  assert results[name].holds, results[name]


def test_identities_are_met_to_1e_10(results):
  for name, c in theory.CHECKS.items():
    if c.relation == '==' and name not in ABOUT:
      assert c.tol <= 1e-10 and results[name].slack >= -1e-10, name


def test_bounds_are_drawn_a_thousand_times(results):
  few = {n for n, r in results.items() if r.draws < 1000}
  assert few == {
    'edge_of_stability', 'implicit_gradient_regularisation',
    'integrated_gradients_complete', 'integrated_gradients_lipschitz',
  }  # fmt: skip


def test_no_bound_is_vacuous(results):
  """Draws come near every bound: none of them is slack everywhere."""
  for name, c in theory.CHECKS.items():
    if c.relation == '<=':
      assert results[name].slack < 0.8, name


def test_checks_hold_under_other_keys(results):
  for name, c in theory.CHECKS.items():
    other = c.run(jax.random.key(1))
    assert other.holds, (name, other)
    if name not in ('descent_edge', 'rank_invariance'):  # exact, always
      assert other != results[name], name


def test_the_same_key_gives_the_same_result(results):
  for name in ('input_hessian_bound', 'entropy_floor'):
    again = theory.CHECKS[name].run(jax.random.key(0))
    assert again == results[name]


def test_every_check_says_what_it_is():
  for name, c in theory.CHECKS.items():
    assert name == c.name and c.statement and c.source and c.assumptions
    assert c.relation in check.RELATIONS


def scaled(factor):
  """What a wrong constant makes of a formula."""
  return lambda fun: lambda *args: factor * fun(*args)


BROKEN = {
  'input_gradient_bound': (first_layer, 'gradient_bound', scaled(0.95)),
  'input_hessian_bound': (first_layer, 'hessian_bound', scaled(0.95)),
  'mean_hessian_bound': (first_layer, 'bias_bound', scaled(0.9)),
  'first_layer_gradient': (first_layer, 'outer', scaled(1.001)),
  'position_bound': (weight_sharing, 'bias_bound', scaled(0.99)),
  'trace_bound': (transfer, 'trace_bound', scaled(0.7)),
  'interpolation_bound': (transfer, 'trace_bound', scaled(0.7)),
  'worst_example_bound': (transfer, 'trace_bound', scaled(0.35)),
  'transfer_bound': (transfer, 'spectral', scaled(0.9)),
  'input_hessian_split': (transfer, 'gauss_newton', scaled(1.001)),
  'piecewise_linear_hessian': (transfer, 'gauss_newton', scaled(0.999)),
  'saturated_loss_curvature': (transfer, 'saturation_bound', scaled(0.5)),
  'descent_edge': (stability, 'threshold', scaled(1.05)),
  'heavy_ball_edge': (
    stability,
    'threshold',
    lambda fun: lambda lr, beta: 2 / lr,
  ),
  'sgd_second_moment': (stability, '_spread', scaled(1.001)),
  'sgd_edge': (stability, 'second_moment', scaled(0.99)),
  'gradient_lipschitz': (maps, 'gradient_bound', scaled(0.99)),
  'cosine_bound': (maps, 'cosine_bound', scaled(1.001)),
  'gradient_x_input_lipschitz': (
    maps,
    'gradient_x_input_bound',
    scaled(0.8),
  ),
  'integrated_gradients_lipschitz': (maps, 'path_bound', scaled(0.6)),
  'smoothgrad_lipschitz': (maps, 'smoothing_bound', scaled(0.999)),
  'topk_gap': (maps, 'topk_gap', scaled(0.999)),
  'kendall_gap': (maps, 'topk_gap', scaled(0.999)),
  'softmax_jacobian_above': (softmax, 'entropy', scaled(0.1)),
  'trace_floor': (
    softmax,
    'trace_floor',
    lambda fun: lambda h, tokens: h / np.log(tokens - 1),
  ),
  'entropy_floor': (softmax, 'entropy_floor', scaled(1.001)),
  'entropy_floor_tight': (
    softmax,
    'entropy_floor',
    lambda fun: lambda s, tokens: fun(s, tokens + 1),
  ),
  'spread_floor': (softmax, 'spread_floor', scaled(1.001)),
  'topk_margin_ceiling': (softmax, 'gap_ceiling', scaled(0.9)),
  'uniform_limit': (softmax, 'deficit', scaled(0.5)),
  'aitchison_invariance': (invariance, 'centred_log', lambda fun: np.log),
  'flatness_gate': (invariance, 'spectral', scaled(0.8)),
  'rank_invariance': (nets, 'softmax', lambda fun: lambda z: np.cos(z)),
  'homogeneous_kernels': (kernels, 'DEGREES', lambda d: {'relu': 2}),
  'flat_kernel_limit': (kernels, 'flat_row', scaled(1.0001)),
  'kernel_entropy_floor': (kernels, 'elu1_spread', scaled(0.8)),
  'rollout_contraction': (
    kernels,
    'contraction',
    lambda fun: lambda m: np.sqrt(fun(m)) + 0.5,
  ),
}


@pytest.mark.parametrize('name', BROKEN)
def test_a_wrong_formula_turns_its_check_red(monkeypatch, name):
  module, attribute, spoil = BROKEN[name]
  monkeypatch.setattr(module, attribute, spoil(getattr(module, attribute)))
  assert not theory.CHECKS[name].run(jax.random.key(0)).holds


def test_a_check_of_your_own_runs_as_the_docs_show():
  page = pathlib.Path(__file__).parent.parent / 'docs' / 'theory.md'
  code = page.read_text().split('## Adding a check')[1].split('```python')[1]
  body, call = code.split('```')[0].split('\nCheck(')
  names = {'np': np, 'DRAWS': check.DRAWS, 'Check': theory.Check}
  exec(body, names)
  found = eval('Check(' + call.strip(), names).run(jax.random.key(0))
  assert found.holds and found.draws == 1000


def test_a_formula_that_holds_is_no_counterexample():
  c = theory.CHECKS['weight_sharing_counterexample']
  other = dataclasses.replace(
    theory.CHECKS['input_gradient_bound'], relation='>', tol=c.tol
  )
  assert not other.run(jax.random.key(0)).holds


def test_derivatives_are_those_of_differences(results):
  """The one program that all network checks lean on, against differences."""
  seed = np.asarray(jax.random.key_data(jax.random.key(0))).ravel()
  drawn, found = nets.facts(np.random.default_rng(seed))
  layers = [{k: v[0] for k, v in layer.items()} for layer in drawn.layers]

  def loss(x):
    h = x
    for i, layer in enumerate(layers):
      h = np.tanh(h) if i else h
      h = layer['kernel'] @ h + layer['bias']
    return np.log(np.exp(h).sum()) - h[drawn.y[0, 0]]

  x, step, n = drawn.x[0, 0], 1e-4, 4
  e = step * np.eye(n)
  grad = [(loss(x + d) - loss(x - d)) / (2 * step) for d in e]
  hess = [
    [
      (loss(x + a + b) - loss(x + a - b) - loss(x - a + b) + loss(x - a - b))
      / (4 * step**2)
      for a in e
    ]
    for b in e
  ]
  np.testing.assert_allclose(found.grad_x[0, 0], grad, rtol=1e-6, atol=1e-8)
  np.testing.assert_allclose(found.hess_x[0, 0], hess, rtol=1e-5, atol=1e-6)


def test_judge_takes_the_worst_draw():
  found = check.judge([1.0, 2.0, 3.0], [2.0, 2.5, 3.1], '<=', 1e-10)
  assert found.holds and (found.lhs, found.rhs, found.draws) == (3.0, 3.1, 3)
  np.testing.assert_allclose(found.slack, 0.1 / 3.1)
  np.testing.assert_allclose(found.typical, 0.5 / 2.5)
  assert not check.judge([1.0, 2.0], [2.0, 1.9], '<=', 0.01).holds
  assert check.judge([1.0, 2.0], [2.0, 1.99], '<=', 0.01).holds
  assert not check.judge([2.0, 1.0], [1.0, 0.95], '>', 0.1).holds
  assert check.judge([[0.0, 1e6]], [[1e-9, 1e6]], '==', 1e-10).holds
  assert not check.judge([[0.0], [1e6]], [[1e-9], [1e6]], '==', 1e-10).holds


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_hold(bad):
  for relation in check.RELATIONS:
    assert not check.judge([1.0, bad], [1.0, bad], relation, 1e-10).holds
  assert not check.judge([1.0], [np.inf], '<=', 1e-10).holds


def test_judge_refuses_sides_that_do_not_fit():
  with pytest.raises(InputError, match='of the shape of lhs'):
    check.judge(np.ones(3), np.ones(2), '<=', 0)
  with pytest.raises(InputError, match="relation='<'"):
    check.judge(np.ones(3), np.ones(3), '<', 0)


def test_run_prints_and_writes_the_table(results, tmp_path):
  text = theory.run(tmp_path / 'new')
  lines = text.splitlines()
  assert len(lines) == len(theory.CHECKS) + 2
  assert lines[-1].startswith(f'{len(theory.CHECKS)} of {len(theory.CHECKS)}')
  rows = json.loads((tmp_path / 'new' / 'theory.json').read_text())
  assert [row['name'] for row in rows] == list(theory.CHECKS)
  for row in rows:
    assert row['holds'] is True and row['slack'] == results[row['name']].slack
    assert row['statement'] in text


def mlp(params, x):
  h = 2.5 * (x.reshape(len(x), -1) - 0.3)
  h = jax.nn.softplus(
    h @ params['first']['kernel'] + params['first']['bias'][None]
  )
  return h @ params['out']['kernel'], {'features': h}


def attend(params, x):
  tokens = x.reshape(len(x), 4, 2)
  z = tokens @ params['w'] @ tokens.mT
  a = jax.nn.softmax(params['c'] * z)
  return (a @ tokens).reshape(len(x), -1) @ params['out'], {
    'attention': (a[:, None],)
  }


@pytest.fixture(scope='module')
def data():
  a, b = jax.random.split(jax.random.key(3))
  x = jax.random.uniform(a, (3, 2, 4, 1))
  normal = lambda i, *shape: jax.random.normal(jax.random.fold_in(b, i), shape)
  dense = {
    'first': {'kernel': normal(0, 8, 5), 'bias': normal(1, 5)},
    'out': {'kernel': normal(2, 5, 3)},
  }
  row = {'w': normal(3, 2, 2), 'c': jnp.array(2.0), 'out': normal(4, 8, 3)}
  return x, jnp.array([0, 1, 2]), dense, row


def test_run_on_a_network_with_a_dense_first_layer(data, tmp_path):
  x, y, params, _ = data
  text = theory.run_on(mlp, params, x, y, scale=2.5, workdir=tmp_path)
  rows = json.loads((tmp_path / 'theory_network.json').read_text())
  names = [row['name'] for row in rows]
  assert names == [
    'input_hessian_split', 'gradient_lipschitz', 'gradient_x_input_lipschitz',
    'topk_gap', 'first_layer_gradient', 'input_gradient_bound',
    'mean_hessian_bound',
  ]  # fmt: skip
  assert all(row['holds'] for row in rows), text
  assert '7 of 7 hold' in text
  sure = {**params, 'out': {'kernel': 9 * params['out']['kernel']}}
  text = theory.run_on(mlp, sure, x, y, scale=2.5)
  assert '7 of 7 hold' in text, text


def test_run_on_sees_a_first_layer_that_is_another(data):
  """With the wrong scale the identity of the first layer fails."""
  x, y, params, _ = data
  lines = theory.run_on(mlp, params, x, y, scale=1.0).splitlines()
  line = next(a for a in lines if a.startswith('first_layer_gradient'))
  assert line.split()[1] == 'FAIL'


def test_run_on_attention_rows(data):
  x, y, _, params = data
  text = theory.run_on(attend, params, x, y)
  assert 'entropy_floor' in text and 'topk_margin_ceiling' in text
  assert 'first_layer_gradient' not in text
  assert '7 of 7 hold' in text, text


def test_run_on_refuses_more_pixels_than_it_makes_dense(data):
  _, y, params, _ = data
  with pytest.raises(InputError, match=r'pixels=1089 must be .* <= 1024'):
    theory.run_on(mlp, params, jnp.zeros((3, 33, 33, 1)), y)


def test_a_wrong_regulariser_turns_its_check_red(monkeypatch):
  stability._one_step.clear_cache()
  monkeypatch.setattr(stability, 'regulariser', lambda lr, hg: 0.25 * lr * hg)
  assert (
    not theory.CHECKS['implicit_gradient_regularisation']
    .run(jax.random.key(0))
    .holds
  )
  stability._one_step.clear_cache()
