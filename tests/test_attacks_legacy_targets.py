"""Do the two legacy protocols that pull towards a target do as published?

The twins are Adam in NumPy on standardised pixels, as PyTorch has it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import attribution
from implicit_attr.attacks import legacy

SIDE, CLASSES, HIDDEN, B = 4, 3, 12, 5
KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
W = {
  'first': RNG.normal(size=(SIDE * SIDE, HIDDEN)) / 2,
  'second': RNG.normal(size=(HIDDEN, CLASSES)),
}
X = RNG.uniform(size=(B, SIDE, SIDE, 1))


def apply_fn(params, x, beta=None):
  """A ReLU network of one hidden layer, or its softplus surrogate."""
  u = x.reshape(x.shape[0], -1) @ params['first'] - 0.3
  hidden = jax.nn.relu(u) if beta is None else jax.nn.softplus(beta * u) / beta
  return hidden @ params['second'], {}


def problem(kind=np.float64):
  """The network, images, and the labels that it gives them."""
  params = jax.tree.map(lambda w: jnp.asarray(w, kind), W)
  net = legacy.Network(apply_fn, params, attribution.METHODS, apply_fn)
  x = jnp.asarray(X, kind)
  return net, x, net.label(x)


def adam(x, grad_of, rate, steps, project):
  """torch.optim.Adam on the array x; grad_of(x, i)."""
  first, second, start = np.zeros_like(x), np.zeros_like(x), x
  for i in range(steps):
    grad = np.asarray(grad_of(x, i))
    first = 0.9 * first + 0.1 * grad
    second = 0.999 * second + 0.001 * grad**2
    root = np.sqrt(second / (1 - 0.999 ** (i + 1)))
    x = x - rate * first / (1 - 0.9 ** (i + 1)) / (root + 1e-8)
    x = project(x, start)
  return x


def share(z, y, beta):
  """|gradient of logit y| with sum 1, [B, N]; and the probabilities."""
  logits = lambda z: apply_fn(W, z, beta)[0]
  picked = lambda z: jnp.sum(logits(z) * jax.nn.one_hot(y, CLASSES))
  h = jnp.abs(jax.grad(picked)(z)).reshape(z.shape[0], -1)
  return h / h.sum(-1, keepdims=True), jax.nn.softmax(logits(z))


def test_dombrowski_equals_adam_on_standardised_pixels(x64):
  steps, std = 15, 0.225
  net, x, _ = problem()
  y = jnp.zeros(B, int)  # plays no part
  run = functools.partial(legacy.dombrowski, KEY, net, lr=0.05, steps=steps)
  result = jax.jit(run)(x, y)
  label = jnp.argmax(apply_fn(W, x, 1000.0)[0], -1)
  prob = share(x, label, 1000.0)[1]
  wanted = jnp.roll(share(x, label, 1000.0)[0], 1, 0)

  @jax.jit
  def grad(pixels, beta):  # standardised, about any mean
    def cost(pixels):
      h, p = share(pixels * std, label, beta)
      return jnp.sum(
        1e11 * jnp.mean((h - wanted) ** 2, -1)
        + 1e6 * jnp.mean((p - prob) ** 2, -1)
      )

    return jax.grad(cost)(pixels)

  want = std * adam(
    np.asarray(x) / std,
    lambda z, i: grad(z, 10 * 10 ** (i / steps)),
    0.05,
    steps,
    lambda z, _: np.clip(z, 0, 1 / std),
  )
  np.testing.assert_allclose(result.x_adv, want, atol=1e-10)
  assert np.abs(want - x).max() > 0.05
  assert int(result.n) == B and int(result.dropped) == 0


def test_dombrowski_without_beta_growth_never_moves_a_relu_network():
  net, x, y = problem(np.float32)
  run = functools.partial(legacy.dombrowski, KEY, net, steps=5)
  still = run(x, y, beta_growth=False)
  np.testing.assert_array_equal(still.x_adv, x)
  assert np.all(still.failed) and not np.any(run(x, y).failed)


def test_robust_aga_equals_adam_inside_the_ball_and_the_batch(x64):
  steps, eps, std = 12, 0.06, 0.2
  net, x, y = problem()
  run = functools.partial(
    legacy.robust_aga, KEY, net, eps=eps, steps=steps, frame=1
  )
  result = jax.jit(run)(x, y)
  frame = np.ones((SIDE, SIDE))
  frame[1:-1, 1:-1] = 0
  frame, logits = frame.ravel(), apply_fn(W, x)[0]

  @jax.jit
  def grad(pixels):
    def cost(pixels):
      h, _ = share(pixels * std, y, 20.0)
      h = h / (jnp.max(h, -1, keepdims=True))
      moved = jnp.sum((h - frame[None]) ** 2) / B
      other = apply_fn(W, pixels * std, 20.0)[0]
      return 0.5 * moved + 0.5 * jnp.mean((other - logits) ** 2)

    return jax.grad(cost)(pixels)

  want = std * adam(
    np.asarray(x) / std,
    lambda z, _: grad(z),
    4 * eps / std / steps,
    steps,
    lambda z, x: np.clip(
      np.clip(z, x - eps / std, x + eps / std), x.min(), x.max()
    ),
  )
  np.testing.assert_allclose(result.x_adv, want, atol=1e-7)
  assert np.abs(want - x).max() > 0.03
  low, high = float(x.min()), float(x.max())
  assert result.x_adv.min() >= low > 0 and result.x_adv.max() <= high < 1
