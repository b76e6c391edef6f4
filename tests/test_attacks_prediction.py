"""Do the attacks on labels reach what is known, and keep their bounds?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, errors
from implicit_attr.attacks import autopgd, margins

KEY = jax.random.key(2)
B, SHAPE, N, CLASSES, EPS = 6, (4, 4, 1), 16, 5, 0.08
WEIGHTS = jax.random.normal(jax.random.key(3), (N, CLASSES))
X = jax.random.uniform(jax.random.key(4), (B, *SHAPE), minval=0.1, maxval=0.9)


def linear(x):
  return x.reshape(x.shape[0], -1) @ WEIGHTS


def curved(x):
  return jnp.tanh(2 * linear(x)) @ jax.random.normal(KEY, (CLASSES, CLASSES))


Y = jnp.argmax(linear(X), -1)


def lowest_margin(norm):
  """Exact worst margin of a linear network inside the box."""
  w, x = np.asarray(WEIGHTS), np.asarray(X).reshape(B, N)
  worst = []
  for image, label in zip(x, np.asarray(Y), strict=True):
    gaps = np.delete(w[:, [label]] - w, label, 1)  # [N, C - 1]
    size = (
      np.abs(gaps).sum(0) if norm == 'linf' else np.linalg.norm(gaps, axis=0)
    )
    worst.append(np.min(image @ gaps - EPS * size))
  return np.array(worst)


ATTACKS = {
  'pgd ce': lambda **kw: attacks.pgd(KEY, loss='ce', **kw),
  'pgd cw': lambda **kw: attacks.pgd(KEY, loss='cw', restarts=2, **kw),
  'apgd ce': lambda **kw: attacks.apgd(KEY, steps=40, **kw),
  'apgd cw': lambda **kw: attacks.apgd(KEY, loss='cw', steps=40, **kw),
  'apgd targets': lambda **kw: attacks.apgd(
    KEY, loss='dlr', targets=CLASSES - 1, steps=40, **kw
  ),
  'square': lambda **kw: attacks.square(KEY, queries=300, **kw),
}
LINF = ('pgd ce', 'pgd cw', 'apgd ce', 'apgd cw', 'apgd targets', 'square')
L2 = ('pgd cw', 'apgd cw', 'square')


@pytest.fixture(scope='module', params=['linf', 'l2'])
def found(request):
  norm = request.param
  run = lambda attack: jax.jit(
    lambda x, y, eps: attack(predict=linear, x=x, y=y, eps=eps, norm=norm)
  )
  names = LINF if norm == 'linf' else L2
  return norm, {name: run(ATTACKS[name])(X, Y, EPS) for name in names}


def test_every_attack_stays_in_the_ball_and_in_the_box(found):
  norm, results = found
  for name, result in results.items():
    delta = np.asarray(result.x_adv - X, np.float64).reshape(B, -1)
    size = np.linalg.norm(delta, np.inf if norm == 'linf' else 2, axis=1)
    assert size.max() <= EPS + 1e-6 and size.min() > 0, name
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1, name


def test_reports_are_those_of_the_attacked_image(found):
  for name, result in found[1].items():
    logits = linear(result.x_adv)
    want = margins.margin(logits, Y)
    np.testing.assert_allclose(result.margin, want, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(result.fooled, jnp.argmax(logits, -1) != Y)
    assert np.all(np.diff(result.curve, axis=0) <= 0), name
    np.testing.assert_allclose(result.curve[-1], want, atol=1e-5)


def test_attacks_on_the_margin_reach_the_optimum_of_a_linear_network(found):
  norm, results = found
  want = lowest_margin(norm)
  assert want.min() < 0 < want.max()  # or the next test would be empty
  for name in ('pgd cw', 'apgd cw'):
    np.testing.assert_allclose(results[name].margin, want, atol=2e-3)


def test_a_linear_network_is_fooled_where_it_can_be_and_nowhere_else(found):
  norm, results = found
  want = lowest_margin(norm)
  for name, result in results.items():
    assert np.all(result.margin >= want - 1e-4), name
    if name != 'square':
      np.testing.assert_array_equal(result.fooled, want < 0, err_msg=name)


def test_square_goes_most_of_the_way_without_gradients(found):
  norm, results = found
  clean = np.asarray(margins.margin(linear(X), Y))
  gone = clean - np.asarray(results['square'].margin)
  share = gone / (clean - lowest_margin(norm))
  assert share.min() > 0.3 and share.mean() > 0.5


def test_fgsm_is_one_step_of_length_eps():
  result = attacks.fgsm(curved, X, Y, eps=EPS)
  total = lambda x: jnp.sum(jax.nn.log_softmax(curved(x))[jnp.arange(B), Y])
  want = jnp.clip(X - EPS * jnp.sign(jax.grad(total)(X)), 0, 1)
  np.testing.assert_allclose(result.x_adv, want, atol=1e-6)


def test_the_best_image_is_never_worse_than_the_last_nor_than_the_start():
  run = functools.partial(
    attacks.pgd, KEY, curved, X, Y, eps=0.2, steps=10, step_size=0.15
  )
  best, last = run(keep='best'), run(keep='last')
  assert np.all(best.margin <= last.margin + 1e-6)
  assert np.any(best.margin < last.margin - 1e-6)
  assert np.all(best.margin <= margins.margin(curved(X), Y) + 1e-6)


def test_apgd_is_at_least_as_strong_as_pgd_with_as_many_steps():
  hard = attacks.apgd(KEY, curved, X, Y, eps=0.1, steps=30, loss='cw')
  plain = attacks.pgd(KEY, curved, X, Y, eps=0.1, steps=30, loss='cw')
  assert hard.margin.mean() <= plain.margin.mean() + 1e-3


def test_apgd_questions_its_step_where_the_paper_does():
  due, since = autopgd.checkpoints(100)
  marks = np.flatnonzero(due) + 1
  np.testing.assert_array_equal(marks, [22, 41, 57, 70, 80, 87, 93, 99])
  np.testing.assert_array_equal(since[due], np.diff([0, *marks]))


def test_a_network_without_gradients_stalls_pgd_but_not_square():
  steps = lambda x: jnp.round(4 * linear(x))
  blind = attacks.pgd(KEY, steps, X, Y, eps=0.3, steps=3)
  assert np.all(blind.stalled)
  seeing = attacks.square(KEY, steps, X, Y, eps=0.3, queries=60)
  assert seeing.margin.mean() < blind.margin.mean()


def test_margins_are_what_their_definitions_say(x64):
  z = np.random.default_rng(0).normal(size=(7, 6))
  y = np.arange(7) % 6
  order = -np.sort(-z, 1)
  own = z[np.arange(7), y]
  rival = np.array([np.delete(r, c).max() for r, c in zip(z, y, strict=True)])
  np.testing.assert_allclose(margins.margin(z, y), own - rival)
  want = (own - rival) / (order[:, 0] - order[:, 2])
  np.testing.assert_allclose(margins.dlr(z, y), want)
  np.testing.assert_allclose(margins.dlr(100 * z, y), want)
  t = (y + 1) % 6
  width = order[:, 0] - 0.5 * (order[:, 2] + order[:, 3])
  want = (own - z[np.arange(7), t]) / width
  np.testing.assert_allclose(margins.targeted_dlr(z, y, t), want)
  p = np.exp(own) / np.exp(z).sum(1)
  np.testing.assert_allclose(margins.log_odds(z, y), np.log(p / (1 - p)))


def test_losses_that_need_more_classes_are_refused():
  two = lambda x: linear(x)[:, :2]
  with pytest.raises(errors.InputError, match='classes'):
    attacks.pgd(KEY, two, X, Y % 2, eps=0.1, loss='dlr')
  with pytest.raises(errors.InputError, match='targets='):
    attacks.apgd(KEY, linear, X, Y, eps=0.1, loss='dlr', targets=5)
  with pytest.raises(errors.InputError, match='loss='):
    attacks.apgd(KEY, linear, X, Y, eps=0.1, loss='ce', targets=2)
  with pytest.raises(errors.InputError, match='norm='):
    attacks.pgd(KEY, linear, X, Y, eps=0.1, norm='l0')
