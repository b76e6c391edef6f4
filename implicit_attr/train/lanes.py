"""Lanes: runs that differ in numbers only, as one program; or one run alone.

What is equal in all lanes stays a constant of the program, what differs is
traced, so that a grid over learning rates and seeds computes what its single
runs do. One run alone has no lane axis and is not traced through `vmap`: every
method here is then the identity, and a training, a tracker or an evaluation
that is written for lanes serves both.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors, train
from implicit_attr.train.experiment import Experiment, parts
from implicit_attr.train.settings import Settings
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

CONVOLUTIONS = ('conv_general_dilated', 'implicit_attr_conv')
"""Names in the primitives of convolutions, of JAX and of `models.conv`."""


def groups(configs: Sequence[dict[str, Any]], most: int) -> list[list[int]]:
  """Positions in `configs` of runs that can be lanes of one program together.

  In the order of their first members, at most `most` in each, and groups that
  are too large are cut into parts of nearly one size, for each size is a
  program of its own. Runs that use the pmap adapter are alone.
  """
  alike: dict[str, list[int]] = {}
  for i, config in enumerate(configs):
    alike.setdefault(_kind(i, config), []).append(i)
  groups = []
  for members in alike.values():
    count = -(-len(members) // most)
    groups += [part.tolist() for part in np.array_split(members, count)]
  return groups


def _kind(i: int, config: dict[str, Any]) -> str:
  """What two configs must have in common to be lanes of one program."""
  if config['parallel'] != 'jit':
    return f'{i}'
  common = json.loads(json.dumps(config))
  for field, traceable in TRACED.items():
    *path, name = field.split('.')
    section = functools.reduce(dict.__getitem__, path, common)
    if name in section and traceable(section[name]):
      section[name] = 'traced'
  return json.dumps(common, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Lanes:
  """Experiments that are one program; [lanes] is the first axis of its arrays.

  A single experiment is `alone`: nothing has that axis.

  Args:
    experiments: one, or what `groups` put together, built.

  Raises:
    InputError: several lanes on several devices: a batch is split over devices
      or lanes are one program of one device, not both.
  """

  experiments: tuple[Experiment, ...]

  @classmethod
  def of(cls, experiments: Sequence[Experiment]) -> 'Lanes':
    devices = jax.device_count()
    errors.require(
      '--lanes', len(experiments), len(experiments) == 1 or devices == 1,
      f'1 on {devices} devices: several lanes are a program of one device',
    )  # fmt: skip
    return cls(tuple(experiments))

  def __len__(self) -> int:
    return len(self.experiments)

  @property
  def alone(self) -> bool:
    return len(self) == 1

  @property
  def lead(self) -> tuple[int, ...]:
    """The axes that arrays of a lane's own have before theirs."""
    return () if self.alone else (len(self),)

  @property
  def template(self) -> Experiment:
    """Any of them, for what all have in common."""
    return self.experiments[0]

  @functools.cached_property
  def values(self) -> dict[str, np.ndarray | np.generic]:
    """'seed' [lanes] uint32; 'source' [lanes], which of `of_seeds` has a
    lane's data; and the fields of `TRACED` in which lanes differ, float32."""
    seeds = [e.settings.seed for e in self.experiments]
    if self.alone:
      return {'seed': np.uint32(seeds[0])}
    differing = {}
    for field in TRACED:
      given = [_value(e.settings, field) for e in self.experiments]
      if any(value != given[0] for value in given):
        differing[field] = np.array(given, np.float32)
    differing.pop('optim.lr', None)  # an argument of the step anyway: `rates`
    order = sorted(set(seeds))
    return differing | {
      'seed': np.array(seeds, np.uint32),
      'source': np.array([order.index(seed) for seed in seeds], np.int32),
    }

  @functools.cached_property
  def rates(self) -> np.ndarray:
    """Learning rates [lanes, total]."""
    return self.stack([e.learning_rates for e in self.experiments])

  def bind(self, values: dict[str, Array]) -> Experiment:
    """The template with the traced numbers of one lane for its own."""
    traced = {field: v for field, v in values.items() if '.' in field}
    if not traced:
      return self.template
    settings = self.template.settings
    for field, value in traced.items():
      settings = _with(settings, field, value)
    made = parts(settings, self.template.train_set.num_classes)
    return dataclasses.replace(self.template, settings=settings, **made)

  @functools.cached_property
  def mapped(self) -> bool:
    """True where lanes take turns inside the program, as convolutions on CPUs.

    Side by side they would be grouped convolutions, which XLA's CPU back end
    has no fast code for: see benchmarks/grid.py.
    """
    if jax.default_backend() != 'cpu':
      return False
    e = self.template
    state = jax.eval_shape(e.draw, 0)
    x = jax.ShapeDtypeStruct((1, *e.train_set.shape), jnp.float32)
    run = lambda s, x: train.frozen(e.module, s.model_state)(s.params, x)
    program = str(jax.make_jaxpr(run)(state, x))
    return any(name in program for name in CONVOLUTIONS)

  def spread(self, fun: Callable, shared: Sequence[int] = ()) -> Callable:
    """`fun` of one lane as a function of all: arrays gain a first axis.

    Args:
      shared: positions of the arguments that are the same for all lanes and
        have no such axis.
    """
    if self.alone:
      return fun
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

  def only(
    self, due: Array, fun: Callable[[], tuple[Tree, Tree]], kept: Tree
  ) -> tuple[Tree, Tree]:
    """`fun()` -> (new, result) in the lanes that are `due`, else (kept, zeros).

    A run alone is asked for nothing that is not due. A lane that is not due
    costs nothing where lanes take turns, and changes nothing anywhere.
    """
    if self.alone:
      return fun()
    shapes = jax.eval_shape(fun)[1]
    zeros = lambda: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.cond(due, fun, lambda: (kept, zeros()))

  def of_seeds(self, fetch: Callable[[Experiment], Tree]) -> Tree:
    """`fetch` of one lane of each seed, stacked: [seeds, …]; see `pick`."""
    if self.alone:
      return fetch(self.template)
    first = {e.settings.seed: e for e in reversed(self.experiments)}
    trees = [fetch(first[seed]) for seed in sorted(first)]
    return jax.tree.map(lambda *a: np.stack(a), *trees)

  def of_images(self, fetch: Callable[[Experiment], Tree]) -> Tree:
    """As `of_seeds`, but of one lane where all seeds have the same images."""
    if self.template.settings.data.subset is None:
      return fetch(self.template)
    return self.of_seeds(fetch)

  def pick(self, stacked: Tree, values: dict[str, Array]) -> Tree:
    """What a lane reads of `of_seeds`."""
    if self.alone:
      return stacked
    return jax.tree.map(lambda a: a[values['source']], stacked)

  def pick_images(self, stacked: Tree, values: dict[str, Array]) -> Tree:
    """What a lane reads of `of_images`."""
    if self.template.settings.data.subset is None:
      return stacked
    return self.pick(stacked, values)

  def init(self) -> train.State:
    """The states at step 0, [lanes, …]; the weights of the single runs."""
    if self.alone:
      return self.template.init()
    # In turns: a random number is drawn by the same instructions as alone.
    draw = lambda seeds: jax.lax.map(self.template.draw, seeds)
    return jax.jit(draw)(self.values['seed'])

  def stack(self, trees: Sequence[Tree]) -> Tree:
    """Trees of single runs -> one tree with the lane axis, on the host."""
    if self.alone:
      return trees[0]
    return jax.tree.map(lambda *a: np.stack(a), *jax.device_get(list(trees)))

  def take(self, tree: Tree, i: int) -> Tree:
    """Lane `i` of arrays [lanes, …]."""
    return tree if self.alone else jax.tree.map(lambda a: a[i, ...], tree)


def _value(settings: Settings, field: str) -> Any:
  section, _, name = field.rpartition('.')
  record: Any = getattr(settings, section) if section else settings
  if hasattr(record, name):
    return getattr(record, name)
  return record.options.get(name)


def _with(settings: Settings, field: str, value: Array) -> Settings:
  section, _, name = field.rpartition('.')
  record = getattr(settings, section)
  change = {name: value}
  if not hasattr(record, name):
    change = {'options': {**record.options, **change}}
  return dataclasses.replace(
    settings, **{section: dataclasses.replace(record, **change)}
  )
