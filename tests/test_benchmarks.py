"""The benchmark for a GPU runs at tiny sizes, and counts and judges rightly."""

import json
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import curvature, turns
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import measure, report
from implicit_attr.models import conv

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """(what is printed, the JSON file) of all parts."""
  out = tmp_path_factory.mktemp('gpu') / 'gpu.json'
  command = [sys.executable, '-m', 'benchmarks.gpu', '--small', '--out', out]
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=True
  )
  return done.stdout, json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize('part', gpu.LIMITS)
def test_every_part_runs_at_tiny_sizes(part, small):
  text, result = small
  part_of, rows = result['parts'][part], result['parts'][part]['rows']
  assert part_of['ended'] == 'all rows' and rows
  assert f'\n{part}: all rows' in text
  assert not [row for row in rows if 'failed' in row]
  for row in rows:
    if row['name'].startswith('ours') and part != 'loop':
      assert len(row['ms']) >= measure.ROUNDS >= 5 or max(row['ms']) > 3000
      assert row['peak_xla'] > 0 and row['bytes'] > 0
      assert np.median(row['ms']) > row['floor_flops_ms'] > 0


def test_limits_are_four_minutes_together():
  assert sum(gpu.LIMITS.values()) <= 240


def product(params, v, x):
  fun = lambda w: jnp.mean(jnp.tanh(x @ w) ** 2)
  return jax.jvp(jax.grad(fun), (params,), (v,))[1]


def test_operations_are_those_that_xla_counts():
  w, x = jnp.ones((64, 64)), jnp.ones((128, 64))
  program = measure.Program(product, w, w, x)
  program(w, w, x)
  cost = program.cost(measure.Way(None, None), None)
  assert cost['flops'] == pytest.approx(cost['xla_flops'], rel=0.1)
  assert cost['floor_flops_ms'] == pytest.approx(1e3 * cost['flops'] / 60e12)
  assert cost['floor_bytes_ms'] == pytest.approx(1e3 * cost['bytes'] / 3e12)


@pytest.mark.parametrize('stride', [1, 2])
def test_all_members_of_a_convolution_are_counted_as_lax_counts(stride):
  x, w = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 5))
  y = jnp.ones((2, *[-(-9 // stride)] * 2, 5))

  def plain(x, w):
    return jax.lax.conv_general_dilated(
      x, w, (stride, stride), 'SAME', dimension_numbers=conv._LAYOUT
    )

  ours = lambda x, w: conv.conv2d(x, w, stride)
  count = lambda fun: measure.operations(jax.make_jaxpr(fun)(x, w).jaxpr)
  forward = count(plain)
  assert count(ours) == forward == 2 * y.size * 27
  for argument in (0, 1):
    transposed = lambda x, w: jax.grad(lambda *a: jnp.sum(ours(*a)), argument)(
      x, w
    )
    jaxpr = jax.make_jaxpr(transposed)(x, w).jaxpr
    live = measure.dce_jaxpr(jaxpr, [True])[0]
    assert measure.operations(live) == forward


def test_loops_are_counted_as_often_as_they_turn():
  w = jnp.ones((8, 8))
  one, step = 2 * 8**3, lambda c, _: (c @ c, None)
  scan = lambda w: jax.lax.scan(step, w, length=7)[0]
  twice = lambda w: jax.lax.scan(step, w, length=8, unroll=2)[0]
  unknown = lambda w, n: jax.lax.fori_loop(0, n, lambda _, c: scan(c), w)
  count = lambda fun, *a, **k: measure.operations(
    jax.make_jaxpr(fun)(*a).jaxpr, **k
  )
  assert count(scan, w) == 7 * one and count(scan, w, once=True) == one
  assert count(twice, w) == 8 * one and count(twice, w, once=True) == 2 * one
  assert count(unknown, w, 3, trips=5) == 35 * one
  assert count(unknown, w, 3, once=True) == one


def test_a_product_costs_what_one_along_any_vector_costs():
  """XLA must not see that the direction is the parameters."""
  losses, at = curvature.problem('mlp', 8, {'widths': (16,)})

  def along(v, params, x, y):
    mean = lambda params: losses(params, x, y).mean()
    return jax.jvp(jax.grad(mean), (params,), (v,))[1]

  def flops(fun, *args):
    return jax.jit(fun).lower(*args).compile().cost_analysis()['flops']

  timed = curvature.ours('product', losses)[0]
  given = jax.random.key(0), np.float32(0), *at, at[0]
  assert flops(timed, *given) == flops(along, at[0], *at)


@pytest.mark.parametrize(
  ('precision', 'wanted'),
  [
    ('float32', jax.lax.Precision.HIGHEST),
    ('TF32', jax.lax.Precision.HIGH),
    ('bfloat16', jax.lax.Precision.DEFAULT),
  ],
)
def test_a_program_has_the_precision_that_its_column_says(precision, wanted):
  program = measure.Program(
    lambda a: a @ a, jnp.ones((4, 4)), precision=precision
  )
  (eqn,) = program._jaxpr.eqns
  given = eqn.params['precision']
  assert (given[0] if isinstance(given, tuple) else given) == wanted


def way(value, calls=None, name='', pause=None):
  def run():
    if calls is not None:
      calls.append(name)
    return value() if callable(value) else value

  return measure.Way(run, np.asarray)


def test_a_time_counts_where_the_value_agrees():
  def broken():
    raise ValueError('no such\nderivative')

  rows = measure.rows(
    'job',
    'float32',
    {
      'ours': way(1.0),
      'near': way(1.0009),
      'far': way(1.0011),
      'broken': way(broken),
    },
    1e-3,
  )
  by_name = {row['name']: row for row in rows}
  assert list(by_name) == ['ours', 'near', 'far', 'broken']
  assert len(by_name['ours']['ms']) == len(by_name['near']['ms']) == 5
  assert 'ms' not in by_name['far'] and by_name['far']['error'] > 1e-3
  assert by_name['broken']['failed'] == 'ValueError: no such'
  text = report.table(
    'part', {'rows': rows, 'machine': {}, 'ended': 'all rows', 'seconds': 1}
  )
  assert 'wrong' in text and 'failed' in text and 'no such' in text


def test_calls_take_turns_after_a_warm_one():
  calls = []
  ways = {name: way(1.0, calls, name) for name in 'ab'}
  measure.rows('job', 'float32', ways, 0)
  assert ''.join(calls) == 'ab' + 'ab' * measure.ROUNDS


def test_who_is_out_of_patience_is_called_once():
  times = turns.interleave({'a': lambda: None}, 5, patience=0)
  assert times['a'].shape == (2, 1)


def test_rows_that_were_there_survive_what_comes_after(tmp_path, monkeypatch):
  def rows(small):
    yield [{'group': 'g'}]
    raise KeyboardInterrupt

  fake = types.SimpleNamespace(rows=rows)
  monkeypatch.setitem(sys.modules, 'benchmarks.gpu.fake', fake)
  with pytest.raises(KeyboardInterrupt):
    gpu.work('fake', False, tmp_path / 'rows')
  _, row = (tmp_path / 'rows').read_text().splitlines()
  assert json.loads(row) == {'group': 'g'}


def test_a_part_that_is_out_of_time_says_so(monkeypatch):
  monkeypatch.setattr(gpu, 'PATIENT', 0.1)
  result = gpu.supervise('attention', small=True)
  assert result['ended'].startswith('out of time') and result['rows'] == []
  assert 'out of time' in report.table('attention', result)


def test_goals_are_read_off_the_rows():
  def row(group, name, ms, precision='float32', **more):
    named = {'group': group, 'precision': precision, 'name': name}
    return named | {'ms': [ms] * 5, **more}

  rows = {
    'step': [
      row('vit', 'ours', 1.0, 'TF32'), row('vit', 'PyTorch', 1.5, 'TF32'),
      row('vit, compiled', 'ours', 1.1, 'TF32'),
      row('vit, compiled', 'torch.compile', 1.1, 'TF32'),
    ],
    'curvature': [
      row('mlp, gradient', 'ours', 1.0), row('mlp, product', 'ours', 2.0),
      row('mlp, product', 'PyHessian', 0.1),
      row('mlp, product', 'torch.func', 3.0),
      row('mlp, lambda_max', 'ours', 4.0),
      row('mlp, lambda_max', 'ours, coarse', 2.0),
      row('mlp, lambda_max', 'matfree', 5.0),
    ],
    'attacks': [
      row('gradient, mlp', 'ours', 1.0), row('gradient, mlp', 'loop', 1.9),
      row('gradient, mlp', 'func', 1.1),
    ],
    'attention': [
      row(f'{k}, 16384, backward', 'ours', 1.0, peak_xla=size)
      for k, size in (('softmax', 600), ('linear', 10))
    ],
  }  # fmt: skip
  goals = report.goals({k: {'rows': v} for k, v in rows.items()})
  seen = {row['goal'].split(':')[0]: row['seen'] for row in goals}
  assert seen == pytest.approx({
    'step': 1.1, 'λ_max': 2.5, 'product': 1.5, 'attack': 1.9,
    'product ≤ 2.2 gradients': 2.0, 'memory': 60,
  })  # fmt: skip
  reached = {row['goal'].split(':')[0] for row in goals if row['reached']}
  assert reached == set(seen) - {'step'}
