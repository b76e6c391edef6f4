"""Are tracked numbers those of a dense Hessian, at the cadence asked for?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import losses, models, probes, train
from implicit_attr.configs import digits_mlp
from implicit_attr.train import experiment
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.tracking import Tracker
from implicit_attr.train.whole import Whole


def tiny(**track):
  config = digits_mlp.get_config('smoke')
  config.model.widths = (6,)
  config.track.update(track)
  return experiment.build(config.to_dict())


@pytest.fixture(scope='module')
def measured():
  """Probes of a small network in float64, beside its dense Hessians."""
  with jax.enable_x64(True):
    module = models.build(
      'mlp', widths=(6,), num_classes=3, activation='softplus', beta=3.0,
      mean=0.2, std=0.5,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    x = jnp.array(draw.random((5, 3, 3, 1)))
    batch = {'image': x, 'label': jnp.array([0, 1, 2, 2, 1])}
    params = module.init(jax.random.key(0), x)['params']
    params = jax.tree.map(
      lambda p: p.astype(float) + 0.3 * draw.standard_normal(p.shape), params
    )
    apply_fn, loss = train.frozen(module, {}), losses.make('cross_entropy')
    flat, unravel = ravel_pytree(params)
    mean = lambda t: jnp.mean(loss(apply_fn(unravel(t), x)[0], batch['label']))
    hessian = jax.jit(jax.hessian(mean))(flat)
    noise = jax.tree.map(lambda p: jnp.array(draw.random(p.shape)), params)
    key = jax.random.key(1)

    @jax.jit
    def probe(params):
      network = apply_fn, loss, params, batch
      parameter, vector = probes.parameter_curvature(
        *network, noise, key, order=30, tol=1e-9, draws=200
      )
      of_input, product = probes.input_curvature(
        *network, key, order=9, tol=1e-12
      )
      found = {
        **parameter,
        **of_input,
        **probes.alignment(
          product, params, batch, key,
          lambda_max=parameter['param/lambda_max'],
          scale=2.0, order=9, tol=1e-12,
        ),
        **probes.confounders(apply_fn, params, batch),
        'norms': probes.gradient_norms(*network),
      }  # fmt: skip
      return found, vector

    found, vector = probe(params)
    one = lambda i: (x[i : i + 1], batch['label'][i : i + 1])

    def dense(fun):
      grads = [jax.grad(lambda x, i=i: fun(x, i))(one(i)[0]) for i in range(5)]
      hessians = [
        jax.hessian(lambda x, i=i: fun(x, i))(one(i)[0]).reshape(9, 9)
        for i in range(5)
      ]
      return np.array(grads).reshape(5, 9), np.array(hessians)

    logits = lambda x: apply_fn(params, x)[0]
    predicted = np.argmax(logits(x), axis=1)
    assert (predicted != batch['label']).any()  # else it cannot be told apart
    exact = {
      'theta': np.array(hessian),
      'vector': np.array(ravel_pytree(vector)[0]),
      'input': dense(lambda x, i: logits(x)[0, predicted[i]]),
      'input_loss': dense(lambda x, i: loss(logits(x), one(i)[1])[0]),
      'w1': np.array(params['first']['kernel']).reshape(9, 6),
      'logits': np.array(logits(x)),
    }
    return jax.device_get(found), exact


def test_parameter_curvature_is_that_of_the_dense_hessian(measured):
  found, exact = measured
  values, vectors = np.linalg.eigh(exact['theta'])
  np.testing.assert_allclose(found['param/lambda_max'], values[-1], rtol=1e-9)
  assert abs(exact['vector'] @ vectors[:, -1]) > 1 - 1e-9
  error = abs(found['param/trace'] - np.trace(exact['theta']))
  assert error < 4 * found['param/trace_se']


@pytest.mark.parametrize('name', ['input', 'input_loss'])
def test_input_curvature_is_that_of_dense_hessians_of_the_predicted_class(
  measured, name
):
  found, exact = measured
  gradients, hessians = exact[name]
  norms = np.linalg.norm(gradients, axis=1)
  values = np.linalg.eigvalsh(hessians)
  signed = np.array([v[np.argmax(np.abs(v))] for v in values])
  close = lambda key, want: np.testing.assert_allclose(
    found[f'{name}/{key}'], want, rtol=1e-8
  )
  close('grad_norm', norms)
  cheap = found['norms'][f'{name}/grad_norm']
  np.testing.assert_allclose(cheap, norms, rtol=1e-8)
  close('lambda_signed', signed)
  close('lambda_max', np.abs(signed))
  close('normalized_curvature', np.abs(signed) / norms)


def test_the_first_layer_bound_holds_and_its_sides_are_exact(measured):
  found, exact = measured
  mean = exact['input_loss'][1].mean(0)
  left = np.linalg.eigvalsh(mean)[-1]
  top = np.linalg.eigvalsh(exact['theta'])[-1]
  right = (2 * np.linalg.norm(exact['w1'], 2)) ** 2 * top
  np.testing.assert_allclose(found['align/mean_input_lambda'], left, rtol=1e-8)
  np.testing.assert_allclose(found['align/w1_sq_lambda'], right, rtol=1e-8)
  assert found['align/slack'] == pytest.approx(right - left) and right > left


def test_confounders_are_their_definitions(measured):
  found, exact = measured
  logits, labels = exact['logits'], [0, 1, 2, 2, 1]
  np.testing.assert_allclose(found['logit/scale'], logits.std(1), rtol=1e-9)
  margins = [
    z[y] - np.delete(z, y).max() for z, y in zip(logits, labels, strict=True)
  ]
  np.testing.assert_allclose(found['logit/margin'], margins, rtol=1e-9)
  np.testing.assert_allclose(
    found['param/w1_norm'], np.linalg.norm(exact['w1'], 2), rtol=1e-9
  )


def test_cheap_and_dense_measure_the_same_lambda_and_keep_to_their_cadence(
  tmp_path,
):
  built = tiny(every='10 steps', cheap_every='5 steps', order=30, tol=1e-5)
  tracker = Tracker(Lanes.of([built]), [tmp_path])
  state = built.init()

  def measured(step, memory, milestone=False):
    active, met = np.array([True]), np.array([milestone])
    (record,), memory = tracker(step, state, memory, active, met)
    return record, memory

  dense, memory = measured(0, tracker.memory(state.params))
  cheap, _ = measured(5, memory)
  assert measured(7, memory)[0] == {}
  assert measured(7, memory, milestone=True)[0]
  assert cheap['param/lambda_max'] == pytest.approx(
    dense['param/lambda_max'], rel=1e-4
  )
  assert set(cheap) < set(dense) and 'param/trace' not in cheap
  assert sorted(p.name for p in (tmp_path / 'probes').iterdir()) == [
    '00000000.npz', '00000007.npz',
  ]  # fmt: skip


def test_lambda_of_the_whole_set_is_that_of_the_dense_hessian(tmp_path):
  built = tiny(every='10 steps', whole=10**6, order=40, tol=1e-6)
  state = built.init()
  one = Lanes.of([built])
  memory = Tracker.memory(state.params)
  due = np.bool_(True)
  found = [
    float(Whole(one, size)(due, state, memory)['param/train_lambda_max'])
    for size in (100, 256)  # neither divides the set: both have a filling
  ]
  assert len(built.train_set) % 100 and len(built.train_set) % 256
  with jax.enable_x64(True):
    batch = built.train_set.examples(np.arange(len(built.train_set)))
    params = jax.tree.map(lambda p: jnp.asarray(p, float), state.params)
    flat, unravel = ravel_pytree(params)
    apply_fn, x = train.frozen(built.module, {}), jnp.asarray(batch['image'])
    mean = lambda t: jnp.mean(
      built.loss(apply_fn(unravel(t), x.astype(float))[0], batch['label'])
    )
    top = np.linalg.eigvalsh(np.array(jax.jit(jax.hessian(mean))(flat)))[-1]
  np.testing.assert_allclose(found, top, rtol=1e-5)
  np.testing.assert_allclose(found[0], found[1], rtol=2e-6)


def test_the_whole_set_stands_beside_milestones_and_the_end_in_all_lanes(
  tmp_path,
):
  config = digits_mlp.get_config('smoke')
  config.model.widths = (6,)
  # Order and tolerance at which neither the start nor the cut can be seen.
  config.track.update({'every': '10 steps', 'order': 40, 'tol': 1e-5})
  config.track.update({'whole': 500})
  configs = [{**config.to_dict(), 'seed': seed} for seed in (0, 1)]
  several = [experiment.build(c) for c in configs]
  lanes = Lanes.of(several)
  tracker = Tracker(lanes, [tmp_path / '0', tmp_path / '1'])
  states = lanes.init()
  memory = lanes.stack([tracker.memory(e.like().params) for e in several])
  total, active = lanes.template.total, np.array([True, True])
  met = np.array([False, True])
  rows, after = tracker(7, states, memory, active, met)
  assert rows[0] == {} and 'param/train_lambda_max' in rows[1]
  assert rows[1]['param/train_lambda_ratio'] == pytest.approx(
    rows[1]['param/train_lambda_max'] / rows[1]['param/lambda_max']
  )
  rows, _ = tracker(10, states, after, active, ~active)
  assert not any('param/train_lambda_max' in row for row in rows)
  rows, _ = tracker(total, states, after, active, ~active)
  for i, e in enumerate(several):
    state = jax.device_get(lanes.take(states, i))
    start = Tracker.memory(state.params)
    alone = Whole(Lanes.of([e]))(np.bool_(True), state, start)
    assert rows[i]['param/train_lambda_max'] == pytest.approx(
      float(alone['param/train_lambda_max']), rel=1e-4
    )
