"""Do FGSM and PGD agree with foolbox to the last bit?"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks

pytestmark = pytest.mark.peers

EPS, STEPS, STEP = 0.03, 5, 0.01


@pytest.fixture(scope='module')
def foolbox():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return pytest.importorskip('foolbox')


def network():
  first, second = (
    jax.random.normal(jax.random.key(n), shape) / 4
    for n, shape in enumerate([(64, 32), (32, 10)])
  )
  predict = lambda x: jax.nn.relu(x.reshape(x.shape[0], -1) @ first) @ second
  x = jax.random.uniform(jax.random.key(2), (8, 8, 8, 1))
  return predict, x, jnp.argmax(predict(x), -1)


def theirs(foolbox, attack, predict, x, y):
  # Its arithmetic mixes ranks, which our other tests forbid.
  with jax.numpy_rank_promotion('allow'), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    model = foolbox.JAXModel(predict, bounds=(0, 1))
    _, clipped, _ = attack(model, x, y, epsilons=EPS)
  return np.asarray(clipped)


def test_fgsm_equals_foolbox(foolbox):
  predict, x, y = network()
  attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
  ours = attacks.fgsm(predict, x, y, eps=EPS)
  want = theirs(foolbox, attack, predict, x, y)
  np.testing.assert_array_equal(ours.x_adv, want)


def test_pgd_equals_foolbox(foolbox):
  predict, x, y = network()
  attack = foolbox.attacks.LinfPGD(
    abs_stepsize=STEP, steps=STEPS, random_start=False
  )
  ours = attacks.pgd(
    jax.random.key(0),
    predict,
    x,
    y,
    eps=EPS,
    steps=STEPS,
    step_size=STEP,
    random_start=False,
    keep='last',
  )
  want = theirs(foolbox, attack, predict, x, y)
  np.testing.assert_array_equal(ours.x_adv, want)


def test_l2_pgd_agrees_with_foolbox_to_rounding(foolbox):
  predict, x, y = network()
  attack = foolbox.attacks.L2PGD(
    abs_stepsize=STEP, steps=STEPS, random_start=False
  )
  ours = attacks.pgd(
    jax.random.key(0),
    predict,
    x,
    y,
    eps=EPS,
    norm='l2',
    steps=STEPS,
    step_size=STEP,
    random_start=False,
    keep='last',
  )
  want = theirs(foolbox, attack, predict, x, y)
  np.testing.assert_allclose(ours.x_adv, want, atol=1e-6)
