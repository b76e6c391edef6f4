"""Is a certificate never above what an attack achieves?"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, theory
from implicit_attr.errors import InputError
from implicit_attr.theory import certificates, mlp_certificate

K = 3


def affine(seed, n=8, d=6, batch=40):
  """A [B, n, d] and maps [B, n]."""
  rng = np.random.default_rng(seed)
  return rng.normal(size=(batch, n, d)), rng.normal(size=(batch, n))


def nearest(matrix, phi, k, norm):
  """The shortest step that makes some |φ_i| = |φ_j|, one example, by loops."""
  inside = set(np.argsort(-np.abs(phi))[:k])
  best = None
  for i in inside:
    for j in set(range(len(phi))) - inside:
      for sign in (-1, 1):
        a, gap = matrix[i] + sign * matrix[j], phi[i] + sign * phi[j]
        step = -gap * a / (a @ a)
        if norm == 'linf':
          step = -gap * np.sign(a) / np.abs(a).sum()
        size = np.linalg.norm(step, 2 if norm == 'l2' else np.inf)
        if best is None or size < best[0]:
          best = size, step
  return best[1]


def same(phi, other, k=K):
  return (certificates.top_set(phi, k) == certificates.top_set(other, k)).all(1)


@pytest.mark.parametrize('norm', ['l2', 'linf'])
def test_the_affine_radius_is_the_distance_to_another_set(norm):
  matrix, phi = affine(0)
  radius = theory.affine_radius(matrix, phi, K, norm)
  rng = np.random.default_rng(1)
  for b in range(len(phi)):
    step = nearest(matrix[b], phi[b], K, norm)
    moved = lambda step: phi[b : b + 1] + (matrix[b] @ step)[None]
    assert same(phi[b : b + 1], moved((1 - 1e-6) * step))
    assert not same(phi[b : b + 1], moved((1 + 1e-6) * step))
    order = 2 if norm == 'l2' else np.inf
    np.testing.assert_allclose(np.linalg.norm(step, order), radius[b])
    steps = rng.normal(size=(500, matrix.shape[-1]))
    if norm == 'linf':
      steps = np.sign(steps)
    size = np.linalg.norm(steps, order, axis=1, keepdims=True)
    inside = phi[b] + 0.999 * radius[b] * (steps / size) @ matrix[b].T
    assert same(np.broadcast_to(phi[b], inside.shape), inside).all()


def test_a_map_that_does_not_move_is_certified_everywhere():
  _, phi = affine(2)
  still = np.zeros((8, 6))
  assert np.all(theory.affine_radius(still, phi, K) == np.inf)
  tied = np.ones((1, 8))
  assert theory.affine_radius(still, tied, K) == 0


def test_gradient_x_input_of_a_linear_function_by_hand():
  w, x = np.array([2.0, 1.0]), np.array([[1.0, 1.0]])
  args = np.diag(w), x * w, 1
  np.testing.assert_allclose(theory.affine_radius(*args), 1 / math.sqrt(5))
  np.testing.assert_allclose(theory.affine_radius(*args, norm='linf'), 1 / 3)


def test_the_lipschitz_radius_is_below_the_exact_one():
  matrix, phi = affine(3)
  constants = np.linalg.norm(matrix, 2, axis=(1, 2))
  exact = theory.affine_radius(matrix, phi, K)
  for b, constant in enumerate(constants):
    found = theory.lipschitz_radius(phi[b : b + 1], K, constant)
    assert 0 < found[0] <= exact[b]


def test_the_lipschitz_radius_is_met_by_the_worst_map():
  """φ_1 falls and φ_2 rises along one direction, both at L / √2."""
  phi, constant = np.array([[2.0, 1.0]]), 3.0
  matrix = constant / math.sqrt(2) * np.array([[-1.0], [1.0]])
  np.testing.assert_allclose(np.linalg.norm(matrix, 2), constant)
  np.testing.assert_allclose(
    theory.lipschitz_radius(phi, 1, constant),
    theory.affine_radius(matrix, phi, 1),
  )


MEAN, STD = 0.3, 0.5


def network(activation, beta, widths, seed):
  """(apply_fn, params, layers) of a dense network on [B, 2, 3, 1]."""
  rng = np.random.default_rng(seed)
  params = [
    (rng.normal(size=(n, m)) / n**0.5, rng.normal(size=m))
    for n, m in zip((6, *widths), (*widths, 3), strict=True)
  ]
  params = [(jnp.asarray(w), jnp.asarray(b)) for w, b in params]
  acts = {
    'tanh': jnp.tanh,
    'gelu': lambda z: jax.nn.gelu(z, approximate=False),
    'softplus': lambda z: jax.nn.softplus(beta * z) / beta,
    'centred_softplus': lambda z: (
      (jax.nn.softplus(beta * z) - math.log(2)) / beta
    ),
  }

  def apply_fn(params, x):
    h = (x.reshape(len(x), -1) - MEAN) / STD
    for i, (w, b) in enumerate(params):
      h = (acts[activation](h) if i else h) @ w + b[None]
    return h, {}

  return apply_fn, params


SETTINGS = {'mean': MEAN, 'std': STD}
CASES = [
  ('tanh', 1.0, (5,), ('linf',)),
  ('softplus', 4.0, (5, 4), ('l2', 'linf')),
  ('gelu', 1.0, (5, 4, 4), ('l2',)),
]


@pytest.fixture(scope='module', params=CASES, ids=lambda c: c[0])
def case(request):
  with jax.enable_x64(True):
    activation, beta, widths, norms = request.param
    apply_fn, params = network(activation, beta, widths, 0)
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.uniform(size=(6, 2, 3, 1)))
    y = jnp.asarray(rng.integers(3, size=6))
    options = {'layers': params, 'activation': activation, 'beta': beta}

    @jax.jit
    def explain(x, y):
      total = lambda x: jnp.sum(
        jnp.take_along_axis(apply_fn(params, x)[0], y[:, None], 1)
      )
      return jax.grad(total)(x)

  return apply_fn, params, x, y, options | SETTINGS, (explain, norms)


def test_no_attack_changes_the_set_inside_of_the_mlp_radius(x64, case):
  for norm in case[-1][1]:
    attack_inside_and_outside(case, norm)


def attack_inside_and_outside(case, norm):
  apply_fn, params, x, y, options, (explain, _) = case
  radius = theory.mlp_radius(apply_fn, params, x, y, K, norm=norm, **options)
  assert np.all(radius > 0) and np.all(np.isfinite(radius))
  phi_of = lambda x: np.asarray(explain(x, y)).reshape(len(x), -1)

  @jax.jit
  def attack(eps):
    # Each example at its own radius: stretched around x, so that one ball
    # serves all of them.
    size = jnp.asarray(eps).reshape(-1, 1, 1, 1)
    near = lambda u: x + size * (u - 0.5)
    found = attacks.attack_attribution(
      jax.random.key(0), lambda u, y: explain(near(u), y),
      lambda u: jax.nn.one_hot(y, 3, dtype=u.dtype), jnp.full_like(x, 0.5), y,
      eps=0.5, norm=norm, k=K, steps=20, restarts=2, select='objective',
    )  # fmt: skip
    return near(found.x_adv)

  order = 2 if norm == 'l2' else np.inf
  for share in (0.5, 1.0):
    moved = attack(2 * share * radius)
    away = np.asarray(moved - x).reshape(len(x), -1)
    far = np.linalg.norm(away, order, axis=1)
    assert np.all(far <= share * radius * (1 + 1e-9)) and far.max() > 0
    assert same(phi_of(x), phi_of(moved)).all()
  # And far outside of it the same attack does change sets.
  assert not same(phi_of(x), phi_of(attack(1e4 * radius))).all()
  empirical = theory.empirical_radius(
    phi_of,
    lambda x, share: np.asarray(attack(share * radius)),
    np.asarray(x), K, (1.0, 10.0, 1e3, 1e4), norm,
  )  # fmt: skip
  assert np.all(empirical >= radius) and np.isfinite(empirical).any()


def test_the_tail_constant_bounds_every_hessian(x64, case):
  _, params, _, _, options, _ = case
  kernels = [np.asarray(w) for w, _ in params]
  apply_fn, params = network(options['activation'], options['beta'],
                             [w.shape[1] for w in kernels[:-1]], 0)  # fmt: skip
  bound = mlp_certificate.tail_constant(
    kernels[1:-1], kernels[-1][:, 0], options['activation'], options['beta']
  )

  def logit(z):
    """First logit from z = W1 x + b1, by an input that gives it."""
    acts = [(jnp.eye(len(z)), jnp.zeros(len(z))), *params[1:]]
    pad = STD * z + MEAN
    return apply_fn(acts, pad[None])[0][0, 0]

  z = np.random.default_rng(0).normal(size=(300, kernels[0].shape[1]))
  hessians = jax.jit(jax.vmap(jax.hessian(logit)))(jnp.asarray(z))
  worst = np.linalg.norm(hessians, 2, axis=(1, 2)).max()
  assert worst <= bound
  if len(kernels) == 2:  # one hidden layer: nothing is lost but alignment
    assert worst > 0.5 * bound


def test_the_tail_constant_of_one_unit_a_layer_by_hand():
  """f = r σ(v σ(w σ(z))): three terms, one for each σ that is bent."""
  w, v, r = 1.5, -0.7, 2.0
  slope, bend = 1.0, 4 / (3 * math.sqrt(3))
  wanted = bend * (abs(w * v * r) + w**2 * abs(v * r) + (w * v) ** 2 * abs(r))
  found = mlp_certificate.tail_constant(
    [np.array([[w]]), np.array([[v]])], np.array([r]), 'tanh', 1.0
  )
  np.testing.assert_allclose(found, slope * wanted)


@pytest.mark.parametrize('beta', [1.0, 4.0])
def test_the_tail_constant_is_met_by_one_softplus(x64, beta):
  second = jax.grad(jax.grad(lambda z: 2 * jax.nn.softplus(beta * z) / beta))
  found = mlp_certificate.tail_constant([], np.array([2.0]), 'softplus', beta)
  np.testing.assert_allclose(found, second(0.0))


@pytest.mark.parametrize('name', mlp_certificate.SLOPES)
def test_slopes_bound_the_derivatives_of_activations(x64, name):
  act = {
    'tanh': jnp.tanh,
    'gelu': lambda z: jax.nn.gelu(z, approximate=False),
    'softplus': jax.nn.softplus,
    'centred_softplus': lambda z: jax.nn.softplus(z) - math.log(2),
  }[name]
  z = jnp.linspace(-6, 6, 20001)
  first = jax.vmap(jax.grad(act))
  second = jax.vmap(jax.grad(jax.grad(act)))
  for bound, fun in zip(
    mlp_certificate.SLOPES[name], (first, second), strict=True
  ):
    worst = float(jnp.abs(fun(z)).max())
    assert 0.99 * bound < worst <= bound + 1e-12


def test_layers_that_are_not_the_network_are_refused(x64, case):
  apply_fn, params, x, y, options, _ = case
  wrong = {**options, 'std': 2 * STD}
  with pytest.raises(InputError, match='must be the dense layers of apply_fn'):
    theory.mlp_radius(apply_fn, params, x, y, K, **wrong)
  with pytest.raises(InputError, match=r'layers\[0\].*of 6 inputs'):
    theory.mlp_radius(
      apply_fn, params, x, y, K, **{**options, 'layers': params[::-1]}
    )
  with pytest.raises(InputError, match="activation='relu' is not known"):
    theory.mlp_radius(
      apply_fn, params, x, y, K, **{**options, 'activation': 'relu'}
    )


SIGMA = 0.5


def halves(x):
  """(1, 0) right of 0 and (0, 1) left of it: unit maps of one coordinate."""
  right = x[:, :1] > 0
  return jnp.concatenate([right, ~right], 1).astype(x.dtype)


def test_the_smoothed_radius_is_below_the_true_one(x64):
  """The smoothed map is Φ(±x / σ); its set changes at x = 0 and only there."""
  x = jnp.array([[0.05, 0.0], [-0.2, 0.0], [0.5, 0.0], [1.5, 0.0]])
  found = theory.smoothed_radius(
    halves, x, jax.random.key(0), 1, sigma=SIGMA, samples=40_000
  )
  right = np.array([0.5 * math.erfc(-v / SIGMA / 2**0.5) for v in x[:, 0]])
  exact = np.stack([right, 1 - right], 1)
  assert np.all(np.abs(found.phi - exact) <= found.error)
  true = np.abs(np.asarray(x[:, 0]))
  assert np.all(found.radius <= true)
  assert np.all(found.radius[1:] > 0.15 * true[1:])


def test_the_smoothed_radius_takes_off_the_error_of_the_mean(x64):
  x = jnp.array([[0.2, 0.0]])
  radius = [
    theory.smoothed_radius(
      halves, x, jax.random.key(1), 1, sigma=SIGMA, samples=samples
    )
    for samples in (10, 1000, 30_000)
  ]
  assert radius[0].radius == 0 < radius[1].radius < radius[2].radius
  np.testing.assert_allclose(
    radius[2].error, math.sqrt(2 * math.log(2 * 2 / 0.001) / 30_000)
  )
  gap = radius[2].phi[0, 0] - radius[2].phi[0, 1] - 2 * radius[2].error
  np.testing.assert_allclose(
    radius[2].radius, gap * SIGMA * math.sqrt(math.pi) / 2
  )


def test_the_empirical_radius_is_that_of_the_nearest_success():
  x = np.array([[1.0], [2.0], [9.0]])
  phi_of = lambda x: np.concatenate([x, np.ones_like(x)], 1)
  attack = lambda x, eps: x - 0.9 * eps
  found = theory.empirical_radius(phi_of, attack, x, 1, (0.5, 1.5, 3.0))
  np.testing.assert_allclose(found, [0.45, 1.35, np.inf])


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: theory.lipschitz_radius(np.ones((2, 3)), 3, 1), 'k=3 must be'),
    (lambda: theory.lipschitz_radius(np.ones(3), 1, 1), r'must be of shape'),
    (lambda: theory.affine_radius(np.ones((2, 2)), np.ones((1, 3)), 1), '3, d'),
    (
      lambda: theory.affine_radius(np.eye(3), np.ones((1, 3)), 1, 'l1'),
      "norm='l1' is not known",
    ),
  ],
)
def test_bad_input_is_one_clear_line(call, words):
  with pytest.raises(InputError, match=words):
    call()
