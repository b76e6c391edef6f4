"""Does the table hold certificates that no attack breaks, and no others?"""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import models, train
from implicit_attr.evaluation import certificates, robustness
from implicit_attr.runtime import dist
from implicit_attr.train.settings import Evaluation, record

SETTINGS = {
  'attributions': ('gradient', 'gradient_x_input'), 'options': {},
  'attacks': ('topk',), 'similarities': (), 'target': 'logit', 'eps': 0.05,
  'norm': 'linf', 'k': 0.2, 'steps': 20, 'restarts': 2, 'batch_size': 8,
}  # fmt: skip


def experiment(settings=(), channels=1, **model):
  """(stand-in for an experiment of random images, its state)."""
  module = models.build(
    model.pop('name', 'mlp'), num_classes=3, mean=0.4, std=0.5, **model
  )
  x = np.random.default_rng(0).random((16, 4, 4, channels), np.float32)
  variables = jax.jit(module.init)(jax.random.key(1), x)
  params = jax.tree.map(lambda p: 20.0 * p, variables['params'])
  if 'first' in params:
    params['first'] = variables['params']['first']
  y = np.asarray(jnp.argmax(module.apply({'params': params}, x)[0], -1))
  batch = {'image': x, 'label': y.astype(np.int32)}
  evaluation = record(Evaluation, '', SETTINGS | dict(settings))
  built = types.SimpleNamespace(
    module=module,
    settings=types.SimpleNamespace(evaluation=evaluation),
    test_batch=lambda n: {name: a[:n] for name, a in batch.items()},
  )
  return built, train.State(jnp.zeros((), int), params, {}, ())


def attacked(built, state):
  """Rows and arrays of the attack."""
  apply_fn = train.frozen(built.module, {})
  attack = robustness.Robustness(
    apply_fn, built.test_batch(16), built.settings.evaluation, dist.mesh()
  )
  rows, arrays = [], {}
  for more, others in attack(state.params):
    rows, arrays = rows + more, arrays | others
  return rows, arrays


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_gradient_x_input_of_one_layer_breaks_just_beyond_its_radius(norm):
  built, state = experiment({'norm': norm}, widths=())
  x = built.test_batch(16)['image']
  y = built.test_batch(16)['label']
  radius = certificates.radius(built, state, 'gradient_x_input', x, y)
  slope = np.asarray(state.params['logits']['kernel'], float)[:, y].T / 0.5
  assert np.all(radius > 0)
  for w, image, mine in zip(slope, x.reshape(16, -1), radius, strict=True):
    phi = w * image
    inside = np.abs(phi) >= np.sort(np.abs(phi))[-3]
    steps = []  # the shortest to |φ_i| = |φ_j|: along or against the two
    for i in np.flatnonzero(inside):
      for j in np.flatnonzero(~inside):
        gap = abs(phi[i]) - abs(phi[j])
        size = abs(w[i]) + abs(w[j])
        steps.append(gap / (size if norm == 'linf' else np.hypot(w[i], w[j])))
    assert min(mine, 1) == pytest.approx(min(min(steps), 1), rel=1e-6)


def test_a_gradient_that_cannot_move_is_certified_in_the_whole_box():
  for norm, most in (('linf', 1), ('l2', 4)):
    built, state = experiment({'norm': norm}, widths=())
    batch = built.test_batch(16)
    args = 'gradient', batch['image'], batch['label']
    assert np.all(certificates.radius(built, state, *args) == most)


def test_certified_is_at_most_unbroken_and_both_stand_in_every_row():
  """Slopes of one layer certify some images, and the attack breaks others."""
  built, state = experiment(widths=())
  rows, arrays = attacked(built, state)
  rows, arrays = certificates.beside(built, state, rows, arrays)
  radius = arrays['certificate/gradient_x_input']
  kept = arrays['score/gradient_x_input/topk/topk'] == 1
  assert np.all(kept[radius > 0.05])
  row = next(r for r in rows if r['attribution'] == 'gradient_x_input')
  found = row['certificate']
  assert found['radius']['mean'] == pytest.approx(radius.mean())
  assert 0 < found['certified']['mean'] <= found['unbroken']['mean'] < 1
  for row in rows:
    for value in row['certificate'].values():
      assert value['n'] == row['n'] and value['low'] <= value['high']
  json.dumps(rows)


def test_no_attack_at_its_radius_breaks_the_gradient_of_an_mlp():
  built, state = experiment(widths=(6,), activation='softplus', beta=2.0)
  batch = built.test_batch(16)
  args = 'gradient', batch['image'], batch['label']
  radius = certificates.radius(built, state, *args)
  assert np.all(radius > 0) and radius.dtype == np.float64
  eps = float(np.median(radius))
  change = {'eps': eps, 'attributions': ('gradient',)}
  built.settings.evaluation = record(Evaluation, '', SETTINGS | change)
  _, arrays = attacked(built, state)
  kept = arrays['score/gradient/topk/topk'] == 1
  assert np.all(kept[radius > eps]) and np.any(radius > eps)


@pytest.mark.parametrize(
  ('given', 'reason'),
  [
    ({'name': 'cnn', 'width': 2, 'depth': 1}, 'networks of dense layers'),
    ({'settings': {'target': 'loss'}}, 'the logit as target'),
    ({'channels': 3}, 'one channel'),
    ({'settings': {'k': 1.0}}, 'the whole map'),
    ({'widths': (4,), 'activation': 'relu'}, 'relu has no bounded second'),
    ({'widths': (4,), 'activation': 'tanh'}, 'only the gradient'),
  ],
)
def test_where_no_theorem_applies_the_reason_stands_for_the_number(
  given, reason
):
  built, state = experiment(**given)
  batch = built.test_batch(16)
  name = 'gradient' if 'relu' in reason else 'integrated_gradients'
  args = name, batch['image'], batch['label']
  assert reason in certificates.radius(built, state, *args)


def test_a_map_without_a_certificate_is_absent_from_the_arrays():
  built, state = experiment(widths=(4,), activation='tanh')
  rows, arrays = certificates.beside(built, state, *attacked(built, state))
  assert 'certificate/gradient_x_input' not in arrays
  found = {r['attribution']: r['certificate'] for r in rows}
  assert found['gradient_x_input'] == {'absent': 'only the gradient'}
  assert 'radius' in found['gradient']
