"""A network's jaxpr, run again under other rules.

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
from implicit_attr.attribution import rectifiers
from implicit_attr.attribution.rectifiers import CALLS
from implicit_attr.types import ApplyFn, Array, Params, Tree

Rule = Callable[..., Array]
"""(i, fun, x, *constants) -> what stands in for fun(x, *constants), which is
elementwise in x; i counts the rectifiers in the order in which they run."""


def with_rectifiers(apply_fn: ApplyFn, rule: Rule) -> ApplyFn:
  """`apply_fn` with `rule` in the place of every rectifier, see `rectifiers`.

  Raises:
    InputError: when called, if no rectifier was recognised, one sits inside of
      a loop, or a maximum, clip or `where` is of unknown meaning.
  """

  def ruled(params: Params, x: Array) -> tuple[Array, dict]:
    stand_in = lambda i, unit, *args: rule(i, unit.fun, *args)
    return _replaced(apply_fn, params, x, stand_in, whole=True)

  return ruled


def softened(
  apply_fn: ApplyFn,
) -> Callable[[Params, Array, float | Array], tuple[Array, dict]]:
  """(params, x, beta) -> the smooth surrogate of `apply_fn`.

  Each relu(z) is softplus(beta z) / beta, relu6 and leaky_relu what these make
  of them; beta may be traced. What is not a rectifier stays, kinks of unknown
  meaning and max-pooling too.

  Raises:
    InputError: when called, if there is no rectifier with a kink (elu and
      softplus have none), or one sits inside of a loop.
  """

  def smooth(params: Params, x: Array, beta: float | Array):
    kinks = 0

    def stand_in(i, unit, *args):
      nonlocal kinks
      kinks += unit.cap is not None
      return unit.softened(beta, *args)

    result = _replaced(apply_fn, params, x, stand_in, whole=False)
    errors.require(
      'apply_fn', 'a smooth network', kinks > 0,
      'one with rectifiers (relu, relu6, leaky_relu) for this method',
    )  # fmt: skip
    return result

  return smooth


def _replaced(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  stand_in: Callable[..., Array],
  *,
  whole: bool,
) -> tuple[Array, dict]:
  """What `apply_fn` gives with stand_in(i, rectifier, x, *constants) in it.

  If `whole`, a kink of unknown meaning is refused.
  """
  closed, shapes = traced(opened(apply_fn, keep=rectifiers.by_name), params, x)
  jaxpr, consts = parts(closed)
  tree = jax.tree.structure(shapes)
  logits, _ = jax.tree.unflatten(tree, jaxpr.outvars)
  units, unknown, path = rectifiers.find(
    jaxpr, consts, jaxpr.invars[-1:], [logits], bind
  )
  names = ', '.join(sorted({eqn.primitive.name for eqn in unknown}))
  errors.require(
    'apply_fn', f'{names} of unknown meaning', not (whole and unknown),
    'relu, relu6 or leaky_relu, in whatever form, for this method',
  )  # fmt: skip
  seen, on_path = 0, {id(eqn) for eqn in path}

  def visit(eqn, args, read) -> list[Array] | None:
    nonlocal seen
    unit = units.get(eqn.outvars[0])
    if unit is None:
      if id(eqn) in on_path and not rectifiers.by_name(eqn):
        _refuse_hidden(eqn)
      return None
    seen += 1
    return [stand_in(seen - 1, unit, *map(read, unit.args))]

  flat = run(closed, jax.tree.leaves((params, x)), visit)
  errors.require(
    'apply_fn', 'a network', seen > 0,
    f'one with rectifiers ({", ".join(rectifiers.NAMES)}) for this method',
  )  # fmt: skip
  return jax.tree.unflatten(tree, flat)


def feature_shape(
  apply_fn: ApplyFn, params: Params, x: Array, feature: str
) -> tuple[int, ...]:
  """The shape of out[feature].

  Raises:
    InputError: `out` has no array of this name.
  """
  out = jax.eval_shape(apply_fn, params, x)[1]
  errors.choose('feature', feature, out)
  array = hasattr(out[feature], 'shape')
  errors.require('feature', feature, array, 'one array of `out`')
  return out[feature].shape


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

    def visit(eqn, args, read) -> list[Array] | None:
      if out[feature] not in eqn.outvars:
        return None
      values = zip(eqn.outvars, bind(eqn, args), strict=True)
      return [v + offset if var is out[feature] else v for var, v in values]

    flat = run(closed, jax.tree.leaves((params, x)), visit)
    return jax.tree.unflatten(jax.tree.structure(shapes), flat)

  return moved


def opened(apply_fn: Callable, keep: Callable = lambda eqn: None) -> Callable:
  """`apply_fn` without calls, save those that `keep` says yes to."""

  def flat(*args: Tree) -> Tree:
    closed, shapes = jax.make_jaxpr(apply_fn, return_shape=True)(*args)
    kept = lambda eqn, args, read: bind(eqn, args) if keep(eqn) else None
    values = run(closed, jax.tree.leaves(args), kept, opens=True)
    return jax.tree.unflatten(jax.tree.structure(shapes), values)

  return flat


def traced(apply_fn: ApplyFn, params: Params, x: Array) -> tuple:
  """The operations of `apply_fn`, and its result as shapes."""
  return jax.make_jaxpr(apply_fn, return_shape=True)(params, x)


def run(
  closed: Tree,
  args: Sequence[Array],
  visit: Callable,
  *,
  opens: bool = False,
) -> list[Array]:
  """Evaluates `closed`; `visit` may answer for an operation, else None.

  It gets the operation, the values of its arguments, and `read`, which gives
  the value of any variable before it. `opens` evaluates calls by this function
  too.
  """
  jaxpr, consts = parts(closed)
  start = zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
  values = dict(start)

  def read(var: core.Var | core.Literal) -> Array:
    return var.val if isinstance(var, core.Literal) else values[var]

  for eqn in jaxpr.eqns:
    given = [read(v) for v in eqn.invars]
    results = visit(eqn, given, read)
    if results is None:
      inside = _inside(eqn)
      if opens and inside is not None:
        results = run(inside, given, visit, opens=True)
      else:
        results = bind(eqn, given)
    values.update(zip(eqn.outvars, results, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _nothing(eqn, args, read) -> None:
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
  if eqn.primitive.name not in CALLS:
    return None
  return eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))


def _refuse_hidden(eqn: core.JaxprEqn) -> None:
  hidden = any(map(_has_rectifier, core.jaxprs_in_params(eqn.params)))
  errors.require(
    'apply_fn', f'rectifiers in {eqn.primitive.name}', not hidden,
    'calls of jit, checkpoint or vmap only for this method',
  )  # fmt: skip


def _has_rectifier(closed: Tree) -> bool:
  jaxpr, _ = parts(closed)
  inside = opened(
    lambda *args: run(closed, args, _nothing),
    keep=rectifiers.by_name,
  )
  closed = jax.make_jaxpr(inside)(*(v.aval for v in jaxpr.invars))
  jaxpr, consts = parts(closed)
  units, *_ = rectifiers.find(jaxpr, consts, jaxpr.invars, jaxpr.outvars, bind)
  return bool(units) or any(
    _has_rectifier(sub)
    for eqn in jaxpr.eqns
    for sub in core.jaxprs_in_params(eqn.params)
  )


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
