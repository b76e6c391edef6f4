"""An experiment: data, a network, a loss, and when things happen, of a config.

Everything that can be wrong in a config is found while it is built, before the
first step. `parts` makes what a program is traced from; lanes bind traced
numbers through the same function.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from implicit_attr import data, errors, keys, losses, models, objectives, train
from implicit_attr.attribution import graph
from implicit_attr.runtime import cadence, dist
from implicit_attr.train.settings import Settings, read
from implicit_attr.types import ApplyFn, Batch, LossFn, Tree


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config made real; nothing in it changes while a run goes on.

  Attributes:
    config: as it was given, for the record.
    settings: the same, typed and checked.
    learning_rates: [total].
    every: 'log', 'eval', 'track', 'cheap', 'checkpoint' -> steps; 0 is never.
  """

  config: dict[str, Any]
  settings: Settings
  mesh: dist.Mesh
  train_set: data.Source
  test_set: data.Source
  module: Any
  loss: losses.Loss
  make_loss_fn: Callable[[ApplyFn], LossFn]
  tx: optax.GradientTransformation
  learning_rates: np.ndarray
  total: int
  every: dict[str, int]

  def init(self) -> train.State:
    """The state at step 0, compiled: drawing the weights is not free."""
    return jax.jit(self.draw)(self.settings.seed)

  def like(self) -> train.State:
    """A state of zeros with the right shapes, without compiling anything."""
    shapes = jax.eval_shape(self.draw, 0)
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)

  def draw(self, seed: jax.typing.ArrayLike) -> train.State:
    """The state at step 0 of any seed; to be jitted."""
    one = jnp.zeros((1, *self.train_set.shape), jnp.float32)
    return train.init(
      self.module, self.tx, keys.stream(seed, 'init'), one,
      average=self.settings.optim.average > 0,
    )  # fmt: skip

  @functools.cached_property
  def out(self) -> dict[str, Tree]:
    """Shapes of what the network gives beside logits for one image."""
    state = jax.eval_shape(self.draw, 0)
    one = jax.ShapeDtypeStruct((1, *self.train_set.shape), jnp.float32)
    run = lambda state, x: train.frozen(self.module, state.model_state)(
      state.params, x
    )
    return jax.eval_shape(run, state, one)[1]

  @functools.cached_property
  def softens(self) -> bool:
    """Whether a network of one's own has rectifiers that softplus replaces."""
    if not isinstance(self.module, models.Own):
      return False
    state = jax.eval_shape(self.draw, 0)
    one = jax.ShapeDtypeStruct((1, *self.train_set.shape), jnp.float32)
    run = lambda state, x: graph.softened(
      train.frozen(self.module, state.model_state)
    )(state.params, x, 1.0)
    try:
      jax.eval_shape(run, state, one)
    except errors.InputError:
      return False
    return True

  @property
  def attends(self) -> bool:
    """Whether the network gives attention weights, by whatever name."""
    return bool(self.out.get('attention'))

  @property
  def readout(self) -> str:
    """How the network reads its tokens: what attention maps read, too."""
    return getattr(self.module, 'readout', 'cls')

  def probe_batch(self, n: int) -> Batch:
    """`n` training examples, the same at every step and for every run."""
    return self.train_set.examples(self.probes(n))

  def probes(self, n: int) -> np.ndarray:
    """Where the examples of `probe_batch` are; at most all."""
    return _some('probe', self.train_set, n)

  def test_batch(self, n: int) -> Batch:
    """`n` test examples, the same for every run."""
    return self.test_set.examples(_some('test', self.test_set, n))

  def smooth_apply_fn(self, model_state: Tree) -> Callable[..., Any] | None:
    """The softplus network of the same parameters, (params, x, beta) -> as an
    apply_fn; None if it is smooth."""
    if self.softens:
      return graph.softened(train.frozen(self.module, model_state))
    if getattr(self.module, 'activation', None) != 'relu':
      return None
    return train.frozen(self.module.clone(activation='softplus'), model_state)


def build(config: dict[str, Any]) -> Experiment:
  """Builds and checks everything a config names.

  Raises:
    InputError: one line with the field, the value and what is allowed.
  """
  settings = read(config)
  mesh = dist.mesh(settings.parallel)
  train_set, test_set = _sources(settings, mesh)
  made = parts(settings, train_set.num_classes)
  if isinstance(made['module'], models.Own):
    made['module'].check(train_set.shape, train_set.num_classes)
  channels = train_set.shape[-1]
  for name in ('mean', 'std'):
    given = settings.model.options.get(name, 0.0)
    errors.require(
      f'model.{name}', given, np.size(given) in (1, channels),
      f'one number, or {channels} for images of {channels} channels',
    )  # fmt: skip
  errors.require(
    'track.examples', settings.track.examples,
    settings.track.examples <= len(train_set),
    f'at most the training set, {len(train_set)}',
  )  # fmt: skip
  per_epoch, span = train_set.steps_per_epoch, settings.train
  total = cadence.steps('train.duration', span.duration, per_epoch=per_epoch)
  to_steps = lambda field, words: cadence.steps(
    field, words, per_epoch=per_epoch, total=total
  )
  optim, track = settings.optim, settings.track
  built = Experiment(
    config=config,
    settings=settings,
    mesh=mesh,
    train_set=train_set,
    test_set=test_set,
    learning_rates=train.learning_rates(
      optim.lr, total, schedule=optim.schedule,
      warmup=to_steps('optim.warmup', optim.warmup),
    ),
    total=total,
    every={
      'log': to_steps('train.log_every', span.log_every),
      'eval': to_steps('train.eval_every', span.eval_every),
      'track': to_steps('track.every', track.every),
      'cheap': to_steps('track.cheap_every', track.cheap_every),
      'checkpoint': to_steps('checkpoint.every', settings.checkpoint.every),
    },
    **made,
  )  # fmt: skip
  carried = mesh.mode == 'pmap' and built.like().model_state
  errors.require(
    'parallel', settings.parallel, not carried,
    "'jit' with model.norm='batch', or whatever else is of the global batch",
  )  # fmt: skip
  return built


def parts(settings: Settings, num_classes: int) -> dict[str, Any]:
  """'module', 'loss', 'make_loss_fn' and 'tx' of `Experiment`.

  A number in `settings` may be traced, and is then taken as it is.
  """
  model, objective, optim = settings.model, settings.objective, settings.optim
  errors.require(
    'model.num_classes', model.options.get('num_classes'),
    'num_classes' not in model.options, 'left out: the data set knows it',
  )  # fmt: skip
  loss = losses.make(
    settings.loss.name, label_smoothing=settings.loss.label_smoothing
  )
  return {
    'module': models.build(
      model.name, num_classes=num_classes, **model.options
    ),
    'loss': loss,
    'make_loss_fn': objectives.make(
      objective.name, loss, weight=objective.weight, options=objective.options
    ),
    'tx': train.optimizer(
      optim.name, momentum=optim.momentum, nesterov=optim.nesterov,
      weight_decay=optim.weight_decay,
    ),
  }  # fmt: skip


def _sources(
  settings: Settings, mesh: dist.Mesh
) -> tuple[data.Source, data.Source]:
  """The training set as it is asked for, and the test set as it is stored."""
  given = settings.data
  errors.require(
    'data.batch_size', given.batch_size, given.batch_size % mesh.size == 0,
    f'divisible by the number of devices, {mesh.size}',
  )  # fmt: skip
  common = {'seed': settings.seed, 'data_dir': given.data_dir, **given.options}
  train_set = data.load(
    given.name, 'train', batch_size=given.batch_size, shard=mesh.shard,
    label_noise=given.label_noise, subset=given.subset, augment=given.augment,
    **common,
  )  # fmt: skip
  return train_set, data.load(given.name, 'test', batch_size=1, **common)


def _some(name: str, source: data.Source, n: int) -> np.ndarray:
  # Seed 0 whatever the run's seed: runs and seeds share their examples.
  order = jax.random.permutation(keys.stream(0, name), len(source))
  return np.sort(np.asarray(order[:n]))
