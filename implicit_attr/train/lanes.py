"""Which arms of a sweep can share one program, and what tells them apart in it?

Arms that differ only in numbers which a program can take as arguments are its
lanes. What is equal in all of them stays a constant, so that a grid over
learning rates and seeds computes what its single runs do.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import keys, losses, objectives, train
from implicit_attr.train.experiment import Experiment
from implicit_attr.types import Array, Tree

_ALWAYS = lambda value: True
# 0 and None mean another program: no momentum buffer, no term in the loss.
_POSITIVE = lambda value: value is not None and value > 0

TRACED: dict[str, Callable[[Any], bool]] = {
  'seed': _ALWAYS,
  'optim.lr': _ALWAYS,
  'optim.momentum': _POSITIVE,
  'optim.weight_decay': _POSITIVE,
  'loss.label_smoothing': _ALWAYS,
  'objective.weight': _POSITIVE,
  'model.beta': _ALWAYS,
}
"""The fields in which lanes may differ, and the values that may be traced."""


def groups(configs: Sequence[dict[str, Any]], most: int) -> list[list[int]]:
  """Positions in `configs`, arms that can be lanes of one program together.

  In the order of their first members, at most `most` in each, and groups that
  are too large are cut into parts of nearly one size, for each size is a
  program of its own. Arms that measure by the clock (`track.budget`) or use
  the pmap adapter are alone.
  """
  alike: dict[str, list[int]] = {}
  for i, config in enumerate(configs):
    alike.setdefault(_kind(i, config), []).append(i)
  parts = []
  for found in alike.values():
    count = -(-len(found) // most)
    parts += [part.tolist() for part in np.array_split(found, count)]
  return parts


def _kind(i: int, config: dict[str, Any]) -> str:
  """What two configs must have in common to be lanes of one program."""
  if config['track']['budget'] or config['parallel'] != 'jit':
    return f'{i}'
  common = json.loads(json.dumps(config))
  for field, traceable in TRACED.items():
    section, name = _place(common, field)
    if name in section and traceable(section[name]):
      section[name] = 'traced'
  return json.dumps(common, sort_keys=True)


def _place(config: dict[str, Any], field: str) -> tuple[dict, str]:
  *path, name = field.split('.')
  return functools.reduce(dict.__getitem__, path, config), name


@dataclasses.dataclass(frozen=True)
class Lanes:
  """Experiments that are one program; [lanes] is the first axis of its arrays.

  Args:
    experiments: what `groups` put together, built; all on one device.
  """

  experiments: Sequence[Experiment]

  def __len__(self) -> int:
    return len(self.experiments)

  @property
  def template(self) -> Experiment:
    """Any of them, for what all have in common."""
    return self.experiments[0]

  def of_sources(self) -> list[Experiment]:
    """One lane of each seed: they read the data, for all that share it."""
    first = {e.config['seed']: e for e in reversed(self.experiments)}
    return [first[seed] for seed in sorted(first)]

  @functools.cached_property
  def values(self) -> dict[str, np.ndarray]:
    """'seed' [lanes] uint32; 'source' [lanes], which of `of_sources` has
    a lane's data; and the fields of `TRACED` in which lanes differ, float32."""
    found = {}
    for field in TRACED:
      places = [_place(e.config, field) for e in self.experiments]
      given = [section.get(name) for section, name in places]
      if any(value != given[0] for value in given):
        found[field] = np.array(given, np.float32)
    found.pop('optim.lr', None)  # an argument of the step anyway: `rates`
    seeds = [e.config['seed'] for e in self.experiments]
    order = sorted(set(seeds))
    return found | {
      'seed': np.array(seeds, np.uint32),
      'source': np.array([order.index(seed) for seed in seeds], np.int32),
    }

  @functools.cached_property
  def rates(self) -> np.ndarray:
    """Learning rates [lanes, total]."""
    return np.stack([e.learning_rates for e in self.experiments])

  def bind(self, values: dict[str, Array]) -> Experiment:
    """The template with the traced numbers of one lane for its own."""
    template, config = self.template, self.template.config
    new = {field: v for field, v in values.items() if '.' in field}
    if not new:
      return template
    module, loss = template.module, template.loss
    if 'model.beta' in new:
      module = module.clone(beta=new['model.beta'])
    if 'loss.label_smoothing' in new:
      loss = losses.make(
        config['loss']['name'], label_smoothing=new['loss.label_smoothing']
      )
    optim = dict(config['optim'])
    for name in ('lr', 'schedule', 'warmup'):
      del optim[name]
    for name in ('momentum', 'weight_decay'):
      optim[name] = new.get(f'optim.{name}', optim[name])
    objective = config['objective']
    make_loss_fn = objectives.make(loss=loss, **objective)
    if 'objective.weight' in new:  # not 0 in any lane, which make would ask
      make_loss_fn = functools.partial(
        objectives.OBJECTIVES[objective['name']], loss=loss,
        weight=new['objective.weight'], **objective['options'],
      )  # fmt: skip
    return dataclasses.replace(
      template,
      module=module,
      loss=loss,
      tx=train.optimizer(**optim),
      make_loss_fn=make_loss_fn,
    )

  @property
  def mapped(self) -> bool:
    """True where lanes take turns inside the program, as convolutions on CPUs.

    Side by side they would be grouped convolutions, which XLA's CPU back end
    has no fast code for: see benchmarks/grid.py.
    """
    name = self.template.config['model']['name']
    convolutional = name == 'cnn' or name.startswith('resnet')
    return convolutional and jax.default_backend() == 'cpu'

  def spread(self, fun: Callable, shared: Sequence[int] = ()) -> Callable:
    """`fun` of one lane as a function of all: arrays gain a first axis.

    Args:
      shared: positions of the arguments that are the same for all lanes and
        have no such axis.
    """
    if not self.mapped:
      # vmap gives no axis to what does not depend on a lane; nor do we want
      # to know here how many arguments `fun` is called with.
      return lambda *args: jax.vmap(
        fun, [None if i in shared else 0 for i in range(len(args))]
      )(*args)

    def over(*args):
      own = [a for i, a in enumerate(args) if i not in shared]

      def one(own):
        rest = iter(own)
        return fun(
          *(a if i in shared else next(rest) for i, a in enumerate(args))
        )

      return jax.lax.map(one, own)

    return over

  def of_seeds(self, fetch: Callable[[Experiment], Tree]) -> Tree:
    """`fetch` of one lane of each seed, stacked: [seeds, …]; see `pick`."""
    found = [fetch(e) for e in self.of_sources()]
    return jax.tree.map(lambda *a: np.stack(a), *found)

  def init(self) -> train.State:
    """The states at step 0, [lanes, …]; the weights of the single runs."""
    template = self.template
    one = jnp.zeros((1, *template.train_set.shape), jnp.float32)

    def make(seed):
      key = keys.stream(seed, 'init')
      return train.init(template.module, template.tx, key, one)

    # In turns: a random number is drawn by the same instructions as alone.
    return jax.jit(lambda seeds: jax.lax.map(make, seeds))(self.values['seed'])


def pick(stacked: Tree, values: dict[str, Array]) -> Tree:
  """What a lane reads of arrays [seeds, …]."""
  return jax.tree.map(lambda a: a[values['source']], stacked)


def stack(trees: Sequence[Tree]) -> Tree:
  """Trees of single runs -> one tree with a first axis, on the host."""
  return jax.tree.map(lambda *a: np.stack(a), *jax.device_get(list(trees)))


def lane(tree: Tree, i: int) -> Tree:
  """Lane `i` of arrays [lanes, …] on the host."""
  return jax.tree.map(lambda a: a[i, ...], tree)
