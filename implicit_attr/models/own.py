"""Networks of one's own: linen, nnx and equinox modules by their path.

`build('package.module:MyNet', num_classes=10, width=16)` makes of a module that
somebody else wrote what the networks here are: an object with `init` and
`apply` whose result is (logits, out). Nothing in it has to be written for us.
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from implicit_attr import by_path, errors
from implicit_attr.models import frameworks
from implicit_attr.models.inputs import Scale, standardise
from implicit_attr.types import Array, Tree

COMMON = {'activation': 'gelu', 'beta': 10.0}
"""What `configs.common.base` has in every model. A network that takes no such
argument is not given it; another value than this it refuses."""


@dataclasses.dataclass(frozen=True)
class Own:
  """A network of any framework, called as those of this package are.

  Attributes:
    path: 'package.module:name'.
    mean, std: of the pixels: what the network sees is (x - mean) / std.
  """

  path: str
  framework: frameworks.Framework
  mean: Scale = 0.0
  std: Scale = 1.0

  def init(self, key: Array, x: Array) -> dict[str, Tree]:
    """Variables, of which 'params' are trained, for images like `x`."""
    return self.framework.init(key, self._standardised(x))

  def apply(
    self,
    variables: dict[str, Tree],
    x: Array,
    *,
    train: bool = False,
    mutable: Any = False,
    rngs: Mapping[str, Array] | None = None,
  ) -> Any:
    """x [B, H, W, C] in pixel units -> (logits [B, C], out).

    `out` is {} unless the network gives a pair of logits and a dict. With
    `mutable`, the names of what is carried beside parameters, the result is
    ((logits, out), what is carried now), as flax has it.

    Args:
      train: training or evaluation mode, see `frameworks`.
      rngs: 'dropout', a key, for whatever is random; not needed otherwise.
    """
    key = rngs['dropout'] if rngs else jax.random.key(0)
    result, carried = self.framework.call(
      variables, self._standardised(x), train, key
    )
    pair = isinstance(result, tuple | list) and len(result) == 2
    if not (pair and isinstance(result[1], Mapping)):
      result = result, {}
    logits, out = result
    if mutable is False:
      return logits, dict(out)
    # A state keeps its types, whatever the precision of a training pass.
    kept = lambda new, old: new.astype(old.dtype)
    return (logits, dict(out)), {
      name: jax.tree.map(kept, carried[name], variables[name])
      for name in mutable
    }

  def check(self, shape: tuple[int, ...], num_classes: int) -> None:
    """Traces the network on images of `shape` in both modes.

    Raises:
      InputError: it cannot be made or run, has no parameters, or gives
        anything else than logits [B, num_classes].
    """

    def both(key, x):
      variables = self.init(key, x)
      carried = [name for name in variables if name != 'params']
      return (
        variables.get('params'),
        self.apply(variables, x),
        self.apply(
          variables, x, train=True, mutable=carried, rngs={'dropout': key}
        )[0],
      )

    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    try:
      params, *results = jax.eval_shape(both, jax.random.key(0), x)
    except Exception as e:  # whatever a stranger's code does
      raise errors.InputError(
        f'model.name={self.path!r} cannot be run on images of {shape} '
        f'({errors.said(e)})'
      ) from e
    errors.require(
      'model.name',
      self.path,
      bool(jax.tree.leaves(params)),
      'one with parameters',
    )
    for logits, _ in results:
      given = getattr(logits, 'shape', type(logits).__name__)
      errors.require(
        'model.name', self.path, given == (2, num_classes),
        f'one that gives logits [B, {num_classes}], or (logits, a dict of '
        f'arrays); of 2 images it gives {given}',
      )  # fmt: skip

  def _standardised(self, x: Array) -> Array:
    plain = self.mean == 0 and self.std == 1
    return x if plain else standardise(x, self.mean, self.std)


def build(
  path: str,
  num_classes: int = 10,
  mean: Scale = 0.0,
  std: Scale = 1.0,
  **options: Any,
) -> Own:
  """The network of the class, or function that makes one, at `path`.

  Args:
    path: 'package.module:name'.
    num_classes: handed on if there is an argument of this name.
    mean, std: stay here; the network is given standardised pixels.
    **options: its other arguments. `rngs` (nnx) and `key` (equinox) are ours.

  Raises:
    InputError: nothing is there, it is no such thing, or takes other arguments.
  """
  maker = by_path.find('model.name', path)
  errors.require(
    'model.name', path, callable(maker), 'a class or function, of a network'
  )
  try:
    taken = _parameters(maker)
  except (TypeError, ValueError) as e:
    raise _no_network(path, errors.said(e)) from e
  anything = any(p.kind == p.VAR_KEYWORD for p in taken.values())
  known = taken.keys() - {'parent', 'name', 'rngs', 'key'}
  for name, value in COMMON.items():
    if name not in known and not anything and options.get(name) == value:
      del options[name]
  given = {}
  for name, value in options.items():
    if not anything:
      errors.choose('model option', name, known)
    given[name] = dict(value) if isinstance(value, Mapping) else value
  if anything or 'num_classes' in known:
    given['num_classes'] = num_classes
  for name, p in taken.items():
    named = p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    if named and p.default is p.empty and name in known:
      errors.require(
        f'model.{name}', None, name in given, f'given: {path} needs it'
      )

  def make(key: Array) -> Any:
    if 'rngs' in taken:
      from flax import nnx

      return maker(**given, rngs=nnx.Rngs(key))
    return maker(**given, **({'key': key} if 'key' in taken else {}))

  try:
    framework = frameworks.of(make)
  except errors.InputError:
    raise
  except Exception as e:  # whatever a stranger's code does
    raise _no_network(path, errors.said(e)) from e
  if framework is None:
    raise _no_network(path, 'what it gives is none')
  return Own(path, framework, mean, std)


def _parameters(maker: Any) -> dict[str, inspect.Parameter]:
  """Of a class those of `__init__`, which a metaclass may hide."""
  bound = maker if isinstance(maker, functools.partial) else None
  made = bound.func if bound else maker
  if inspect.isclass(made):
    made = functools.partial(made.__init__, None)
  if bound:
    made = functools.partial(made, *bound.args, **bound.keywords)
  return dict(inspect.signature(made).parameters)


def _no_network(path: str, why: str) -> errors.InputError:
  return errors.InputError(
    f'model.name={path!r} must be a class, or a function, of a flax linen, '
    f'flax nnx or equinox module ({why})'
  )
