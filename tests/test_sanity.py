"""Do maps that look at the network fail with it, and are others found out?"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, similarity, train
from implicit_attr.configs import digits_mlp
from implicit_attr.evaluation import evaluate, sanity
from implicit_attr.train import experiment
from implicit_attr.train.advance import make_train_step
from implicit_attr.train.lanes import Lanes

MAPS = ('gradient', 'edges')
LAYERS = ['logits', 'dense_1', 'first']


@pytest.fixture(scope='module')
def built():
  config = digits_mlp.get_config('smoke')
  config.model.widths = (8, 6)
  config.evaluation.attributions = MAPS
  config.evaluation.examples = 10  # in chunks of 8
  return experiment.build(config.to_dict())


@pytest.fixture(scope='module')
def tested(built):
  """(state, classes, Sanity, rows, arrays) of an untrained network."""
  state = built.init()
  batch = built.test_batch(10)
  apply_fn = train.frozen(built.module, {})
  classes = np.asarray(apply_fn(state.params, batch['image'])[0].argmax(-1))
  tests = sanity.Sanity(built, evaluate._explain(built))
  return state, classes, tests, *tests(state, classes)


def likeness(built, name, a, b, classes):
  """Spearman of the maps of two weights, by hand."""
  apply_fn, x = train.frozen(built.module, {}), built.test_batch(10)['image']
  maps = [
    similarity.magnitude(attribution.METHODS[name](apply_fn, p, x, classes))
    for p in (a, b)
  ]
  return similarity.spearman(*maps)


def test_each_row_is_the_map_of_a_network_put_together_by_hand(built, tested):
  state, classes, tests, _, arrays = tested
  fresh, layers = sanity.untrained(built)
  assert layers == tests.layers == LAYERS
  assert arrays['sanity/gradient'].shape == (4, 10)
  for row, _ in enumerate(LAYERS):
    gone = LAYERS[: row + 1]
    mixed = {k: (fresh if k in gone else state.params)[k] for k in fresh}
    wanted = likeness(built, 'gradient', state.params, mixed, classes)
    np.testing.assert_allclose(
      arrays['sanity/gradient'][row], wanted, atol=1e-4
    )
  twin = tests._others[1]
  wanted = likeness(built, 'gradient', state.params, twin, classes)
  np.testing.assert_allclose(arrays['sanity/gradient'][-1], wanted, atol=1e-4)


def test_a_map_that_ignores_the_network_passes_none_and_gradients_do(tested):
  rows = tested[3]
  last = {
    r['attribution']: r['spearman']['mean']
    for r in rows
    if r.get('replaced') == 'first'
  }
  assert last['edges'] == pytest.approx(1, abs=1e-5)
  assert last['gradient'] < 0.8


def test_every_number_has_its_n_and_interval(built, tested):
  _, classes, tests, rows, arrays = tested
  right = classes == built.test_batch(10)['label']
  assert len(rows) == len(MAPS) * (len(LAYERS) + 1)
  for row in rows:
    assert row['n'] == row['spearman']['n'] + row['n_undefined'] == right.sum()
    assert row['spearman']['low'] <= row['spearman']['high']
  assert [r['fitted'] for r in rows if r['test'] == 'labels'] == [
    tests.fitted
  ] * 2
  mean = arrays['sanity/gradient'][0][right].mean()
  assert rows[0]['spearman']['mean'] == pytest.approx(mean)
  json.dumps(rows)


def test_labels_of_the_twin_tell_nothing_of_the_class(built):
  twin = experiment.build(sanity.random_labels(built))
  n = len(built.train_set)
  ours, theirs = (
    e.train_set.examples(np.arange(n))['label'] for e in (built, twin)
  )
  counts = np.histogram2d(ours, theirs, bins=10)[0]
  assert np.trace(counts) / n == pytest.approx(0.1, abs=1 / n)
  share = counts / counts.sum(1, keepdims=True)
  assert np.abs(share - 0.1).max() < 4 * np.sqrt(0.09 / counts.sum(1).min())


def test_a_twin_is_trained_as_a_run_of_its_config_is(built):
  state, fitted = sanity.trained(built)
  lanes = Lanes.of([built])
  step = jax.jit(make_train_step(built))
  wanted, right = lanes.init(), []
  for i in range(built.total):
    batch = built.train_set.batch_at(i)
    wanted, sums = step(
      wanted, batch, built.learning_rates[i], np.uint32(built.settings.seed)
    )
    right.append(float(sums['correct'] / sums['n']))
  assert int(state.step) == built.total == 20
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    state.params, wanted.params,
  )  # fmt: skip
  epoch = built.train_set.steps_per_epoch
  assert fitted == pytest.approx(np.mean(right[-epoch:]), rel=1e-5)


def test_a_map_that_is_not_defined_is_counted(built, tested):
  _, classes, tests, _, _ = tested
  state = built.init()
  dead = jax.tree.map(jnp.zeros_like, state.params)
  rows, _ = tests(train.State(state.step, dead, {}, ()), classes)
  gradient = [r for r in rows if r['attribution'] == 'gradient']
  assert all(r['n_undefined'] == r['n'] for r in gradient)
  assert all(r['spearman']['mean'] is None for r in gradient)
