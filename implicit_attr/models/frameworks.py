"""How linen, nnx and equinox modules are made, called and kept as plain trees.

Each of the three gives the same two functions. `init(key, x)` draws variables,
{'params': tree, and whatever else the network carries}; `call(variables, x,
train, key)` runs the network and gives what it returned and what it carries
now. Trees are nested dicts with strings for keys, so that a checkpoint, a probe
or a list of layers needs to know no framework. `x` is [B, H, W, C].

A network is in training or in evaluation mode by whatever its framework has for
that: arguments of its call or fields called as in `MODES`, `train()` and
`eval()` of nnx, `inference_mode` of equinox. Randomness is of the key alone.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from implicit_attr.types import Array, Tree

MODES = {
  'train': True, 'training': True, 'is_training': True,
  'deterministic': False, 'inference': False, 'use_running_average': False,
}  # fmt: skip
"""Arguments by which networks are told their mode; their values in training."""

Make = Callable[[Array], Any]
"""A key -> a module; the key is not needed where a module holds no weights."""


class Framework(Protocol):
  """One network of one framework."""

  def init(self, key: Array, x: Array) -> dict[str, Tree]: ...

  def call(
    self, variables: dict[str, Tree], x: Array, train: bool, key: Array
  ) -> tuple[Any, dict[str, Tree]]: ...


def of(make: Make) -> Framework | None:
  """The framework of the module that `make` gives; None if it is of none."""
  made: list[Any] = []
  jax.eval_shape(lambda key: made.append(make(key)), jax.random.key(0))
  module = made[0][0] if isinstance(made[0], tuple) else made[0]
  kinds = {c.__module__.partition('.')[0] for c in type(module).__mro__}
  if isinstance(module, nn.Module):
    return Linen(module)
  if 'equinox' in kinds and callable(module):
    return Equinox(make)
  if 'flax' in kinds and callable(module):
    return Nnx(make)
  return None


class Linen:
  """A flax linen module, which holds no weights."""

  def __init__(self, module: nn.Module):
    self._module = module
    self._names = _arguments(module)
    fields = set(type(module).__dataclass_fields__) - self._names
    self._fields = fields & set(MODES)

  def init(self, key: Array, x: Array) -> dict[str, Tree]:
    keys = {'params': key, 'dropout': jax.random.fold_in(key, 1)}
    variables = self._in_mode(False).init(keys, x, **_modes(self._names, False))
    # What a network sows is a result, not a state.
    return {k: v for k, v in variables.items() if k != 'intermediates'}

  def call(self, variables, x, train, key) -> Any:
    carried = [name for name in variables if name != 'params']
    # Other streams than dropout's fall back on that of the parameters.
    keys = {'params': jax.random.fold_in(key, 1), 'dropout': key}
    return self._in_mode(train).apply(
      variables, x, **_modes(self._names, train), mutable=carried, rngs=keys
    )

  def _in_mode(self, train: bool) -> nn.Module:
    given = _modes(self._fields, train)
    return self._module.clone(**given) if given else self._module


class Nnx:
  """A flax nnx module: parameters are its `nnx.Param`, no other variables."""

  def __init__(self, make: Make):
    self._make = make
    made: list[Any] = []

    def split(key):
      module = make(key)
      graph, *states = self._split(module)
      made.extend((graph, list(vars(module)), _arguments(module)))
      return states

    self._states = jax.eval_shape(split, jax.random.key(0))
    self._graph, self._order, self._names = made

  @staticmethod
  def _split(module: Any) -> tuple:
    from flax import nnx

    # Keys of random streams are given anew in each call.
    return nnx.split(module, nnx.Param, nnx.RngState, ...)

  def init(self, key: Array, x: Array) -> dict[str, Tree]:
    _, params, _, carried = self._split(self._make(key))
    return _variables(
      params=_named(_plain(params), self._order),
      carried=_named(_plain(carried)),
    )

  def call(self, variables, x, train, key):
    from flax import nnx

    params, streams, carried = self._states
    filled = lambda state, nested: _filled(state, _plain(state), nested)
    module = nnx.merge(
      self._graph,
      filled(params, variables['params']),
      _drawn(streams, key),
      filled(carried, variables.get('carried', {})),
    )
    module.train() if train else module.eval()
    result = module(x, **_modes(self._names, train))
    _, _, _, after = self._split(module)
    known = _flat(_plain(carried))  # what a network sows is not among these
    after = {k: v for k, v in _flat(_plain(after)).items() if k in known}
    return result, _variables(carried=traverse_util.unflatten_dict(after))


def _plain(state: Tree) -> Tree:
  """A state of nnx without the boxes that are its variables."""
  from flax import nnx

  return nnx.to_pure_dict(state)


class Equinox:
  """An equinox module, of one example with channels first, as is usual there.

  Parameters are its floating-point arrays. `make` may give (module, State), and
  else `make_with_state` makes the state of layers such as BatchNorm, whose axis
  is called 'batch'. The call gets `state` and `key` if it has arguments of
  these names.
  """

  def __init__(self, make: Make):
    import equinox as eqx

    def with_state(key: Array) -> tuple[Any, Any]:
      made = eqx.nn.make_with_state(make)(key)
      return made[0] if isinstance(made[0], tuple) else made

    self._with_state = with_state
    made: list[Any] = []

    def split(key):
      *arrays, static, module = self._split(key)
      fields = list(type(module).__dataclass_fields__)
      made.extend((static, fields, _arguments(module)))
      return arrays

    self._arrays = jax.eval_shape(split, jax.random.key(0))
    self._static, self._order, self._names = made

  def _split(self, key: Array) -> tuple:
    """(params, other arrays, state, all that is no array, the module)."""
    import equinox as eqx

    module, state = self._with_state(key)
    params, rest = eqx.partition(module, eqx.is_inexact_array)
    arrays, static = eqx.partition(rest, eqx.is_array)
    return params, arrays, state, static, module

  def init(self, key: Array, x: Array) -> dict[str, Tree]:
    params, arrays, state, *_ = self._split(key)
    return _variables(
      params=_named(params, self._order), arrays=_named(arrays),
      state=_named(state),
    )  # fmt: skip

  def call(self, variables, x, train, key):
    import equinox as eqx

    params, arrays, state = (
      _filled(like, like, variables.get(name, {}))
      for name, like in zip(
        ('params', 'arrays', 'state'), self._arrays, strict=True
      )
    )
    module = eqx.combine(params, arrays, self._static)
    module = eqx.nn.inference_mode(module, not train)
    stateful = 'state' in self._names

    def one(x, key):
      more = {'key': key} if 'key' in self._names else {}
      more |= _modes(self._names, train)
      return module(x, *([state] if stateful else []), **more)

    result = jax.vmap(
      one, out_axes=(0, None) if stateful else 0, axis_name='batch'
    )(jnp.moveaxis(x, -1, 1), jax.random.split(key, len(x)))
    result, state = result if stateful else (result, state)
    return result, _variables(
      arrays=variables.get('arrays', {}), state=_named(state)
    )


def _arguments(module: Any) -> set[str]:
  return set(inspect.signature(type(module).__call__).parameters)


def _modes(names: set[str], train: bool) -> dict[str, Any]:
  """The arguments among `names` that say in which mode a network is."""
  return {n: v == train for n, v in MODES.items() if n in names}


def _variables(**trees: Tree) -> dict[str, Tree]:
  """`trees` without the empty ones, which a checkpoint cannot hold."""
  return {name: tree for name, tree in trees.items() if tree}


def _flat(tree: Tree) -> dict[tuple[str, ...], Array]:
  """Names, as strings, -> leaves."""
  part = lambda key: jax.tree_util.keystr((key,), simple=True)
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {tuple(map(part, path)): leaf for path, leaf in leaves}


def _named(tree: Tree, order: Sequence[str] = ()) -> dict[str, Tree]:
  """Any tree as nested dicts; layers in `order`, others as they come."""
  nested = traverse_util.unflatten_dict(_flat(tree))
  first = {name: nested[name] for name in order if name in nested}
  return first | nested


def _filled(like: Tree, plain: Tree, nested: Tree) -> Tree:
  """A tree like `like`; its leaves have the names of those of `plain`, in the
  same order, and are what `nested` has under these."""
  flat = traverse_util.flatten_dict(nested)
  leaves = [flat[name] for name in _flat(plain)]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _drawn(streams: Tree, key: Array) -> Tree:
  """Random streams at their beginning, each with a key of its own."""
  leaves, structure = jax.tree.flatten(streams)

  def start(i: int, leaf: jax.ShapeDtypeStruct) -> Array:
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jnp.zeros(leaf.shape, leaf.dtype)
    return jax.random.split(jax.random.fold_in(key, i), leaf.shape)

  return structure.unflatten([start(i, leaf) for i, leaf in enumerate(leaves)])
