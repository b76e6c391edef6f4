"""What does a config describe? Data, a network, a loss, and when things happen.

A config section is the keyword arguments of one function; everything that can
be wrong in it is found here, before the first step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from implicit_attr import data, errors, keys, losses, models, objectives, train
from implicit_attr.runtime import cadence, dist
from implicit_attr.types import ApplyFn, Batch, LossFn, Tree

TRAIN_ONLY = ('label_noise', 'subset', 'augment')
"""Options of `data` that leave the test set as it is."""


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config made real; nothing in it changes while a run goes on."""

  config: dict[str, Any]
  mesh: dist.Mesh
  train_set: data.Source
  test_set: data.Source
  module: Any
  loss: losses.Loss
  make_loss_fn: Callable[[ApplyFn], LossFn]
  tx: optax.GradientTransformation
  learning_rates: np.ndarray  # [total]
  total: int
  every: dict[str, int]  # log, eval, track, checkpoint -> steps, 0 = never

  def init(self) -> train.State:
    """The state at step 0, compiled: drawing the weights is not free."""
    key = keys.stream(self.config['seed'], 'init')
    make = lambda key: train.init(self.module, self.tx, key, self._one())
    return jax.jit(make)(key)

  def like(self) -> train.State:
    """A state of zeros with the right shapes, without compiling anything."""
    shapes = jax.eval_shape(
      lambda key: train.init(self.module, self.tx, key, self._one()),
      jax.random.key(0),
    )
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)

  def _one(self) -> jax.Array:
    return jnp.zeros((1, *self.train_set.shape), jnp.float32)

  def probe_batch(self, n: int) -> Batch:
    """`n` training examples, the same at every step and for every arm."""
    return self.train_set.examples(self._draw('probe', self.train_set, n))

  def test_batch(self, n: int) -> Batch:
    """`n` test examples, the same for every arm."""
    return self.test_set.examples(self._draw('test', self.test_set, n))

  def _draw(self, name: str, source: data.Source, n: int) -> np.ndarray:
    # Seed 0 whatever the run's seed: arms and seeds share their examples.
    order = jax.random.permutation(keys.stream(0, name), len(source))
    return np.sort(np.asarray(order[:n]))

  def smooth_apply_fn(self, model_state: Tree) -> ApplyFn | None:
    """The softplus network of the same parameters; None if it is smooth."""
    if self.config['model'].get('activation') != 'relu':
      return None
    return train.frozen(self.module.clone(activation='softplus'), model_state)


def build(config: dict[str, Any]) -> Experiment:
  """Builds and checks everything a config names.

  Raises:
    InputError: one line with the field, the value and what is allowed.
  """
  errors.number('seed', config['seed'], 0, 2**31 - 1, integer=True)
  mesh = dist.mesh(config['parallel'])
  options = dict(config['data'])
  batch_size = options['batch_size']
  errors.number('data.batch_size', batch_size, 1, integer=True)
  errors.require(
    'data.batch_size', batch_size, batch_size % mesh.size == 0,
    f'divisible by the number of devices, {mesh.size}',
  )  # fmt: skip
  train_set = data.load(
    split='train', seed=config['seed'], shard=mesh.shard, **options
  )
  plain = {k: v for k, v in options.items() if k not in TRAIN_ONLY}
  plain['batch_size'] = 1
  test_set = data.load(split='test', seed=config['seed'], **plain)

  module = models.build(num_classes=train_set.num_classes, **config['model'])
  errors.require(
    'parallel', config['parallel'],
    mesh.mode == 'jit' or config['model'].get('norm') != 'batch',
    "'jit' with model.norm='batch': its statistics are of the global batch",
  )  # fmt: skip
  loss = losses.make(**config['loss'])
  optim = dict(config['optim'])
  lr, schedule, warmup = (optim.pop(k) for k in ('lr', 'schedule', 'warmup'))

  per_epoch = train_set.steps_per_epoch
  span = config['train']
  total = cadence.steps('train.duration', span['duration'], per_epoch=per_epoch)
  to_steps = lambda field, words: cadence.steps(
    field, words, per_epoch=per_epoch, total=total
  )
  for field, least in (
    ('examples', 1), ('order', 1), ('input_order', 1), ('draws', 2),
    ('sharpness_batches', 2),
  ):  # fmt: skip
    errors.number(f'track.{field}', config['track'][field], least, integer=True)
  errors.number('track.budget', config['track']['budget'], 0)
  for field in ('tol', 'input_tol'):
    errors.number(f'track.{field}', config['track'][field], 0, open_low=True)
  keep = config['checkpoint']['keep']
  errors.number('checkpoint.keep', keep, 1, integer=True)
  errors.require(
    'track.examples', config['track']['examples'],
    config['track']['examples'] <= len(train_set),
    f'at most the training set, {len(train_set)}',
  )  # fmt: skip
  return Experiment(
    config=config,
    mesh=mesh,
    train_set=train_set,
    test_set=test_set,
    module=module,
    loss=loss,
    make_loss_fn=objectives.make(loss=loss, **config['objective']),
    tx=train.optimizer(**optim),
    learning_rates=train.learning_rates(
      lr, total, schedule=schedule, warmup=to_steps('optim.warmup', warmup)
    ),
    total=total,
    every={
      'log': to_steps('train.log_every', span['log_every']),
      'eval': to_steps('train.eval_every', span['eval_every']),
      'track': to_steps('track.every', config['track']['every']),
      'cheap': to_steps('track.cheap_every', config['track']['cheap_every']),
      'checkpoint': to_steps('checkpoint.every', config['checkpoint']['every']),
    },
  )
