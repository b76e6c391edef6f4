"""Are losses right for the surest predictions, and refused for no labels?"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from implicit_attr import diagnostics, errors, losses

MARGINS = [0.0, 5.0, 17.0, 20.0, 40.0, 60.0, 80.0]


def sure(margin, classes=4):
  """Logits [C] in which class 0 leads by `margin`."""
  z = np.array([0.3, 0.1, -0.4, -0.2, -3.0])[:classes]
  z[0] += margin
  return z


def probabilities(z):
  """Softmax [C] and 1 - softmax, the sum of the others, in float64."""
  powers = np.exp(np.asarray(z, np.float64) - max(z))
  others = np.array([np.delete(powers, j).sum() for j in range(len(z))])
  return powers / powers.sum(), others / powers.sum()


def closed_form(z, y, s):
  """Value, gradient and Hessian of cross-entropy in the logits."""
  p, q = probabilities(z)
  mean = np.full(len(z), s / len(z))
  gradient = p - mean
  gradient[y] = (s - s / len(z)) - q[y]
  hessian = -np.outer(p, p)
  np.fill_diagonal(hessian, p * q)
  smoothed = s * (z[y] - np.mean(z))
  value = -np.log1p(-q[y]) if q[y] < 0.5 else -np.log(p[y])
  return value + smoothed, gradient, hessian


def twice(outer, inner):
  return lambda fun: outer(inner(fun))


HESSIANS = {
  'forward over reverse': twice(jax.jacfwd, jax.grad),
  'reverse over reverse': twice(jax.jacrev, jax.grad),
  'reverse over forward': twice(jax.jacrev, jax.jacfwd),
  'forward over forward': twice(jax.jacfwd, jax.jacfwd),
}


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('margin', MARGINS)
def test_cross_entropy_has_all_digits_at_any_margin(margin, smoothing):
  z = np.asarray(sure(margin), np.float32)
  y = jnp.array([0])
  loss = lambda z: losses.cross_entropy(z[None], y, smoothing)[0]
  value, gradient, hessian = closed_form(z.astype(float), 0, smoothing)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
  close(loss(z), value)
  close(jax.grad(loss)(z), gradient)
  close(jax.jacfwd(loss)(z), gradient)
  for mode in HESSIANS.values():
    # Of the matrix: p_j p_k is a rounding beside p_j.
    scale = np.abs(hessian).max()
    close(jax.jit(mode(loss))(z) / scale + 1, hessian / scale + 1)


@pytest.mark.parametrize('margin', [17.0, 60.0, 80.0])
def test_a_sure_error_keeps_its_value_and_slope(margin):
  """The lead of class 0 over the label; curvature to the rounding of p."""
  z = np.asarray(sure(margin), np.float32)
  loss = lambda z: losses.cross_entropy(z[None], jnp.array([2]))[0]
  value, gradient, hessian = closed_form(z.astype(float), 2, 0.0)
  np.testing.assert_allclose(loss(z), value, rtol=1e-6)
  np.testing.assert_allclose(jax.grad(loss)(z), gradient, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(jax.hessian(loss)(z), hessian, atol=1e-6)


def test_two_classes_keep_their_curvature_on_both_sides():
  for z in ([60.0, 0.0], [0.0, 60.0]):
    loss = lambda z: losses.cross_entropy(z[None], jnp.array([0]))[0]
    found = jax.hessian(loss)(jnp.array(z))
    wanted = np.exp(-60.0) * np.array([[1, -1], [-1, 1]])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_cross_entropy_is_the_one_of_optax(smoothing, x64):
  z = jax.random.normal(jax.random.key(0), (6, 5)) * 4
  y = jnp.array([0, 1, 2, 3, 4, 0])
  targets = optax.smooth_labels(jax.nn.one_hot(y, 5), smoothing)
  found = losses.cross_entropy(z, y, smoothing)
  np.testing.assert_allclose(
    found, optax.softmax_cross_entropy(z, targets), rtol=1e-12
  )
  # A smoothing that is traced is the same number.
  lane = jax.jit(losses.cross_entropy)(z, y, smoothing)
  np.testing.assert_allclose(found, lane, rtol=1e-12)


def test_masked_classes_are_left_out():
  """.3133 = log(1 + 1/e): what two classes give without the third."""
  z, y = jnp.array([1.0, 0.0, -jnp.inf]), jnp.array([0])
  loss = lambda z: losses.cross_entropy(z[None], y)[0]
  two = lambda z: losses.cross_entropy(z[None, :2], y)[0]
  assert float(loss(z)) == pytest.approx(0.31326169)
  for mode in (jax.grad, *HESSIANS.values()):
    found, wanted = mode(loss)(z), np.zeros_like(mode(loss)(jnp.ones(3)))
    wanted[tuple(slice(0, 2) for _ in wanted.shape)] = mode(two)(z[:2])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_label_that_alone_is_not_masked_costs_nothing():
  z, y = jnp.array([1.0, -jnp.inf, -jnp.inf]), jnp.array([0])
  loss = lambda z: losses.cross_entropy(z[None], y)[0]
  assert loss(z) == 0
  np.testing.assert_array_equal(jax.grad(loss)(z), 0)
  np.testing.assert_array_equal(jax.hessian(loss)(z), 0)


@pytest.mark.parametrize('name', losses.LOSSES)
def test_labels_that_are_no_class_are_refused_or_nan(name):
  loss, z = losses.make(name), jnp.zeros((2, 3))
  for label, allowed in ((3, 'labels < 3'), (-1, 'labels >= 0')):
    y = jnp.array([0, label])
    with pytest.raises(errors.InputError, match=f'{label} must be {allowed}'):
      loss(z, y)
    found = jax.jit(loss)(z, y)
    assert np.isfinite(found[0]) and np.isnan(found[1])


@pytest.mark.parametrize('name', losses.LOSSES)
def test_a_single_logit_is_refused_with_its_mend(name):
  y = jnp.zeros(2, int)
  for z in (jnp.zeros((2, 1)), jnp.zeros(2)):
    wanted = r'logits\.shape.*\[0, z\]|labels\.shape.*must be \(\)'
    with pytest.raises(errors.InputError, match=wanted):
      losses.make(name)(z, y)


def test_logits_that_overflowed_give_nothing_finite():
  y = jnp.array([0])
  for z in ([jnp.inf, 0.0], [0.0, jnp.inf], [jnp.nan, 0.0], [0.0, jnp.nan]):
    assert not np.isfinite(losses.cross_entropy(jnp.array([z]), y)).any()


def test_losses_keep_the_dtype_of_the_logits():
  for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
    z = jnp.zeros((2, 3), dtype)
    for loss in losses.LOSSES.values():
      assert loss(z, jnp.zeros(2, int), 0.1).dtype == dtype


def test_diagnostics_take_and_refuse_what_the_loss_does():
  z = jnp.array([[1.0, 0.0, -jnp.inf], [60.0, 0.0, 0.0]])
  network = lambda params, x: (x, {})
  predict = lambda z, y: diagnostics.predictions(network, None, z, y)
  found = predict(z, jnp.zeros(2, int))
  wanted = [np.log1p(np.exp(-1)), 2 * np.exp(-60)]
  np.testing.assert_allclose(found.loss, wanted, rtol=1e-5)
  for bad in (3, -1):
    with pytest.raises(errors.InputError, match='labels'):
      predict(z, jnp.array([0, bad]))
  with pytest.raises(errors.InputError, match=r'logits\.shape'):
    predict(z[:, :1], jnp.zeros(2, int))
