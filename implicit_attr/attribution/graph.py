"""How is a network run under other rules, when only `apply_fn` is known?

`apply_fn` is traced to its list of primitive operations, and that list is run
again by hand. On the way rectifiers or linear layers are recognised and given
another backward rule, and an intermediate that `apply_fn` returns in `out` gets
something added where it is used. So methods that look inside a network take
the same `apply_fn` as all others, and no network has to be written for them.

Calls under jit, checkpoint and vmap are seen through. Rectifiers and linear
layers inside of scan, while, cond or a function with custom derivatives are
not reached, and raise.
"""

from collections.abc import Callable, Sequence

import jax
from jax.extend import core

from implicit_attr import errors
from implicit_attr.types import ApplyFn, Array, Params, Tree

RECTIFIERS = (
  'relu', 'relu6', 'leaky_relu', 'elu', 'celu', 'selu',
  'softplus', 'squareplus',
)  # fmt: skip
"""What counts as a rectifier: these functions of jax.nn, by whatever name they
are called. They are monotone; gelu, silu and tanh are not among them, since the
rules were not made for those, nor is max(x, 0), which normalisation layers
apply to a variance."""

Rule = Callable[..., Array]
"""(i, fun, x, *constants) -> what stands in for fun(x, *constants), which is
elementwise in x; i counts the rectifiers in the order in which they run."""

_CALLS = ('jit', 'pjit', 'closed_call', 'core_call', 'remat2', 'checkpoint')


def with_rectifiers(apply_fn: ApplyFn, rule: Rule) -> ApplyFn:
  """`apply_fn` with `rule` in the place of every rectifier.

  Raises:
    InputError: when called, if no rectifier was recognised, or one sits inside
      of a loop.
  """

  def ruled(params: Params, x: Array) -> tuple[Array, dict]:
    seen = 0

    def visit(eqn: core.JaxprEqn, args: Sequence[Array]) -> list[Array] | None:
      nonlocal seen
      if not _is_rectifier(eqn):
        if _inside(eqn) is None:
          _refuse_hidden(eqn)
        return None
      seen += 1
      return [rule(seen - 1, lambda *args: bind(eqn, args)[0], *args)]

    jaxpr, shapes = traced(apply_fn, params, x)
    flat = run(jaxpr, jax.tree.leaves((params, x)), visit, _has_rectifier)
    errors.require(
      'apply_fn', 'a network', seen > 0,
      f'one with rectifiers ({", ".join(RECTIFIERS)}) for this method',
    )  # fmt: skip
    return jax.tree.unflatten(jax.tree.structure(shapes), flat)

  return ruled


def feature_shape(
  apply_fn: ApplyFn, params: Params, x: Array, feature: str
) -> tuple[int, ...]:
  """The shape of out[feature].

  Raises:
    InputError: `out` has no array of this name.
  """
  out = jax.eval_shape(apply_fn, params, x)[1]
  errors.choose('feature', feature, out)
  shape = getattr(out[feature], 'shape', None)
  errors.require('feature', feature, shape is not None, 'one array of `out`')
  return shape


def with_offset(
  apply_fn: ApplyFn, feature: str
) -> Callable[[Params, Array, Array], tuple[Array, dict]]:
  """(params, x, offset) -> `apply_fn` with `offset` added to out[feature].

  The sum is used wherever the network uses out[feature], so that a derivative
  by `offset` is a derivative by the feature.

  Raises:
    InputError: when called, if the logits do not depend on out[feature] itself
      (but on something of which it is a copy or a part).
  """

  def moved(params: Params, x: Array, offset: Array) -> tuple[Array, dict]:
    # Without calls, the variable that is returned is the one that is used.
    closed, shapes = traced(opened(apply_fn), params, x)
    jaxpr = closed.jaxpr
    logits, out = jax.tree.unflatten(jax.tree.structure(shapes), jaxpr.outvars)
    errors.require(
      'feature', feature, _upstream(jaxpr, out[feature], logits),
      'used by the network as it is returned in `out`',
    )  # fmt: skip

    def visit(eqn: core.JaxprEqn, args: Sequence[Array]) -> list[Array] | None:
      if out[feature] not in eqn.outvars:
        return None
      values = zip(eqn.outvars, bind(eqn, args), strict=True)
      return [v + offset if var is out[feature] else v for var, v in values]

    flat = run(closed, jax.tree.leaves((params, x)), visit, lambda _: False)
    return jax.tree.unflatten(jax.tree.structure(shapes), flat)

  return moved


def opened(apply_fn: ApplyFn) -> ApplyFn:
  """`apply_fn` without calls."""

  def flat(params: Params, x: Array) -> tuple[Array, dict]:
    jaxpr, shapes = traced(apply_fn, params, x)
    values = run(jaxpr, jax.tree.leaves((params, x)), _nothing, lambda _: True)
    return jax.tree.unflatten(jax.tree.structure(shapes), values)

  return flat


def traced(apply_fn: ApplyFn, params: Params, x: Array) -> tuple:
  """The operations of `apply_fn`, and its result as shapes."""
  return jax.make_jaxpr(apply_fn, return_shape=True)(params, x)


def run(
  closed: core.ClosedJaxpr,
  args: Sequence[Array],
  visit: Callable,
  opens: Callable[[Tree], bool],
) -> list[Array]:
  """Evaluates `closed`; `visit` may answer for an operation, else None.

  Calls whose inside `opens` are evaluated by this function too.
  """
  jaxpr, consts = parts(closed)
  start = zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
  values = dict(start)

  def read(var: core.Var | core.Literal) -> Array:
    return var.val if isinstance(var, core.Literal) else values[var]

  for eqn in jaxpr.eqns:
    given = [read(v) for v in eqn.invars]
    results = visit(eqn, given)
    if results is None:
      inside = _inside(eqn)
      if inside is not None and opens(inside):
        results = run(inside, given, visit, opens)
      else:
        results = bind(eqn, given)
    values.update(zip(eqn.outvars, results, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _nothing(eqn: core.JaxprEqn, args: Sequence[Array]) -> None:
  return None


def bind(eqn: core.JaxprEqn, args: Sequence[Array]) -> list[Array]:
  params = eqn.primitive.get_bind_params(eqn.params)
  with eqn.ctx.manager:
    results = eqn.primitive.bind(*args, **params)
  return results if eqn.primitive.multiple_results else [results]


def parts(closed: Tree) -> tuple[core.Jaxpr, Sequence[Array]]:
  """The operations and the constants of a jaxpr, open or closed."""
  return getattr(closed, 'jaxpr', closed), getattr(closed, 'consts', ())


def _inside(eqn: core.JaxprEqn) -> Tree | None:
  """What a plain call calls; None for anything else."""
  if eqn.primitive.name not in _CALLS:
    return None
  return eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))


def _is_rectifier(eqn: core.JaxprEqn) -> bool:
  if eqn.primitive.name == 'custom_jvp_call':
    # jax.nn.relu is a custom rule around a jit of that name.
    inner = parts(eqn.params['call_jaxpr'])[0].eqns
    return len(inner) == 1 and inner[0].params.get('name') in RECTIFIERS
  return eqn.primitive.name in _CALLS and eqn.params.get('name') in RECTIFIERS


def _has_rectifier(closed: Tree) -> bool:
  jaxpr, _ = parts(closed)
  return any(
    _is_rectifier(eqn)
    or any(_has_rectifier(sub) for sub in core.jaxprs_in_params(eqn.params))
    for eqn in jaxpr.eqns
  )


def _refuse_hidden(eqn: core.JaxprEqn) -> None:
  hidden = any(_has_rectifier(s) for s in core.jaxprs_in_params(eqn.params))
  errors.require(
    'apply_fn', f'rectifiers in {eqn.primitive.name}', not hidden,
    'calls of jit, checkpoint or vmap only for this method',
  )  # fmt: skip


def _upstream(jaxpr: core.Jaxpr, start: Tree, end: Tree) -> bool:
  """Whether an operation on the way to `end` uses the result `start`."""
  if isinstance(start, core.Literal) or isinstance(end, core.Literal):
    return False
  reached = set()
  for eqn in jaxpr.eqns:
    used = [v for v in eqn.invars if not isinstance(v, core.Literal)]
    if start in eqn.outvars or reached.intersection(used):
      reached.update(eqn.outvars)
  return start in reached and end in reached and start is not end
