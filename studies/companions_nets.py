"""Which networks do the companion papers look at here? Small ones, on digits.

Trained whole inside of one program, for several strengths and seeds at once.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from implicit_attr import attacks, data, losses, models, objectives, train

BATCH = 64
LOSS = losses.make('cross_entropy')
MLP = models.build('mlp', widths=(64, 64), activation='softplus', beta=10.0)
CNN = models.build(
  'cnn', width=8, depth=2, hidden=32, activation='softplus', beta=10.0
)
SEEDS = (0, 1, 2)
STARTED = time.perf_counter()


def say(done: int, total: int, what: str) -> None:
  spent = time.perf_counter() - STARTED
  left = spent / done * (total - done) if done else float('nan')
  print(f'{done}/{total} {spent:.0f} s, ETA {left:.0f} s: {what}', flush=True)


def digits(split: str) -> dict[str, jax.Array]:
  source = data.load('digits', split, batch_size=1)
  found = source.examples(range(len(source)))
  return {name: jnp.asarray(found[name]) for name in ('image', 'label')}


def fit(
  module,
  make: Callable[[float], Callable],
  *,
  steps: int,
  lr: float = 0.05,
  momentum: float = 0.9,
) -> Callable:
  """(strength, seed) -> params; `make(strength)` is an objective, bound.

  A seed decides weights and batches, so strengths are compared in pairs.
  """
  tx = train.optimizer(momentum=momentum)
  rates = jnp.asarray(train.learning_rates(lr, steps, schedule='cosine'))
  batch, update = digits('train'), train.make_update(tx)
  n = len(batch['label'])

  def run(strength, seed):
    key = jax.random.key(seed)
    sums = train.make_sums(module, make(strength))

    def step(state, turn):
      i, rate = turn
      draw, noise = jax.random.split(jax.random.fold_in(key, i))
      at = jax.random.choice(draw, n, (BATCH,), replace=False)
      part = {name: a[at] for name, a in batch.items()}
      return update(state, sums(state.params, {}, part, noise), rate), None

    start = train.init(module, tx, key, batch['image'][:1])
    turns = jnp.arange(steps), rates
    return train.make_advance(step)(start, turns, steps)[0].params

  return run


def objective(name: str, weight: float | None = None, **options) -> Callable:
  """strength -> objective with `eps=strength`, or its weight if it has none."""
  takes_eps = name in ('pgd', 'trades', 'scorpio', 'llr', 'igr', 'aat', 'fgsm')

  def make(strength):
    factory = objectives.OBJECTIVES[name]
    if takes_eps:
      given = {'eps': strength} | ({} if weight is None else {'weight': weight})
    else:
      given = {} if name == 'none' else {'weight': strength}
    return lambda apply_fn: factory(apply_fn, LOSS, **given, **options)

  return make


@functools.cache
def apply_of(module) -> Callable:
  """The same function for the same module, so that programs are shared."""
  return train.frozen(module, {})


@functools.partial(jax.jit, static_argnames=('apply_fn', 'norm', 'square'))
def robust(apply_fn, params, x, y, eps, norm='linf', square=500):
  """Accuracy [..] under PGD, under PGD or APGD, and with Square beside them.

  Returns ({name: right [B]}, curve of the lowest margin of PGD [steps, B]).
  """
  predict = lambda x: apply_fn(params, x)[0]
  key, given = jax.random.key(0), {'eps': eps, 'norm': norm}
  pgd = attacks.pgd(key, predict, x, y, steps=40, restarts=2, **given)
  ce = attacks.apgd(key, predict, x, y, steps=50, **given)
  dlr = attacks.apgd(key, predict, x, y, loss='dlr', steps=50, **given)
  black = attacks.square(key, predict, x, y, queries=square, **given)
  right = {
    'clean': jnp.argmax(predict(x), -1) == y,
    'pgd': ~pgd.fooled,
    'apgd': ~(ce.fooled | dlr.fooled),
    'square': ~black.fooled,
  }
  right['apgd_square'] = right['apgd'] & right['square']
  return right, pgd.curve


def interval(values) -> tuple[float, float]:
  """Mean over seeds and the half width of its 95 % t interval."""
  values = np.asarray(values, float)
  n = len(values)
  if n < 2:
    return float(values.mean()), float('inf')
  half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
  return float(values.mean()), float(half)


def correlation(a, b, groups) -> dict[str, list[float]]:
  """Pearson and Spearman with 95 % intervals, resampled by group (seeds).

  Groups are arms: the seeds of one arm are not independent of each other.
  """
  a, b, groups = map(np.asarray, (a, b, groups))
  names, rng = np.unique(groups), np.random.default_rng(0)
  rows = {g: np.flatnonzero(groups == g) for g in names}
  kinds = {'pearson': stats.pearsonr, 'spearman': stats.spearmanr}
  found = {}
  for kind, measure in kinds.items():
    drawn = []
    for _ in range(1000):
      at = np.concatenate([rows[g] for g in rng.choice(names, len(names))])
      if np.ptp(a[at]) and np.ptp(b[at]):
        drawn.append(measure(a[at], b[at])[0])
    low, high = np.percentile(drawn, (2.5, 97.5))
    found[kind] = [float(measure(a, b)[0]), float(low), float(high)]
  return found
