"""Are inputs checked where their values are known, under jit too?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, errors
from implicit_attr.attacks import inputs

KEY = jax.random.key(0)
W = jax.random.normal(KEY, (4, 3))
X = jnp.full((2, 2, 2, 1), 0.5)
Y = jnp.array([0, 2])
KIND = {'eps': 0.1, 'norm': 'linf', 'bounds': (0, 1)}


def predict(x):
  return jnp.tanh(x.reshape(x.shape[0], -1) @ W)


def explain(x, y):
  return jax.grad(lambda x: jnp.sum(predict(x)[:, 0]))(x)


ATTACKS = {
  'attack_attribution': lambda x, y: attacks.attack_attribution(
    KEY, explain, predict, x, y, eps=0.1, steps=1, restarts=1
  ),
  'random_sign': lambda x, y: attacks.random_sign(
    KEY, explain, predict, x, y, eps=0.1
  ),
  'pgd': lambda x, y: attacks.pgd(KEY, predict, x, y, eps=0.1, steps=1),
}


@pytest.mark.parametrize('kind', [jnp.asarray, np.asarray])
def test_concrete_arrays_that_are_closed_over_pass_under_jit(kind):
  # jnp on a constant is traced under jit: its value cannot be asked for.
  x, y = kind(X), kind(Y)

  @jax.jit
  def run():
    return {name: fun(x, y).x_adv for name, fun in ATTACKS.items()}

  for name, x_adv in run().items():
    assert np.abs(x_adv - X).max() <= 0.1 + 1e-6, name


def test_concrete_arrays_that_are_closed_over_are_checked_under_jit():
  check = lambda x, y: inputs.check(x, y, **KIND)[0]
  for x, y, name in ((X, Y - 1, 'y=-1'), (X + 1, Y, "x='in")):
    with pytest.raises(errors.InputError, match=name):
      jax.jit(lambda: check(x, y))()
  beyond = Y + 1
  labels = lambda: inputs.check_labels(beyond, predict(X), X)
  with pytest.raises(errors.InputError, match='y=3 must be labels < 3'):
    jax.jit(labels)()


def test_traced_arrays_are_checked_for_shape_alone():
  check = lambda x, y: inputs.check(x, y, **KIND)[0]
  np.testing.assert_array_equal(jax.jit(check)(X + 1, Y - 1), X + 1)
  with pytest.raises(errors.InputError, match='y.shape'):
    jax.jit(check)(X, Y[:1])
