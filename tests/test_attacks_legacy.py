"""Do the legacy protocols do what the published code did, faults and all?

The twins here are loops over single images in NumPy, with derivatives by hand.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from implicit_attr import attacks, attribution
from implicit_attr.attacks import balls, legacy

SIDE, CLASSES, HIDDEN, B = 4, 3, 12, 5
N = SIDE * SIDE
KEY = jax.random.key(3)


def weights(seed=0):
  rng = np.random.default_rng(seed)
  first = rng.normal(size=(N, HIDDEN)) / 2
  return {'first': first, 'second': rng.normal(size=(HIDDEN, CLASSES))}


W = weights()


def apply_fn(params, x, beta=None):
  """A ReLU network of one hidden layer, or its softplus surrogate."""
  u = x.reshape(x.shape[0], -1) @ params['first'] - 0.3
  hidden = jax.nn.relu(u) if beta is None else jax.nn.softplus(beta * u) / beta
  return hidden @ params['second'], {}


def network(kind=np.float64, smooth=True):
  params = jax.tree.map(lambda w: jnp.asarray(w, kind), W)
  return legacy.Network(
    apply_fn, params, attribution.METHODS, apply_fn if smooth else None
  )


def images(kind=np.float64, n=B):
  """Images and the labels that the network gives them."""
  x = np.random.default_rng(1).uniform(size=(n, SIDE, SIDE, 1))
  u = np.maximum(x.reshape(n, -1) @ W['first'] - 0.3, 0)
  return jnp.asarray(x, kind), jnp.asarray(np.argmax(u @ W['second'], -1))


def sigmoid(u):
  return 1 / (1 + np.exp(-u))


def predicted(x):
  return np.argmax(np.maximum(x @ W['first'] - 0.3, 0) @ W['second'])


def gradient(x, y, beta=None):
  """Gradient of logit y at the flat image x."""
  u = x @ W['first'] - 0.3
  slope = (u > 0) * 1.0 if beta is None else sigmoid(beta * u)
  return W['first'] @ (slope * W['second'][:, y])


def hessian_vector(x, y, beta, v):
  """Second derivative of logit y of the softplus network, times v."""
  u = x @ W['first'] - 0.3
  bend = beta * sigmoid(beta * u) * sigmoid(-beta * u)
  return W['first'] @ (bend * W['second'][:, y] * (W['first'].T @ v))


def mass_slope(a, top):
  """Derivative of (sum of |a| on top) / (sum of |a|) in the map a."""
  total = np.abs(a).sum()
  share = np.abs(a[top]).sum() / total
  inside = np.zeros(N)
  inside[top] = 1
  return np.sign(a) * (inside - share) / total


def ghorbani_in_numpy(x, y, *, eps, step_size, steps, k, beta):
  """(x_adv, intersection) of one flat image, step by step."""
  clean = np.abs(gradient(x, y))
  top = np.argsort(clean)[-k:]
  here, best, found = x.copy(), 1.0, x
  for _ in range(steps):
    toward = mass_slope(gradient(here, y, beta), top)
    slope = hessian_vector(here, y, beta, toward)
    here = x + np.clip(here - step_size * np.sign(slope) - x, -eps, eps)
    here = np.clip(here, 0, 1)
    if predicted(here) != y:
      continue
    now = np.argsort(np.abs(gradient(here, y)))[-k:]
    score = len(np.intersect1d(top, now)) / k
    if score < best:
      best, found = score, here.copy()
  return found, best


def test_ghorbani_equals_the_loop_in_numpy(x64):
  # No entry of a gradient map ties with another, so sorts agree.
  setting = {'eps': 0.1, 'step_size': 0.02, 'steps': 25, 'k': 4, 'beta': 1.0}
  (x, y), net = images(n=12), network()
  result = jax.jit(functools.partial(legacy.ghorbani, KEY, net, **setting))(
    x, y
  )
  moved = 0
  for i in range(12):
    flat, label = np.asarray(x[i]).ravel(), int(y[i])
    want, score = ghorbani_in_numpy(flat, label, **setting)
    np.testing.assert_allclose(result.x_adv[i].ravel(), want, atol=1e-12)
    np.testing.assert_allclose(result.topk[i], score)
    a, b = (np.abs(gradient(z, label)) for z in (flat, want))
    tau = stats.kendalltau(a, b)[0]
    np.testing.assert_allclose(result.kendall[i], tau, rtol=1e-12)
    moved += score < 1
    assert bool(result.failed[i]) == (score == 1)
  assert 0 < moved < 12  # both ends of the protocol were seen


def path(x, y, points, beta=None):
  """Mean gradient at x i / points, i = 1…points."""
  shares = np.arange(1, points + 1) / points
  return np.mean([gradient(s * x, y, beta) for s in shares], 0)


def test_rar_equals_the_loop_in_numpy_and_its_attempts_are_identical(x64):
  points, steps, k = 4, 12, 6
  (x, y), net = images(), network()
  run = functools.partial(
    legacy.rar_mnist, KEY, net, steps=steps, points=points, k=k, k_report=4
  )
  result = jax.jit(run)(x, y)
  assert result.attempts.shape == (3, B)
  np.testing.assert_array_equal(result.attempts[0], result.attempts[1])
  np.testing.assert_array_equal(result.attempts[0], result.attempts[2])
  for i in range(B):
    flat, label = np.asarray(x[i]).ravel(), int(y[i])
    clean = np.abs(flat * path(flat, label, points))
    top = np.argsort(clean)[-k:]
    here, best, found = flat.copy(), 1.0, flat
    for _ in range(steps):
      mean = path(here, label, points, 1.0)
      toward = mass_slope(here * mean, top)
      slope = toward * mean
      for s in np.arange(1, points + 1) / points:
        bend = hessian_vector(s * here, label, 1.0, toward * here)
        slope = slope + s * bend / points
      here = flat + np.clip(here - 0.01 * np.sign(slope) - flat, -0.3, 0.3)
      here = np.clip(here, 0, 1)
      if predicted(here) != label:
        continue
      tau = stats.kendalltau(clean, np.abs(here * path(here, label, points)))[0]
      if tau < best:
        best, found = tau, here.copy()
    np.testing.assert_allclose(result.x_adv[i].ravel(), found, atol=1e-12)
    np.testing.assert_allclose(result.kendall[i], best, rtol=1e-12)
    last = lambda a: np.argsort(a, kind='stable')[-4:]
    after = np.abs(found * path(found, label, points))
    shared = len(np.intersect1d(last(clean), last(after))) / 4
    np.testing.assert_allclose(result.topk[i], shared)


def art_in_numpy(x, y, here, *, eps, step_size, steps, k, points, beta):
  """The flat image that is returned, or None; starts at `here`."""
  clean = np.abs(x * path(x, y, points))
  top = np.argsort(clean)[-k:]
  inside = np.zeros(N)
  inside[top] = 1
  seen = []
  for _ in range(steps):
    after = np.abs(here * path(here, y, points))
    if predicted(here) == y:
      tau = stats.kendalltau(after / after.sum() * inside,
                             clean / clean.sum() * inside)[0]  # fmt: skip
      seen.append((tau, here))
    toward = mass_slope(here * path(here, y, points, beta), top)
    slope = np.zeros(N)
    for s in np.arange(1, points + 1) / points:  # and not of the factor
      slope += s * hessian_vector(s * here, y, beta, toward * here)
    here = here - step_size * np.sign(slope)
    here = np.clip(np.clip(here, x - eps, x + eps), 0, 1)
  return min(seen, key=lambda pair: pair[0])[1] if seen else None


def test_art_equals_the_loop_in_numpy(x64):
  setting = {'eps': 0.3, 'step_size': 0.05, 'steps': 8, 'k': 5, 'points': 3}
  (x, y), net = images(n=8), network()
  run = functools.partial(legacy.art_cifar, KEY, net, **setting)
  result = jax.jit(run)(x, y)
  start = balls.random_start(KEY, balls.ball(x, eps=0.3))
  for i in range(8):
    flat, here = (np.asarray(z[i]).ravel() for z in (x, start))
    want = art_in_numpy(flat, int(y[i]), here, beta=50.0, **setting)
    assert bool(result.failed[i]) == (want is None)
    want = flat if want is None else want
    np.testing.assert_allclose(result.x_adv[i].ravel(), want, atol=1e-12)


def test_where_every_change_flips_the_label_art_drops_and_rar_counts_one():
  (x, y), net = images(np.float32), network(np.float32)

  def fragile(params, z, beta=None):
    # Three examples lose their label by any change; a path has all of them
    # once for every point.
    n = len(z) // B
    changed = jnp.any(z != jnp.tile(x, (n, 1, 1, 1)), (1, 2, 3))
    changed &= jnp.tile(jnp.arange(B) < 3, n)
    other = 100 * jax.nn.one_hot((jnp.tile(y, n) + 1) % CLASSES, CLASSES)
    logits, out = apply_fn(params, z, beta)
    return logits + jnp.where(changed[:, None], other, 0), out

  net = net._replace(apply_fn=fragile, smooth_fn=fragile)
  setting = {'steps': 6, 'k': 4, 'points': 2, 'eps': 0.3}
  art = legacy.art_cifar(KEY, net, x, y, step_size=0.05, **setting)
  np.testing.assert_array_equal(art.failed, [1, 1, 1, 0, 0])
  np.testing.assert_array_equal(art.counted, ~art.failed)
  assert (int(art.n), int(art.dropped)) == (2, 3)
  assert art.mean('kendall') < art.kendall.mean()
  rar = legacy.rar_mnist(KEY, net, x, y, k_report=4, attempts=1, **setting)
  np.testing.assert_array_equal(rar.failed, [1, 1, 1, 0, 0])
  np.testing.assert_array_equal(rar.kendall[:3], 1)
  assert (int(rar.n), int(rar.dropped)) == (5, 0)


def test_art_reports_the_map_of_the_loss(x64):
  (x, y), net = images(), network()
  run = functools.partial(legacy.art_cifar, KEY, net, steps=3, k=4, points=6)
  result = run(x, y)
  maps = [
    np.abs(
      attribution.integrated_gradients(
        apply_fn, net.params, z, y, target='loss', rule='trapezoid', steps=7
      )
    )
    for z in (x, result.x_adv)
  ]
  for i in range(B):
    tau = stats.kendalltau(maps[0][i].ravel(), maps[1][i].ravel())[0]
    np.testing.assert_allclose(result.kendall[i], tau, rtol=1e-10)


def test_an_attack_that_finds_nothing_counts_as_one_for_rar_and_ghorbani():
  (x, y), net = images(np.float32), network(np.float32, smooth=False)
  # The surrogate of a ReLU network that is taken for smooth is itself.
  result = legacy.ghorbani(KEY, net, x, y, steps=3, k=4)
  assert np.all(result.failed) and np.all(result.counted)
  np.testing.assert_array_equal(result.topk, 1)
  np.testing.assert_array_equal(result.kendall, 1)
  np.testing.assert_array_equal(result.x_adv, x)


def test_the_walk_called_random_beats_the_one_draw_that_the_paper_describes():
  (x, y), net = images(np.float32, 16), network(np.float32)
  explain = net.explain('gradient', 'logit', {})
  call = functools.partial(
    attacks.random_sign_walk, KEY, explain, net.predict, x, y, k=4, eps=0.3
  )
  walk = call(step_size=0.3 / 16, steps=300)
  draw = attacks.random_sign(KEY, explain, net.predict, x, y, k=4, eps=0.3)
  assert walk.score.mean() < draw.score.mean() - 0.1


def test_the_mnist_set_is_filled_up_by_the_order_of_ties():
  a = jnp.zeros((1, 3, 3)).at[0, 0, 1].set(2.0).at[0, 2, 0].set(1.0)
  want = [[0, 1, 0], [0, 0, 0], [1, 1, 1]]  # two that lead, two last zeros
  np.testing.assert_array_equal(legacy.result.last_k(a, 4)[0], want)
  order = np.argsort(np.asarray(a).ravel(), kind='stable')[-4:]
  np.testing.assert_array_equal(np.sort(order), np.flatnonzero(want))
