"""ROAR and KAR: retraining on what a map leaves of the images.

ROAR removes them, KAR keeps nothing else, in training and test images alike,
and a network is trained anew on what is left (Hooker et al., arXiv 1806.10758;
both as in Kim et al., arXiv 1903.11626). A map that found what the network
used makes accuracy fall sooner (ROAR), or later (KAR), than a random one.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from implicit_attr import errors
from implicit_attr.attribution import sum_abs
from implicit_attr.losses import cross_entropy
from implicit_attr.train import State, make_advance, make_update
from implicit_attr.types import ApplyFn, Array, Batch, Params

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def accuracies(
  init_fn: Callable[[Array], Params],
  apply_fn: ApplyFn,
  tx: optax.GradientTransformation,
  rates: Array,
  train_set: Batch,
  test_set: Batch,
  train_maps: Array,
  test_maps: Array,
  *,
  key: Array,
  shares: Sequence[float] = SHARES,
  seeds: int = 3,
  batch_size: int = 100,
  keep: bool = False,
  parallel: int | None = None,
) -> Array:
  """Test accuracies of networks trained on what maps leave of the images.

  All trainings are one compiled program, mapped over attribution, share and
  seed. A seed decides weights and batches, so networks that differ only in
  map or share start alike and see the same examples in the same order. What is
  removed becomes the mean of the training images, channel by channel.

  Args:
    init_fn: key -> params; run inside of the program.
    apply_fn: (params, x) -> (logits [B, C], out), without further state.
    tx: gives a direction, free of the rate: `train.optimizer`.
    rates: learning rate of every update, [T]: `train.learning_rates`.
    train_set, test_set: 'image' [N, H, W, C] in pixel units, 'label' int [N].
    train_maps, test_maps: one map of every image for each of M attributions,
      [M, N, H, W], largest first, or [M, N, H, W, C], by `sum_abs`. To be
      scored, one of the M is random: `removal_score`.
    key: where weights, order and the places of equal pixels come from.
    shares: of the pixels, those removed (ROAR) or kept (KAR), from 0 to 1.
    seeds: trainings of each kind, K.
    batch_size: images in a batch; each pass through the training images is in
      a new order, and the `N % batch_size` left over are others every time.
    keep: KAR for ROAR.
    parallel: trainings at a time; None takes all at once, which wants the
      memory of all.

  Returns:
    [M, len(shares), K], each from 0 to 1.

  Raises:
    InputError: shapes that do not fit, a share outside of 0 to 1, less than
      one seed, no rate.
  """
  _check('train', train_set, train_maps)
  _check('test', test_set, test_maps)
  m, (height, width) = len(train_maps), train_set['image'].shape[1:3]
  errors.require('test_maps', len(test_maps), len(test_maps) == m, f'{m} maps')
  for share in shares:
    errors.number('shares', share, 0, 1)
  errors.number('seeds', seeds, 1, integer=True)
  errors.number('batch_size', batch_size, 1, integer=True)
  rates = jnp.asarray(rates)
  errors.require(
    'rates.shape', rates.shape, rates.ndim == 1 and len(rates) > 0,
    '[T], one for each update',
  )  # fmt: skip
  counts = np.rint(np.asarray(shares) * height * width).astype(np.int32)
  kinds = np.meshgrid(np.arange(m), counts, np.arange(seeds), indexing='ij')
  runs = tuple(jnp.asarray(kind.ravel()) for kind in kinds)

  def program(key, runs, rates, train, test, train_maps, test_maps):
    ties, *keys = jax.random.split(key, 1 + 2 * seeds)
    train = train | {'ranks': removal_ranks(ties, train_maps)}
    test = test | {'ranks': removal_ranks(ties, test_maps)}
    fill = jnp.mean(train['image'], axis=(0, 1, 2), keepdims=True)
    starts, keys = jnp.stack(keys[:seeds]), jnp.stack(keys[seeds:])
    n = len(train['label'])
    order = lambda key: _order(key, n, batch_size, len(rates))
    orders = jax.vmap(order)(keys)

    def one(run):
      m, count, seed = run

      def seen(data, at):
        gone = removed(data['ranks'][m, at], count, keep=keep)
        image = jnp.where(gone[..., None], fill, data['image'][at])
        return image, data['label'][at]

      params = _fitted(
        apply_fn, tx, init_fn(starts[seed]),
        lambda at: seen(train, at), orders[seed], rates,
      )  # fmt: skip
      network = lambda x: apply_fn(params, x)[0]
      return _accuracy(
        network, lambda at: seen(test, at), len(test['label']), batch_size
      )

    return jax.lax.map(one, runs, batch_size=parallel or len(runs[0]))

  data = [
    {name: jnp.asarray(side[name]) for name in ('image', 'label')}
    for side in (train_set, test_set)
  ]
  maps = jnp.asarray(train_maps), jnp.asarray(test_maps)
  found = jax.jit(program)(key, runs, rates, *data, *maps)
  return found.reshape(m, len(shares), seeds)


def removal_score(
  accuracies: Array,
  random: Array,
  shares: Sequence[float],
  *,
  keep: bool = False,
) -> Array:
  """Area between the accuracies of a random map and those of an attribution.

  By trapezoids over the shares, with 0 and 1 added, where nothing and
  everything is gone, so that all maps are alike (the scores of Kim et al.).

  Args:
    accuracies: [..., S, K], of `accuracies`.
    random: [S, K], those of a random map under the same seeds.
    shares: [S], rising, inside of 0 to 1.
    keep: KAR, where the attribution is to be the more accurate one.

  Returns:
    [..., K], one score for each seed: positive where the map finds more of
    what can be learnt than a random one; 0 in expectation for a random one.

  Raises:
    InputError: shares that do not rise or do not fit.
  """
  grid = np.array([0, *shares, 1], np.float32)
  rising = bool(np.all(np.diff(grid) > 0))
  errors.require('shares', tuple(shares), rising, 'rising, between 0 and 1')
  fits = (
    len(shares) == random.shape[0] and random.shape == accuracies.shape[-2:]
  )
  errors.require(
    'random.shape', random.shape, fits,
    f'({len(shares)}, K) as the end of {accuracies.shape}',
  )  # fmt: skip
  first = (1,) * (accuracies.ndim - 2)
  gap = random.reshape(first + random.shape) - accuracies
  gap = -gap if keep else gap
  # Trapezoids whose first and last corner are 0.
  weights = jnp.asarray((grid[2:] - grid[:-2]) / 2, gap.dtype)
  return jnp.tensordot(gap, weights, axes=((-2,), (0,)))


def removal_ranks(key: Array, maps: Array) -> Array:
  """The place of every pixel in its image, 0 for the largest; int32.

  Pixels of equal value follow each other at random: in reading order a map
  full of zeros would remove images from the top.

  Args:
    key: decides between equal pixels.
    maps: [M, N, H, W], or [M, N, H, W, C], then reduced by `sum_abs`.

  Returns:
    [M, N, H, W], a permutation of 0 … H W - 1 in every image.
  """
  maps = sum_abs(maps) if maps.ndim == 5 else maps
  flat = maps.reshape(*maps.shape[:2], -1)
  chance = jax.random.uniform(key, flat.shape)
  order = jnp.lexsort((chance, -flat), axis=-1)
  ranks = jnp.argsort(order, axis=-1).astype(jnp.int32)
  return ranks.reshape(maps.shape)


def removed(ranks: Array, count: int | Array, *, keep: bool = False) -> Array:
  """Where pixels go: the `count` first, or (keep) all but those; bool."""
  return ranks >= count if keep else ranks < count


def _order(key: Array, n: int, batch_size: int, steps: int) -> Array:
  """Which of n examples are in the batch of each step; [steps, batch]."""
  size = min(batch_size, n)
  batches = n // size
  chance = jax.random.uniform(key, (-(-steps // batches), n))
  passes = jnp.argsort(chance, axis=1)
  return passes[:, : batches * size].reshape(-1, size)[:steps]


def _fitted(
  apply_fn: ApplyFn,
  tx: optax.GradientTransformation,
  params: Params,
  batch: Callable[[Array], tuple[Array, Array]],
  order: Array,
  rates: Array,
) -> Params:
  """Trains on the batches `order` [T, batch]; `batch` gives (image, label)."""
  update = make_update(tx)

  def step(state: State, turn: tuple[Array, Array]) -> tuple[State, None]:
    at, rate = turn
    image, label = batch(at)

    def loss(params: Params) -> Array:
      return jnp.sum(cross_entropy(apply_fn(params, image)[0], label))

    sums = {'grad': jax.grad(loss)(state.params), 'n': len(at)}
    return update(state, sums | {'model_state': {}}, rate), None

  state = State(jnp.zeros((), jnp.int32), params, {}, tx.init(params))
  return make_advance(step)(state, (order, rates), len(rates))[0].params


def _accuracy(
  network: Callable[[Array], Array],
  batch: Callable[[Array], tuple[Array, Array]],
  n: int,
  batch_size: int,
) -> Array:
  """The share of n examples that are classified as they are labelled."""
  size = min(batch_size, n)
  # Places past the end fill the last chunk and do not count.
  places = jnp.arange(-(-n // size) * size).reshape(-1, size)

  def right(at: Array) -> Array:
    image, label = batch(jnp.minimum(at, n - 1))
    hits = jnp.argmax(network(image), axis=-1) == label
    return jnp.sum(hits & (at < n))

  return jnp.sum(jax.lax.map(right, places)) / n


def _check(name: str, data: Batch, maps: Array) -> None:
  """Raises InputError unless there are images, labels and maps of them."""
  image, label = data['image'].shape, data['label'].shape
  four, fits = len(image) == 4, label == image[:1]
  errors.require(f'{name}_set.image.shape', image, four, '[N, H, W, C]')
  errors.require(f'{name}_set.label.shape', label, fits, f'{image[:1]}')
  fits = maps.ndim in (4, 5) and maps.shape[1:4] == image[:3] and len(maps) > 0
  wanted = f'(M, {", ".join(map(str, image[:3]))}) or [..., C]'
  errors.require(f'{name}_maps.shape', maps.shape, fits, wanted)
