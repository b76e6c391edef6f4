"""Does accuracy after retraining tell a good map from a random one?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import data, errors, models, train
from implicit_attr.evaluation import retraining

SHARES = (0.25, 0.5, 0.75)


def linear(params, x):
  """No examples meet, and weights start where they are told."""
  return x.reshape(x.shape[0], -1) @ params['w'] + params['b'][None], {}


def start(shape, scale, key):
  w = scale * jax.random.normal(key, (np.prod(shape), 2))
  return {'w': w, 'b': jnp.zeros(2)}


def toy(n, seed, shape=(4, 4, 2)):
  """Noise; the class is whether the two channels of one pixel are large."""
  x = np.random.default_rng(seed).uniform(size=(n, *shape))
  label = x[:, 1, 2].sum(-1) > 1
  return {'image': jnp.asarray(x), 'label': jnp.asarray(label, jnp.int32)}


def normal(m, batch, seed=0, channels=()):
  shape = (m, *batch['image'].shape[:3], *channels)
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def run(
  train_set, test_set, train_maps, test_maps, steps=60, scale=0.0, **options
):
  shape = train_set['image'].shape[1:]
  options = {'key': jax.random.key(0), 'shares': SHARES, 'seeds': 1} | options
  return retraining.accuracies(
    functools.partial(start, shape, scale), linear, train.optimizer(),
    train.learning_rates(1.0, steps), train_set, test_set, train_maps,
    test_maps, **options,
  )  # fmt: skip


# Removal


@pytest.mark.parametrize('kind', ['noise', 'ties', 'constant'])
def test_exactly_the_share_of_pixels_is_removed(kind):
  maps = np.random.default_rng(0).normal(size=(2, 5, 8, 7, 3))
  maps = {'noise': maps, 'ties': np.rint(maps), 'constant': 0 * maps}[kind]
  ranks = retraining.removal_ranks(jax.random.key(0), jnp.asarray(maps))
  size = np.abs(maps).sum(-1).reshape(10, -1)
  for share in (0, 0.1, 0.3, 0.5, 0.9, 1):
    count = round(share * 56)
    gone = retraining.removed(ranks, count).reshape(10, -1)
    assert np.all(gone.sum(1) == count)
    for at, a in zip(np.asarray(gone), size, strict=True):
      assert count in (0, 56) or a[at].min() >= a[~at].max()
    kept = retraining.removed(ranks, count, keep=True).reshape(10, -1)
    np.testing.assert_array_equal(kept, ~gone)


def test_equal_pixels_are_removed_at_random_and_not_from_the_top():
  maps = jnp.zeros((1, 4000, 4, 4))
  ranks = retraining.removal_ranks(jax.random.key(0), maps)
  often = retraining.removed(ranks, 4)[0].mean(0)
  np.testing.assert_allclose(often, 0.25, atol=0.03)


# Training


@pytest.mark.parametrize(('keep', 'parallel'), [(False, None), (True, 5)])
def test_accuracies_are_those_of_a_plain_loop(x64, keep, parallel):
  """Full batches of a convex model: no draw matters, and numpy can follow.

  Nor does it matter how many are trained at a time.
  """
  learn, check = toy(40, 0), toy(50, 1)
  maps = normal(2, learn, 2, (2,)), normal(2, check, 3, (2,))
  found = run(
    learn, check, *maps, batch_size=40, seeds=2, keep=keep, parallel=parallel
  )
  assert found.shape == (2, 3, 2)
  x, y = (np.asarray(learn[k]) for k in ('image', 'label'))
  fill = x.mean((0, 1, 2))

  def without(x, a, count):
    x = np.array(x)
    for image, size in zip(
      x, np.abs(a).sum(-1).reshape(len(x), -1), strict=True
    ):
      order = np.argsort(-size)
      at = order[count:] if keep else order[:count]
      image[at // 4, at % 4] = fill
    return x.reshape(len(x), -1)

  for m, s in np.ndindex(2, 3):
    count = round(SHARES[s] * 16)
    z = without(x, maps[0][m], count)
    w, b = np.zeros((32, 2)), np.zeros(2)
    for _ in range(60):
      logits = z @ w + b
      p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
      error = (p - np.eye(2)[y]) / len(y)
      w, b = w - z.T @ error, b - error.sum(0)
    guess = (without(check['image'], maps[1][m], count) @ w + b).argmax(1)
    wanted = np.mean(guess == np.asarray(check['label']))
    np.testing.assert_allclose(found[m, s], wanted, atol=1e-9)


@pytest.mark.parametrize(
  'drawn', [{'scale': 1.0, 'batch_size': 64}, {'batch_size': 16}]
)
def test_a_seed_decides_weights_and_order_for_every_map_and_share(drawn):
  learn, check = toy(64, 0), toy(200, 1)
  maps = [jnp.concatenate([a, a]) for a in (normal(1, learn), normal(1, check))]
  found = run(learn, check, *maps, steps=5, seeds=4, **drawn)
  np.testing.assert_array_equal(found[0], found[1])
  assert len(np.unique(found[0, 1])) > 1


def test_every_pass_sees_every_example_at_most_once_in_a_new_order():
  order = retraining._order(jax.random.key(0), 23, 5, 10)
  assert order.shape == (10, 5)
  first, second, third = order[:4].ravel(), order[4:8].ravel(), order[8:]
  for one in (first, second, third.ravel()):
    assert len(np.unique(one)) == one.size
  assert np.any(first != second) and set(map(int, first)) != set(
    map(int, second)
  )
  assert retraining._order(jax.random.key(0), 3, 5, 2).shape == (2, 3)


def test_all_trainings_are_one_program():
  learn, check = toy(32, 0), toy(16, 1)

  def traced(m, shares, seeds):
    """How often the network is written into the program."""
    calls = []

    def counted(params, x):
      calls.append(x.shape)
      return linear(params, x)

    found = jax.eval_shape(
      lambda: retraining.accuracies(
        functools.partial(start, (4, 4, 2), 0.0), counted, train.optimizer(),
        train.learning_rates(1.0, 3), learn, check, normal(m, learn),
        normal(m, check), key=jax.random.key(0), shares=shares, seeds=seeds,
      )
    )  # fmt: skip
    assert found.shape == (m, len(shares), seeds)
    return len(calls)

  assert traced(1, SHARES[:1], 1) == traced(3, SHARES, 4) < 10


# What the numbers say


def test_a_map_of_the_truth_leaves_chance_or_all_there_is():
  learn, check = toy(400, 0), toy(400, 1)
  truth = lambda batch: jnp.zeros(batch['image'].shape[:3]).at[:, 1, 2].set(1)
  maps = [
    jnp.stack([truth(b), normal(1, b, seed)[0]])
    for seed, b in enumerate((learn, check))
  ]
  share = (1 / 16,)
  options = {'shares': share, 'steps': 300, 'seeds': 2}
  roar, kar = (
    np.asarray(run(learn, check, *maps, keep=keep, **options))[:, 0].mean(1)
    for keep in (False, True)
  )
  assert abs(roar[0] - 0.5) < 0.1 and roar[1] > 0.85
  assert kar[0] > 0.95 and abs(kar[1] - 0.5) < 0.1


def digits(split):
  source = data.load('digits', split, batch_size=1)
  found = source.examples(np.arange(len(source)))
  return {k: jnp.asarray(found[k]) for k in ('image', 'label')}


@functools.cache
def on_digits(keep):
  """Accuracies [3, 3, 3] of one map that knows digits and two random ones.

  The first ranks pixels by how much the mean images of the classes differ
  there, over how much images of one class do.
  """
  learn, check = digits('train'), digits('test')
  x, y = np.asarray(learn['image'])[..., 0], np.asarray(learn['label'])
  means = np.stack([x[y == c].mean(0) for c in range(10)])
  ratio = means.var(0) / ((x - means[y]) ** 2).mean(0).clip(1e-6)
  maps = [
    normal(3, batch, seed).at[0].set(jnp.asarray(ratio)[None])
    for seed, batch in enumerate((learn, check))
  ]
  module = models.build('mlp', widths=(32,), num_classes=10)
  return np.asarray(
    retraining.accuracies(
      lambda key: module.init(key, jnp.zeros((1, 8, 8, 1)))['params'],
      lambda params, x: module.apply({'params': params}, x),
      train.optimizer(momentum=0.9), train.learning_rates(0.1, 200),
      learn, check, *maps,
      key=jax.random.key(0), shares=SHARES, batch_size=64, keep=keep,
    )
  )  # fmt: skip


def test_accuracy_on_digits_falls_slower_for_a_random_map():
  knowing, *others = on_digits(False)
  for random in others:
    assert np.all(random[1:] > knowing[1:] + 0.05)
    assert np.all(retraining.removal_score(knowing, random, SHARES) > 0.05)
  kept, *others = on_digits(True)
  for random in others:
    assert np.all(random < kept - 0.02)
    score = retraining.removal_score(kept, random, SHARES, keep=True)
    assert np.all(score > 0.05)


def test_a_random_map_scores_zero_in_expectation():
  """Pairs of random maps, against a score that knows the one pixel."""
  learn, check = toy(100, 0), toy(100, 1)
  maps = [normal(41, batch, seed) for seed, batch in enumerate((learn, check))]
  maps = [a.at[0].set(0).at[0, :, 1, 2].set(1) for a in maps]
  found = run(learn, check, *maps)
  score = functools.partial(retraining.removal_score, shares=SHARES)
  scores = np.array([
    score(found[i], found[i + 20])[0] for i in range(1, 21)
  ])  # fmt: skip
  error = scores.std(ddof=1) / 20**0.5
  assert abs(scores.mean()) < 3 * error < 0.05
  assert score(found[0], found[1:].mean(0))[0] > 10 * error


def test_the_score_is_the_area_between_the_curves(x64):
  rng = np.random.default_rng(0)
  found, random = rng.uniform(size=(2, 3, 4)), rng.uniform(size=(3, 4))
  shares = (0.1, 0.3, 0.8)
  # At 0 and 1 all maps have the same accuracy, whatever it is.
  ends = [rng.uniform(size=(1, 4)) for _ in range(2)]
  whole = lambda a: np.concatenate([ends[0], a, ends[1]])
  grid = [0, *shares, 1]
  wanted = [np.trapezoid(whole(random) - whole(a), grid, axis=0) for a in found]
  score = functools.partial(
    retraining.removal_score, jnp.asarray(found), jnp.asarray(random), shares
  )
  np.testing.assert_allclose(score(), wanted, rtol=1e-6)
  np.testing.assert_allclose(score(keep=True), -score())


def test_bad_input_names_the_argument():
  learn, check = toy(8, 0), toy(4, 1)
  good = {
    'train_set': learn, 'test_set': check,
    'train_maps': normal(2, learn), 'test_maps': normal(2, check),
  }  # fmt: skip
  bad = [
    ('train_maps.shape', {'train_maps': good['train_maps'][:, 1:]}),
    ('train_maps.shape', {'train_maps': good['train_maps'][0]}),
    ('test_maps', {'test_maps': good['test_maps'][:1]}),
    ('test_set.image', {'test_set': check | {'image': check['label']}}),
    ('train_set.label', {'train_set': learn | {'label': learn['label'][1:]}}),
    ('shares', {'shares': (0.5, 1.5)}),
    ('seeds', {'seeds': 0}),
    ('batch_size', {'batch_size': 0}),
    ('rates', {'steps': 0}),
  ]
  for named, change in bad:
    with pytest.raises(errors.InputError, match=named):
      run(**(good | change))
  random = jnp.zeros((2, 1))
  for named, shares in (('shares', (0.5, 0.5)), ('random', (0.5,))):
    with pytest.raises(errors.InputError, match=named):
      retraining.removal_score(random, random, shares)
