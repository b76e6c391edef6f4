"""Is a step the arithmetic it says: sums over examples, divided once?"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from implicit_attr import errors, keys, losses, models, objectives, train

CLASSES = 3


def setting(**optim):
  module = models.build('mlp', widths=(8,), num_classes=CLASSES)
  tx = train.optimizer(**optim)
  state = train.init(module, tx, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
  make = objectives.make('none', losses.make('cross_entropy'))
  return module, tx, state, train.make_sums(module, make)


def batch(n, seed=0):
  draw = np.random.default_rng(seed)
  return {
    'image': draw.random((n, 4, 4, 1), np.float32),
    'label': draw.integers(0, CLASSES, n).astype(np.int32),
  }


def close(a, b, rtol=1e-12):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14), a, b
  )


def test_sums_of_two_halves_are_the_sums_of_the_whole(x64):
  _, _, state, sums = setting()
  params = jax.tree.map(lambda p: p.astype(float), state.params)
  whole, key = batch(10), jax.random.key(1)
  whole['image'] = whole['image'].astype(float)
  half = lambda s: jax.tree.map(lambda a: a[s], whole)
  parts = [sums(params, {}, half(s), key) for s in (slice(4), slice(4, 10))]
  close(jax.tree.map(jnp.add, *parts), sums(params, {}, whole, key))


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_is_the_written_recursion(nesterov, x64):
  momentum, decay, rates = 0.9, 0.01, (0.1, 0.03, 0.2)
  _, tx, state, sums = setting(
    momentum=momentum, nesterov=nesterov, weight_decay=decay
  )
  update = train.make_update(tx)
  theta, velocity = state.params, jax.tree.map(jnp.zeros_like, state.params)
  for i, lr in enumerate(rates):
    found = sums(theta, {}, batch(6, i), jax.random.key(0))
    state = update(
      state, sums(state.params, {}, batch(6, i), jax.random.key(0)), lr32(lr)
    )
    g = jax.tree.map(
      lambda g, p: g / found['n'] + decay * p, found['grad'], theta
    )
    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, g)
    step = velocity
    if nesterov:
      step = jax.tree.map(lambda v, g: momentum * v + g, velocity, g)
    theta = jax.tree.map(lambda p, d: p - lr * d, theta, step)
  assert int(state.step) == 3
  close(state.params, theta, 1e-5)


def lr32(lr):
  return jnp.asarray(lr, jnp.float32)


def test_adamw_is_the_one_of_optax():
  _, tx, state, sums = setting(name='adamw', weight_decay=0.1)
  reference = optax.adamw(0.01, weight_decay=0.1)
  update, theta = train.make_update(tx), state.params
  opt_state = reference.init(theta)
  for i in range(4):
    found = sums(theta, {}, batch(6, i), jax.random.key(0))
    g = jax.tree.map(lambda g: g / found['n'], found['grad'])
    delta, opt_state = reference.update(g, opt_state, theta)
    state = update(
      state, sums(state.params, {}, batch(6, i), jax.random.key(0)), lr32(0.01)
    )
    theta = optax.apply_updates(theta, delta)
  close(state.params, theta, 1e-5)


def test_the_average_is_exponential_over_the_states_after_each_update():
  """Of weights and statistics; its first steps do not linger, and a counter
  is the newest one."""
  _, tx, _, sums = setting()
  module = models.build('mlp', widths=(8,), num_classes=CLASSES)
  one = jnp.zeros((1, 4, 4, 1))
  state = train.init(module, tx, jax.random.key(0), one, average=True)
  statistics = {'mean': jnp.zeros(3), 'seen': jnp.int32(0)}
  state = dataclasses.replace(
    state, model_state=statistics,
    opt_state=state.opt_state._replace(model_state=statistics),
  )  # fmt: skip
  update = jax.jit(train.make_update(tx, decay=0.5))
  wanted = jax.device_get((state.params, statistics))
  for i in range(12):
    found = sums(state.params, {}, batch(6, i), jax.random.key(0))
    seen = {'mean': jnp.full(3, i + 1.0), 'seen': jnp.int32(i + 1)}
    state = update(state, found | {'model_state': seen}, lr32(0.3))
    decay = min(0.5, (1 + i) / (10 + i))
    mix = lambda a, b, d=decay: d * a + (1 - d) * np.asarray(b)
    wanted = jax.tree.map(mix, wanted, (state.params, state.model_state))
  assert decay == 0.5  # from the ninth step on
  _, found_params, found_statistics = state.opt_state
  assert int(found_statistics['seen']) == 12
  assert found_statistics['seen'].dtype == jnp.int32
  close(found_params, wanted[0], 1e-5)
  close(found_statistics['mean'], wanted[1]['mean'], 1e-5)


def test_a_state_is_measured_at_its_average_and_trained_at_its_last_weights():
  module, tx, state, sums = setting()
  assert state.averaged is state
  key, one = jax.random.key(0), jnp.zeros((1, 4, 4, 1))
  other = train.init(module, tx, key, one, average=True)
  found = sums(state.params, {}, batch(6), key)
  state = train.make_update(tx)(state, found, lr32(0.3))
  other = train.make_update(tx, 0.9)(other, found, lr32(0.3))
  close(other.params, state.params)
  first = [s.params['first']['kernel'] for s in (other, other.averaged)]
  assert float(jnp.max(jnp.abs(first[0] - first[1]))) > 1e-4
  assert int(other.averaged.step) == 1
  assert jax.tree.structure(other.averaged) == jax.tree.structure(state)


def test_one_compilation_serves_every_step_rate_and_seed():
  _, tx, state, sums = setting(momentum=0.9)
  update, traces = train.make_update(tx), []

  @jax.jit
  def step(state, batch, lr, seed):
    traces.append(1)
    key = keys.stream(seed, 'train', state.step)
    found = sums(state.params, state.model_state, batch, key)
    return update(state, found, lr)

  for i in range(4):
    state = step(state, batch(6, i), np.float32(0.1 * i), np.uint32(i))
  assert len(traces) == 1


@pytest.mark.parametrize('schedule', ['constant', 'cosine', 'step', 'cooldown'])
def test_rates_rise_linearly_and_then_follow_their_schedule(schedule):
  rates = train.learning_rates(0.5, 100, schedule=schedule, warmup=9)
  np.testing.assert_allclose(rates[:10], 0.5 * np.arange(1, 11) / 10, rtol=1e-6)
  assert rates.shape == (100,)
  assert (np.diff(rates[9:]) <= 1e-9).all()
  last = {
    'constant': 0.5, 'cosine': 0.0, 'step': 0.005, 'cooldown': 5 / 91
  }[schedule]  # fmt: skip
  if schedule == 'cooldown':
    np.testing.assert_allclose(rates[9:91], 0.5, rtol=1e-6)
  np.testing.assert_allclose(rates[-1], last, atol=2e-4)


@pytest.mark.parametrize(
  'momentum, nesterov', [(0.0, False), (0.9, False), (0.9, True), (0.5, True)]
)
def test_descent_on_a_quadratic_is_stable_up_to_the_edge_and_no_further(
  momentum, nesterov, x64
):
  lr = 0.1
  edge = train.stability_edge(
    lr, name='sgd', momentum=momentum, nesterov=nesterov
  )
  tx = train.optimizer(momentum=momentum, nesterov=nesterov)

  def largest(curvature):
    theta = jnp.ones(())
    state = tx.init(theta)
    for _ in range(1500):
      d, state = tx.update(curvature * theta, state, theta)
      theta = theta - lr * d
    return abs(float(theta))

  assert largest(0.99 * edge) < 1e-3
  assert largest(1.01 * edge) > 1e3


def test_losses_are_those_of_their_definitions(x64):
  draw = np.random.default_rng(0)
  logits, labels = draw.standard_normal((5, 3)), np.array([0, 2, 1, 1, 0])
  onehot = np.eye(3)[labels] * 0.9 + 0.1 / 3
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  cross = losses.make('cross_entropy', label_smoothing=0.1)
  square = losses.make('squared_error', label_smoothing=0.1)
  np.testing.assert_allclose(
    cross(jnp.array(logits), labels), -(onehot * log_p).sum(1), rtol=1e-6
  )
  np.testing.assert_allclose(
    square(jnp.array(logits), labels),
    0.5 * ((logits - onehot) ** 2).sum(1),
    rtol=1e-6,
  )


def test_weight_0_is_plain_training_bit_for_bit():
  module, _, state, plain = setting()
  make = objectives.make('gradient_penalty', losses.make('cross_entropy'))
  none = train.make_sums(module, make)
  key = jax.random.key(0)
  a = plain(state.params, {}, batch(6), key)
  b = none(state.params, {}, batch(6), key)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_gradient_penalty_adds_the_squared_input_gradient_of_each_example(x64):
  module, _, state, _ = setting()
  loss = losses.make('cross_entropy')
  apply_fn = train.frozen(module, {})
  one = batch(4)
  weight = 0.7
  make = objectives.make('gradient_penalty', loss, weight=weight)
  found, _ = make(apply_fn)(state.params, one, None)
  for i in range(4):
    value, grad = jax.value_and_grad(
      lambda x: loss(apply_fn(state.params, x)[0], one['label'][i : i + 1])[0]
    )(jnp.asarray(one['image'][i : i + 1]))
    np.testing.assert_allclose(
      found[i], value + weight * jnp.sum(grad**2), rtol=1e-5
    )


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: train.optimizer('sdg'), "did you mean 'sgd'"),
    (lambda: train.optimizer(momentum=1.0), 'optim.momentum=1.0'),
    (lambda: train.optimizer(weight_decay=-1.0), 'optim.weight_decay=-1'),
    (lambda: train.optimizer(nesterov=True), 'optim.nesterov=True'),
    (lambda: train.learning_rates(-0.1, 10), 'optim.lr=-0.1'),
    (lambda: train.learning_rates(0.1, 10, warmup=11), 'optim.warmup=11'),
    (lambda: losses.make('cross'), "did you mean 'cross_entropy'"),
    (lambda: objectives.make('none', None, weight=1.0), 'objective.weight'),
  ],
)
def test_bad_values_are_refused_by_name(make, message):
  with pytest.raises(errors.InputError, match=message):
    make()
