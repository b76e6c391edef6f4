"""Are the gradient methods right where the map is known in closed form?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors

B, H, W, C, CLASSES = 3, 4, 4, 2, 5
N = H * W * C


def linear(params, x):
  """logits = W x + b."""
  flat = x.reshape(x.shape[0], -1)
  return flat @ params['w'] + params['b'][None], {}


def quadratic(params, x):
  """logits_c = ½ xᵀ Q_c x + w_cᵀ x, with symmetric Q_c."""
  flat = x.reshape(x.shape[0], -1)
  second = jnp.einsum('bi,cij,bj->bc', flat, params['q'], flat)
  return second / 2 + flat @ params['w'], {}


def deep(params, x):
  """Two smooth layers on 3x3 neighbourhoods."""
  x = jax.lax.conv_general_dilated(
    x, params['k'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  features = jax.nn.softplus(4 * x) / 4
  return features.reshape(x.shape[0], -1) @ params['v'], {'features': features}


@pytest.fixture
def problem(x64):
  rng = np.random.default_rng(0)
  q = rng.normal(size=(CLASSES, N, N))
  params = {
    'w': rng.normal(size=(N, CLASSES)),
    'b': rng.normal(size=CLASSES),
    'q': q + q.transpose(0, 2, 1),
    'k': rng.normal(size=(3, 3, C, 3)) / 3,
    'v': rng.normal(size=(H * W * 3, CLASSES)) / 5,
  }
  params = jax.tree.map(jnp.asarray, params)
  x = jnp.asarray(rng.uniform(size=(B, H, W, C)))
  return params, x, jnp.array([1, 4, 1]), jax.random.key(0)


def rows(a):
  return np.asarray(a).reshape(a.shape[0], -1)


def test_the_gradient_of_a_linear_network_is_its_weight(problem):
  params, x, y, _ = problem
  found = attribution.gradient(linear, params, x, y)
  np.testing.assert_allclose(rows(found), np.asarray(params['w']).T[y])


def test_the_gradient_of_the_margin_is_a_difference_of_weights(problem):
  params, x, y, _ = problem
  logits = np.array(linear(params, x)[0])
  logits[np.arange(B), y] = -np.inf
  w = np.asarray(params['w']).T
  found = attribution.gradient(linear, params, x, y, target='margin')
  np.testing.assert_allclose(
    rows(found), w[y] - w[logits.argmax(1)], rtol=1e-10
  )


def test_gradient_x_input_sums_to_the_logit_without_bias(problem):
  params, x, y, _ = problem
  params = params | {'b': jnp.zeros(CLASSES)}
  found = attribution.gradient_x_input(linear, params, x, y)
  logits = linear(params, x)[0]
  np.testing.assert_allclose(rows(found).sum(1), logits[np.arange(B), y])


# Noise


def quadratic_slopes(params, x, y):
  q, w = np.asarray(params['q'])[y], np.asarray(params['w']).T[y]
  return np.einsum('bij,bj->bi', q, rows(x)) + w


def noises(key, samples, sigma):
  draw = lambda k: jax.random.normal(k, (1, H, W, C), jnp.float64)
  keys = jax.random.split(key, samples)
  return sigma * np.stack([np.asarray(draw(k)).ravel() for k in keys])


def test_smoothgrad_of_a_quadratic_is_the_gradient_at_the_mean_image(problem):
  params, x, y, key = problem
  found = attribution.smoothgrad(
    quadratic, params, x, y, key=key, samples=7, sigma=0.3
  )
  mean = noises(key, 7, 0.3).mean(0)
  wanted = quadratic_slopes(params, rows(x) + mean, y)
  np.testing.assert_allclose(rows(found), wanted, rtol=1e-10)


def test_vargrad_of_a_quadratic_is_the_variance_of_q_times_noise(problem):
  params, x, y, key = problem
  found = attribution.vargrad(
    quadratic, params, x, y, key=key, samples=7, sigma=0.3
  )
  change = np.einsum('bij,sj->sbi', params['q'][y], noises(key, 7, 0.3))
  np.testing.assert_allclose(rows(found), change.var(0), rtol=1e-9)


def test_vargrad_approaches_sigma_squared_times_the_rows_of_q(problem):
  params, x, y, key = problem
  found = attribution.vargrad(
    quadratic, params, x, y, key=key, samples=4000, sigma=0.3
  )
  wanted = 0.09 * np.square(params['q'][y]).sum(2)
  np.testing.assert_allclose(rows(found), wanted, rtol=0.15)


def test_vargrad_of_a_linear_network_is_exactly_zero(problem):
  params, x, y, key = problem
  assert not np.any(attribution.vargrad(linear, params, x, y, key=key))


def test_smoothgrad_squared_is_the_mean_of_squares(problem):
  params, x, y, key = problem
  found = attribution.smoothgrad_squared(
    quadratic, params, x, y, key=key, samples=5, sigma=0.2
  )
  each = [quadratic_slopes(params, rows(x) + n, y) for n in noises(key, 5, 0.2)]
  np.testing.assert_allclose(rows(found), np.square(each).mean(0), rtol=1e-9)


def test_every_example_meets_the_same_noise(problem):
  params, x, y, key = problem
  twice = jnp.concatenate([x[:1], x[:1]])
  found = attribution.smoothgrad(deep, params, twice, y[:2] * 0, key=key)
  np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_noise_without_a_key_is_refused(problem):
  params, x, y, _ = problem
  with pytest.raises(errors.InputError, match='key'):
    attribution.smoothgrad(linear, params, x, y)
  with pytest.raises(errors.InputError, match='key'):
    attribution.smoothgrad(linear, params, x, y, key=jnp.zeros(2, jnp.uint32))


# Paths


@pytest.mark.parametrize('rule', ['trapezoid', 'gauss_legendre'])
def test_integrated_gradients_of_a_quadratic_are_exact(problem, rule):
  params, x, y, _ = problem
  base = x[::-1] * 0.5
  found = attribution.integrated_gradients(
    quadratic, params, x, y, baseline=base, rule=rule, steps=2
  )
  middle = rows(x + base) / 2
  wanted = rows(x - base) * quadratic_slopes(params, middle, y)
  np.testing.assert_allclose(rows(found), wanted, rtol=1e-10)


def test_the_right_rule_ends_at_the_image(problem):
  params, x, y, _ = problem
  found = attribution.integrated_gradients(
    deep, params, x, y, rule='right', steps=1
  )
  wanted = attribution.gradient_x_input(deep, params, x, y)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def gap(params, x, y, rule, steps, chunk=1):
  """|sum of the map - change of the target|, the largest of the batch."""
  found = attribution.integrated_gradients(
    deep, params, x, y, rule=rule, steps=steps, chunk=chunk, baseline=0.1
  )
  logit = lambda x: np.asarray(deep(params, x)[0])[np.arange(B), y]
  change = logit(x) - logit(jnp.full_like(x, 0.1))
  return np.abs(rows(found).sum(1) - change).max()


@pytest.mark.parametrize(('rule', 'order'), [('right', 1), ('trapezoid', 2)])
def test_completeness_improves_with_the_order_of_the_rule(problem, rule, order):
  params, x, y, _ = problem
  extra = 1 if rule == 'trapezoid' else 0  # n points are n - 1 intervals
  coarse = gap(params, x, y, rule, 32 + extra)
  fine = gap(params, x, y, rule, 64 + extra)
  assert np.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_gauss_legendre_is_complete_to_rounding(problem):
  params, x, y, _ = problem
  assert gap(params, x, y, 'gauss_legendre', 4) > 1e-9
  assert gap(params, x, y, 'gauss_legendre', 24) < 1e-11


@pytest.mark.parametrize(
  'chunk, points', [(3, 1), (9, 1), (None, 100), (None, 2.5), (None, 0.5)]
)
def test_chunks_do_not_change_the_map_or_its_derivative(
  problem, chunk, points, monkeypatch
):
  params, x, y, _ = problem
  # Room for so many points of the batch, where no chunk is given.
  monkeypatch.setattr(attribution.path, 'CHUNK_NUMBERS', int(points * x.size))

  def score(x, chunk):
    a = attribution.integrated_gradients(
      deep, params, x, y, steps=5, chunk=chunk
    )
    return jnp.sum(a * jnp.cos(7 * a)), a

  fun = jax.jit(jax.grad(score, has_aux=True), static_argnums=1)
  for one, many in zip(fun(x, 1), fun(x, chunk), strict=True):
    np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-12)


def temporaries(points, rule='right'):
  """Bytes that one compiled attack gradient of IG needs beside its result."""
  x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
  k = jax.ShapeDtypeStruct((3, 3, 3, 16), jnp.float32)
  v = jax.ShapeDtypeStruct((16 * 16 * 16, 4), jnp.float32)
  y = jnp.array([0, 1])

  def score(x, params):
    a = attribution.integrated_gradients(
      deep, params, x, y, steps=points, rule=rule
    )
    return jnp.sum(a**3)

  program = jax.jit(jax.grad(score)).lower(x, {'k': k, 'v': v}).compile()
  return program.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_points_under_differentiation(
  monkeypatch,
):
  room = 2 * 16 * 16 * 3  # a chunk is one point of both images
  monkeypatch.setattr(attribution.path, 'CHUNK_NUMBERS', room)
  assert temporaries(64) < 1.05 * temporaries(4)


def test_expected_gradients_of_a_linear_network_are_known(problem):
  params, x, y, key = problem
  references = jnp.full((1, H, W, C), 0.25)
  found = attribution.expected_gradients(
    linear, params, x, y, key=key, references=references
  )
  wanted = (rows(x) - 0.25) * np.asarray(params['w']).T[y]
  np.testing.assert_allclose(rows(found), wanted, rtol=1e-10)


def test_expected_gradients_sum_to_the_mean_change_in_expectation(problem):
  params, x, y, key = problem
  references = jax.random.uniform(jax.random.key(1), (4, H, W, C))
  found = attribution.expected_gradients(
    deep, params, x, y, key=key, references=references, samples=4000
  )
  logits = np.asarray(deep(params, x)[0])[np.arange(B), y]
  other = np.asarray(deep(params, references)[0])[:, y].mean(0)
  np.testing.assert_allclose(rows(found).sum(1), logits - other, atol=0.03)


# Bad input


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    ({'x': jnp.ones((B, H, W, C), int)}, 'x.dtype'),
    ({'x': jnp.full((B, H, W, C), jnp.nan)}, 'x='),
    ({'y': jnp.zeros(B + 1, int)}, 'y.shape'),
    ({'y': jnp.zeros(B)}, 'y.dtype'),
    ({'y': jnp.full(B, CLASSES)}, 'y='),
    ({'y': jnp.full(B, -1)}, 'y='),
    ({'target': 'logits'}, 'target'),
    ({'baseline': jnp.zeros((H, W))}, 'baseline'),
    ({'rule': 'left'}, 'rule'),
    ({'steps': 0}, 'steps'),
    ({'rule': 'trapezoid', 'steps': 1}, 'steps'),
    ({'chunk': 0}, 'chunk'),
  ],
)
def test_bad_input_names_the_argument(problem, change, named):
  params, x, y, _ = problem
  given = {'x': x, 'y': y} | change
  with pytest.raises(errors.InputError, match=named):
    attribution.integrated_gradients(linear, params, **given)
