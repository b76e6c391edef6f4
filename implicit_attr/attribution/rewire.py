"""A network run with some of its own intermediates replaced.

`apply_fn` is traced to its list of operations, calls of jit opened. An array
that it returns in `out` is one of those operations' results, so that whatever
uses it can be given something else instead: the array plus an offset, by which
the target is then differentiated; or the same number with another derivative,
which is how relevance is propagated. Operations run on demand, not in order: a
replacement may be made of anything that does not depend on what it replaces,
whenever the network computed it. Nothing is asked of a network but that `out`
holds the arrays that it goes on with, and nothing costs while it is not used.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from implicit_attr import errors
from implicit_attr.attribution import graph
from implicit_attr.types import ApplyFn, Array, Params, Tree

Read = Callable[[str], Tree]
"""name -> the block's entry of out[name], replaced arrays as replaced."""

Rule = Callable[[int, Read, Callable[[], Array]], Array]
"""(block, read, old) -> what stands in for the block's array; old() is what it
would have been."""


def per_block(
  apply_fn: ApplyFn, params: Params, x: Array, names: Sequence[str]
) -> dict[str, tuple]:
  """The shapes of out[name], one entry for each block; of 'tokens' just one.

  Raises:
    InputError: the network does not return them.
  """
  out = jax.eval_shape(apply_fn, params, x)[1]
  shapes = {}
  for name in names:
    entry = out.get(name) if isinstance(out, Mapping) else None
    ok = isinstance(entry, tuple | list) or name == 'tokens'
    errors.require(
      'apply_fn', 'a network', ok and bool(entry),
      f'one with attention, whose out has {name!r}, for this method',
    )  # fmt: skip
    shapes[name] = tuple(entry or ()) if name != 'tokens' else entry
  counts = {n: len(s) for n, s in shapes.items() if n != 'tokens'}
  same = len(set(counts.values())) == 1
  errors.require('out', counts, same, 'as long for every name')
  return shapes


def rewired(
  apply_fn: ApplyFn,
  rules: Mapping[str, Rule],
  names: Sequence[str] = (),
  *,
  held: Sequence[str] = (),
) -> Callable[[Params, Array], tuple[Array, dict[str, Any]]]:
  """(params, x) -> (logits, {name: out[name]}) under `rules`.

  Args:
    rules: name -> rule for the arrays of out[name], one for each block.
    names: what to return beside the logits, replaced where a rule says so.
    held: operations whose results are constants to every derivative.

  Raises:
    InputError: when called: out has no such arrays, or the logits do not
      depend on a replaced array itself (but on something of which it is a
      copy or a part).
  """

  def run(params: Params, x: Array) -> tuple[Array, dict[str, Any]]:
    closed, shapes = graph.traced(graph.opened(apply_fn), params, x)
    jaxpr, consts = graph.parts(closed)
    tree = jax.tree.structure(shapes)
    logits, out = jax.tree.unflatten(tree, jaxpr.outvars)
    start = zip(
      [*jaxpr.constvars, *jaxpr.invars],
      [*consts, *jax.tree.leaves((params, x))],
      strict=True,
    )
    demand = _Demand(jaxpr, dict(start), set(held))
    for name, rule in rules.items():
      for block, var in enumerate(out[name]):

        def read(other: str, block: int = block) -> Tree:
          return jax.tree.map(demand, out[other][block])

        demand.replaced[var] = (rule, block, read)
    value = demand(logits)
    for name in rules:
      used = all(var in demand.values for var in out[name])
      errors.require(
        f'out[{name!r}]', 'an array', used,
        'used by the network as it is returned',
      )  # fmt: skip
    return value, {name: jax.tree.map(demand, out[name]) for name in names}

  return run


@jax.custom_vjp
def constant(x: Array) -> Array:
  """x, constant to a derivative, not to a derivative of that derivative.

  A map made with changed derivatives is itself to be differentiated in the
  image, and that truly. So `stop_gradient` will not do, and whoever takes the
  first derivative takes it by the image too (and drops it): where that has
  nothing to differentiate, the rule would answer to the second.
  """
  return x


constant.defvjp(lambda x: (x, None), lambda _, signal: (0 * signal,))


class _Demand:
  """Values of variables, computed when they are asked for."""

  def __init__(self, jaxpr: core.Jaxpr, values: dict, held: set[str]):
    self.values, self.replaced = values, {}
    self._held, self._results = held, {}
    self._origin = {
      var: (i, eqn, place)
      for i, eqn in enumerate(jaxpr.eqns)
      for place, var in enumerate(eqn.outvars)
    }

  def __call__(self, var: core.Var | core.Literal) -> Array:
    if isinstance(var, core.Literal):
      return var.val
    waiting: list[core.Var | core.Literal] = [var]
    order = set()
    while waiting:
      v = waiting.pop()
      if isinstance(v, core.Literal) or v in self.values or v in order:
        continue
      order.add(v)
      if v not in self.replaced:  # a rule asks itself for what it needs
        waiting.extend(self._origin[v][1].invars)
    for v in sorted(order, key=lambda v: self._origin[v][::2]):
      # A rule that ran meanwhile may have asked for it.
      if v not in self.values:
        self.values[v] = self._value(v)
    return self.values[var]

  def _value(self, var: core.Var) -> Array:
    if var not in self.replaced:
      return self._old(var)
    rule, block, read = self.replaced[var]
    shape: Any = var.aval  # jax types it as any abstract value
    return rule(block, read, lambda: self._old(var)).astype(shape.dtype)

  def _old(self, var: core.Var) -> Array:
    i, eqn, place = self._origin[var]
    if i not in self._results:
      args = [self(v) for v in eqn.invars]
      results = graph.bind(eqn, args)
      if eqn.primitive.name in self._held:
        results = [constant(r) for r in results]
      self._results[i] = results
    return self._results[i][place]
