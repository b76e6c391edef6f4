"""Settings: the sections of a config as frozen, typed records, checked once.

`read` is the one place where a config is looked at by its keys. What a section
may hold is written beside each field; what only data or a network can tell (how
many examples there are, which options an objective takes) is checked where
those are made.
"""

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from implicit_attr import attacks, attribution, errors, losses
from implicit_attr.attacks import map_losses
from implicit_attr.data.augment import AUGMENTATIONS
from implicit_attr.runs import mirrors
from implicit_attr.runtime import dist, programs
from implicit_attr.train import optim
from implicit_attr.train.checks import (
  Frozen,
  ascending,
  count,
  flag,
  keywords,
  mapping,
  maybe,
  one_of,
  path,
  real,
  some_of,
  string,
  words,
)
from implicit_attr.train.step import PRECISIONS

CHECKPOINTS = ('last', 'train_loss', 'test_accuracy')
"""A fixed duration, and where a train loss and a test accuracy were reached."""

SIMILARITIES = ('ssim', 'lens_recall')
"""Columns by option, beside the five that every evaluation has."""


def maps() -> dict[str, Callable]:
  """Maps of pixels, and maps of tokens for networks with attention."""
  return attribution.METHODS | attribution.ATTENTION_METHODS


def untargeted() -> list[str]:
  """Attacks that need no region or map to aim at."""
  return sorted(set(attacks.OBJECTIVES) - set(map_losses.TARGETED))


OPTION = {
  bool: flag,
  int: count(-1_000_000, 1_000_000),
  float: real(-1_000_000, 1_000_000),
  str: string,
}
"""What a map's option may be, by the type of its default; the map itself looks
at the range. An array for a number is taken where `audit` gives one."""


def map_options(field: str, value: Any) -> Mapping[str, Mapping[str, Any]]:
  """{map: its keyword arguments}, those that the map has.

  Maps that are not evaluated may have theirs, as the defaults of a config do.
  """
  kept = mapping(field, value)
  for name, options in kept.items():
    errors.choose(field, name, maps())
    inside = f'{field}.{name}'
    known = inspect.signature(maps()[name]).parameters.values()
    known = {p.name: p.default for p in known if p.kind == p.KEYWORD_ONLY}
    for option in mapping(inside, options):
      errors.choose(inside, option, known.keys() - {'key', 'target'})
      given, check = options[option], OPTION.get(type(known[option]))
      if check and not (isinstance(given, tuple) or hasattr(given, 'shape')):
        check(f'{inside}.{option}', given)
    keywords(1_000_000)(inside, options)
  return kept


def top_set(field: str, value: Any) -> float | int:
  """A share of the pixels; the integer 1 is one pixel, and 1.0 all of them."""
  share = real(0, 1, open_low=True)(field, value)
  return 1 if isinstance(value, int) else share


def milestones(field: str, value: Any) -> Mapping[str, float]:
  """A threshold for each of the two."""
  limits = {'train_loss': real(0), 'test_accuracy': real(0, 1)}
  _same_keys(field, mapping(field, value), limits)
  kept = {name: limits[name](f'{field}.{name}', value[name]) for name in limits}
  return Frozen(kept)


@dataclasses.dataclass(frozen=True)
class Model:
  """`models.build`; `options` is the rest of the section."""

  name: Annotated[str, string]
  options: Annotated[Mapping[str, Any], keywords(math.inf)]


@dataclasses.dataclass(frozen=True)
class Data:
  """`data.load`; `options` is the rest of the section."""

  name: Annotated[str, string]
  batch_size: Annotated[int, count(1)]
  data_dir: Annotated[str | None, maybe(path)]
  label_noise: Annotated[float, real(0, 1)]
  subset: Annotated[int | None, maybe(count(1, 1 << 31))]
  augment: Annotated[tuple[str, ...], some_of(lambda: AUGMENTATIONS, 0)]
  options: Annotated[Mapping[str, Any], keywords(1 << 24)]


@dataclasses.dataclass(frozen=True)
class Optim:
  """`train.optimizer`, `learning_rates` and `make_update`."""

  name: Annotated[str, one_of(lambda: optim.OPTIMIZERS)]
  lr: Annotated[float, real(0, open_low=True)]
  momentum: Annotated[float, real(0, 0.9999)]
  nesterov: Annotated[bool, flag]
  weight_decay: Annotated[float, real(0)]
  schedule: Annotated[str, one_of(lambda: optim.SCHEDULES)]
  warmup: Annotated[str, words]
  average: Annotated[float, real(0, 0.99999)] = 0.0


@dataclasses.dataclass(frozen=True)
class Loss:
  """`losses.make`."""

  name: Annotated[str, one_of(lambda: losses.LOSSES)]
  label_smoothing: Annotated[float, real(0, 0.999)]


@dataclasses.dataclass(frozen=True)
class Objective:
  """`objectives.make`, which knows what each of them takes."""

  name: Annotated[str, string]
  weight: Annotated[float | None, maybe(real(0))]
  options: Annotated[Mapping[str, Any], keywords(1_000_000)]


@dataclasses.dataclass(frozen=True)
class Train:
  """The loop: how long, what is logged when, which states are kept."""

  duration: Annotated[str, words]
  log_every: Annotated[str, words]
  eval_every: Annotated[str, words]
  milestones: Annotated[Mapping[str, float], milestones]
  stop_at: Annotated[str, one_of(lambda: ('never', *CHECKPOINTS[1:]))] = 'never'
  resident_bytes: Annotated[int, count(0, 1 << 50)] = 2 << 30
  precision: Annotated[str, one_of(lambda: PRECISIONS)] = 'float32'
  log_to: Annotated[tuple[str, ...], mirrors.installed] = ()


@dataclasses.dataclass(frozen=True)
class Track:
  """`tracking.Tracker`."""

  every: Annotated[str, words]
  cheap_every: Annotated[str, words]
  examples: Annotated[int, count(1)]
  order: Annotated[int, count(1, 10_000)]
  tol: Annotated[float, real(0, open_low=True)]
  draws: Annotated[int, count(2, 1_000_000)]
  input_order: Annotated[int, count(1, 10_000)]
  input_tol: Annotated[float, real(0, open_low=True)]
  sharpness_batches: Annotated[int, count(2, 10_000)]
  whole: Annotated[int, count(0, 1 << 31)] = 0


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """`evaluation.evaluate`, and what `audit` is asked for."""

  attributions: Annotated[tuple[str, ...], some_of(maps)]
  options: Annotated[Mapping[str, Mapping[str, Any]], map_options]
  target: Annotated[str, one_of(lambda: attribution.TARGETS)]
  attacks: Annotated[tuple[str, ...], some_of(untargeted)]
  eps: Annotated[float, real(0)]
  norm: Annotated[str, one_of(lambda: ('linf', 'l2'))]
  steps: Annotated[int, count(1, 1_000_000)]
  restarts: Annotated[int, count(1, 10_000)]
  k: Annotated[float, top_set]
  batch_size: Annotated[int, count(1)]
  examples: Annotated[int, count(1)] = 1
  checkpoints: Annotated[tuple[str, ...], some_of(lambda: CHECKPOINTS)] = (
    'last',
  )
  curvature: Annotated[int, count(0)] = 0
  similarities: Annotated[
    tuple[str, ...], some_of(lambda: SIMILARITIES, 0)
  ] = ()
  radii: Annotated[tuple[float, ...], ascending] = ()
  certificates: Annotated[bool, flag] = False
  sanity: Annotated[bool, flag] = False

  def check(self, prefix: str = 'evaluation.') -> None:
    """Raises InputError for fields that do not go together."""
    tokens = set(self.attributions) & set(attribution.ATTENTION_METHODS)
    errors.require(
      f'{prefix}attacks', self.attacks,
      not (tokens and 'mass_centre' in self.attacks),
      'attacks that need no place in the image, for maps of tokens',
    )  # fmt: skip
    # The farthest two images of N values are: sqrt(N), here of 4096 x 4096.
    most, text = (
      (1, 'in pixel units, at most their range of 1: 8/255 is 0.0314')
      if self.norm == 'linf'
      else (4096, 'in pixel units, at most 4096 for l2')
    )
    errors.require(f'{prefix}eps', self.eps, self.eps <= most, text)
    small = max(self.radii, default=0) <= most
    errors.require(f'{prefix}radii', self.radii, small, text)
    errors.require(
      f'{prefix}checkpoints', self.checkpoints, 'last' in self.checkpoints,
      "a tuple with 'last'",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """How often a run is saved, and how many saves are kept."""

  every: Annotated[str, words]
  keep: Annotated[int, count(1, 1_000_000)]


@dataclasses.dataclass(frozen=True)
class Settings:
  """A config, typed."""

  seed: Annotated[int, count(0, 2**31 - 1)]
  parallel: Annotated[str, one_of(lambda: dist.MODES)]
  compile: Annotated[str, one_of(lambda: programs.EFFORTS)]
  model: Model
  data: Data
  optim: Optim
  loss: Loss
  objective: Objective
  train: Train
  track: Track
  evaluation: Evaluation
  checkpoint: Checkpoint


def read(config: Mapping[str, Any]) -> Settings:
  """The settings of a config: nested dicts, as `configs/common.py` has them.

  Raises:
    InputError: one line with the field, the value and what is allowed.
  """
  settings = record(Settings, '', config)
  settings.evaluation.check()
  return settings


def record(cls: type, field: str, given: Any) -> Any:
  """The record `cls` of one section; its fields are named `field.name`."""
  hints = typing.get_type_hints(cls, include_extras=True)
  # A field that came later than a run folder has its default there.
  defaults = {f.name: f.default for f in dataclasses.fields(cls)}
  defaults = {k: v for k, v in defaults.items() if v is not dataclasses.MISSING}
  given = defaults | dict(mapping(field or 'config', given))
  rest_is_options = cls in (Model, Data)
  if rest_is_options:
    # A key 'options' of such a section is an option like any, an unknown one.
    names = hints.keys() - {'options'}
    rest = {k: given.pop(k) for k in [*given] if k not in names}
    given['options'] = rest
  _same_keys(field, given, hints)
  values = {}
  for name, hint in hints.items():
    where = f'{field}.{name}'.lstrip('.')
    if name == 'options' and rest_is_options:
      where = field
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
      values[name] = record(hint, where, given[name])
    else:
      values[name] = typing.get_args(hint)[1](where, given[name])
  return cls(**values)


def _same_keys(field: str, given: Mapping, wanted: Mapping) -> None:
  for name in given:
    where = f'{field}.{name}'.lstrip('.')
    errors.choose(where.rpartition('.')[0] or 'config', name, wanted)
  for name in wanted:
    where = f'{field}.{name}'.lstrip('.')
    errors.require(where, None, name in given, 'given')
