"""Rectifiers of a network, found in its jaxpr by name and by value.

By name: those functions of jax.nn (and so of flax and of all who take theirs)
in `NAMES`. By value: a maximum, minimum, clip, `where` or product with a mask
that makes z into relu(z), relu6(z) or leaky_relu(z), however it is written.
What it makes of z is looked at on a grid of numbers, z being the nearest value
of which it is a function, element by element.

No rectifiers, and left as they are: what has no kink (the two halves of elu +
1); a maximum of values from different places of one array (max-pooling by
pairs; `reduce_window` always); what only a root or a denominator gets (the
variance of a normalisation layer is at least 0); what does not move with the
image. Any other maximum, clip or `where` is of unknown meaning.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from implicit_attr.types import Array

NAMES = (
  'relu', 'relu6', 'leaky_relu', 'elu', 'celu', 'selu',
  'softplus', 'squareplus',
)  # fmt: skip
"""What counts by name. They are monotone; gelu, silu and tanh are not among
them, since the rules were not made for those."""

CALLS = ('jit', 'pjit', 'closed_call', 'core_call', 'remat2', 'checkpoint')

# Below 0 the name's slope; None where the function has to tell.
_SLOPES = {'relu': 0.0, 'relu6': 0.0, 'leaky_relu': None}
_KINKS = ('max', 'min', 'clamp', 'select_n', 'mul')
_POINTWISE = (
  *_KINKS, 'gt', 'ge', 'lt', 'le', 'eq', 'ne', 'and', 'or', 'not', 'xor',
  'add', 'sub', 'div', 'neg', 'abs', 'sign', 'exp', 'exp2', 'expm1', 'log',
  'log1p', 'tanh', 'logistic', 'erf', 'sqrt', 'rsqrt', 'square',
  'integer_pow', 'pow', 'convert_element_type',
)  # fmt: skip
_MOVES = (
  'slice', 'dynamic_slice', 'gather', 'squeeze', 'reshape', 'transpose', 'rev',
  'pad', 'broadcast_in_dim', 'concatenate', 'max', 'min',
)  # fmt: skip

Bind = Callable[[core.JaxprEqn, Sequence[Array]], list[Array]]


@dataclasses.dataclass(frozen=True)
class Rectifier:
  """fun(z, *constants), elementwise in z; `args` are their variables.

  z from 0 to `cap`, `slope` z below 0; None where neither is so.
  """

  args: Sequence[core.Var | core.Literal]
  fun: Callable[..., Array]
  slope: float | None = None
  cap: float | None = None

  def softened(self, beta: float | Array, z: Array, *constants) -> Array:
    """With softplus(beta z) / beta in the place of relu(z); else itself."""
    if self.cap is None:
      return self.fun(z, *constants)
    softplus = lambda z: jax.nn.softplus(beta * z) / beta
    soft = softplus(z)
    if self.cap < np.inf:
      soft = soft - softplus(z - self.cap)
    if self.slope == 0:
      return soft
    slope = self.slope
    if slope is None:
      slope = -self.fun(-jnp.ones_like(z), *constants)
    return slope * z + (1 - slope) * soft


def by_name(eqn: core.JaxprEqn) -> str | None:
  """Which of `NAMES` a call is."""
  if eqn.primitive.name == 'custom_jvp_call':
    # jax.nn.relu is a custom rule around a jit of that name.
    inner = getattr(eqn.params['call_jaxpr'], 'jaxpr', None)
    eqn = inner.eqns[0] if inner and len(inner.eqns) == 1 else eqn
  elif eqn.primitive.name not in CALLS:
    return None
  name = eqn.params.get('name')
  return name if name in NAMES else None


def find(
  jaxpr: core.Jaxpr,
  consts: Sequence[Array],
  inputs: Sequence[core.Var],
  outputs: Sequence[core.Var | core.Literal],
  bind: Bind,
) -> tuple[dict[core.Var, Rectifier], list, list[core.JaxprEqn]]:
  """Rectifiers by their results; operations of unknown meaning; the path.

  Only the path is looked at: what moves with `inputs` and what `outputs` have
  a derivative by. Calls are taken whole.
  """
  network = _Network(jaxpr, consts, inputs, outputs, bind)
  rectifiers, unknown, parts = {}, {}, set()
  for eqn in network.path:
    var, name = eqn.outvars[0], by_name(eqn)
    if name is not None:
      rectifiers[var] = Rectifier(
        eqn.invars, lambda *args, eqn=eqn: bind(eqn, args)[0],
        _SLOPES.get(name), {'relu6': 6.0}.get(name, np.inf)
        if name in _SLOPES else None,
      )  # fmt: skip
    elif network.may_have_kink(eqn) and not network.is_guard(var):
      meaning, members = network.of_nearest(eqn)
      if isinstance(meaning, Rectifier):
        rectifiers[var] = meaning
      if meaning is not None:
        parts.update(members)
      elif not network.is_pool(eqn):
        unknown[var] = eqn
  # Parts of what is understood as a whole need not be understood.
  whole = parts | set(rectifiers)
  for var in parts:
    if all(use.outvars[0] in whole for use in network.uses[var]):
      rectifiers.pop(var, None)
      unknown.pop(var, None)
  return rectifiers, list(unknown.values()), network.path


class _Network:
  """The operations on the way from `inputs` to `outputs`, `path`."""

  def __init__(self, jaxpr, consts, inputs, outputs, bind):
    self._bind = bind
    self._known = dict(zip(jaxpr.constvars, consts, strict=True))
    self._origin: dict[core.Var, tuple] = {
      v: (i, eqn) for i, eqn in enumerate(jaxpr.eqns) for v in eqn.outvars
    }
    self._moving = set(inputs)
    for eqn in jaxpr.eqns:
      if self._sources(eqn):
        self._moving.update(eqn.outvars)
    self.path: list[core.JaxprEqn] = []
    reached = {v for v in outputs if isinstance(v, core.Var)}
    # An output is used by who asked for it, which is nobody's part.
    self.uses: dict[core.Var, list] = {v: [_Outside] for v in reached}
    for eqn in reversed(jaxpr.eqns):
      held = eqn.primitive.name == 'stop_gradient'
      if (
        held or not reached.intersection(eqn.outvars) or not self._sources(eqn)
      ):
        continue
      self.path.append(eqn)
      reached |= self._sources(eqn)
      for v in self._sources(eqn):
        self.uses.setdefault(v, []).append(eqn)
    self.path.reverse()

  def may_have_kink(self, eqn: core.JaxprEqn) -> bool:
    """A maximum, minimum or clip, or what a moving comparison decides."""
    name = eqn.primitive.name
    if name not in _KINKS or not _floating(eqn.outvars[0]):
      return False
    if name == 'select_n':
      return eqn.invars[0] in self._sources(eqn)
    return name != 'mul' or any(map(self._is_mask, self._sources(eqn)))

  def is_guard(self, var: core.Var) -> bool:
    """Whether only roots and denominators get it."""
    for eqn in self.uses[var]:
      if eqn is _Outside:
        return False
      name = eqn.primitive.name
      ends = name in ('sqrt', 'rsqrt')
      ends |= name == 'div' and eqn.invars[0] is not var
      passes = name in (*_MOVES, 'add', 'mul', 'convert_element_type')
      passes &= len(self._sources(eqn)) == 1
      if not (ends or (passes and self.is_guard(eqn.outvars[0]))):
        return False
    return True

  def is_pool(self, eqn: core.JaxprEqn) -> bool:
    """Whether it compares values of one array that were only moved about."""
    roots = self._sources(eqn)
    if eqn.primitive.name not in ('max', 'min') or len(roots) == 1:
      return False
    while len(roots) > 1 and self._back(roots, _MOVES):
      pass
    return len(roots) == 1

  def of_nearest(self, eqn: core.JaxprEqn) -> tuple:
    """(a Rectifier, 'smooth' or None, the results in between it and z)."""
    var, roots, members = eqn.outvars[0], self._sources(eqn), []
    while True:
      if len(roots) == 1:
        meaning = self._meaning(next(iter(roots)), [*members, var])
        if meaning is not None:
          return meaning, members
      # min(relu(z), 6) is nothing by itself, and relu6 with z.
      member = self._back(roots, _POINTWISE)
      if member is None:
        return None, members
      members.append(member)

  def _back(self, roots: set, known: Sequence[str]) -> core.Var | None:
    """Replaces the last of `roots` by what it is made of; None if not known."""
    made = [v for v in roots if v in self._origin]
    last = max(made, key=lambda v: self._origin[v][0], default=None)
    if last is None or self._origin[last][1].primitive.name not in known:
      return None
    roots.remove(last)
    roots |= self._sources(self._origin[last][1])
    return last

  def _meaning(self, root: core.Var, members: list) -> Rectifier | str | None:
    if not _floating(root):
      return None
    plan, inside = [], {root, *members}
    for member in sorted(members, key=lambda v: self._origin[v][0]):
      _, eqn = self._origin[member]
      operands = [
        v if isinstance(v, core.Var) and v in inside else self._number(v)
        for v in eqn.invars
      ]
      if any(a is None for a in operands):
        return None
      plan.append((eqn, operands))

    def fun(z: Array) -> Array:
      values = {root: z}
      for eqn, operands in plan:
        args = [
          values[a] if isinstance(a, core.Var) else jnp.full(z.shape, a)
          for a in operands
        ]
        values[eqn.outvars[0]] = result = self._bind(eqn, args)[0]
      return result

    return _named(root, fun)

  def _number(self, var) -> np.generic | None:
    """The value of a constant, if it is known and the same everywhere."""
    value = self._value(var)
    if value is None or isinstance(value, jax.core.Tracer):
      return None
    value = np.asarray(value, var.aval.dtype).ravel()
    return value[0] if value.size and np.all(value == value[0]) else None

  def _value(self, var: core.Var | core.Literal) -> Array | None:
    if isinstance(var, core.Literal):
      return var.val
    if var in self._known or var not in self._origin:
      return self._known.get(var)
    eqn = self._origin[var][1]
    args = [self._value(v) for v in eqn.invars]
    if any(a is None or isinstance(a, jax.core.Tracer) for a in args):
      return None
    with jax.ensure_compile_time_eval():
      return self._bind(eqn, args)[eqn.outvars.index(var)]

  def _is_mask(self, var: core.Var) -> bool:
    """Whether it is a comparison's result as a number."""
    _, eqn = self._origin.get(var, (0, None))
    if eqn is None or eqn.primitive.name != 'convert_element_type':
      return False
    return eqn.invars[0].aval.dtype == bool

  def _sources(self, eqn: core.JaxprEqn) -> set[core.Var]:
    used = {v for v in eqn.invars if isinstance(v, core.Var)}
    return self._moving & used


class _Outside:
  """Stands for the caller among the uses of an output."""

  outvars = (None,)


def _named(root, fun: Callable) -> Rectifier | str | None:
  """What the elementwise `fun` is: a Rectifier, 'smooth', or None."""
  z = np.linspace(-8, 8, 1025)
  with jax.ensure_compile_time_eval():
    f = np.asarray(fun(jnp.asarray(z, root.aval.dtype)), np.float64)
  if not np.all(np.isfinite(f)):
    return None
  slope, rtol = -f[z == -1][0], 4 * float(jnp.finfo(root.aval.dtype).eps)
  for cap in (np.inf, 6.0):
    wanted = np.where(z > 0, np.minimum(z, cap), slope * z)
    if 0 <= slope < 1 and np.allclose(f, wanted, rtol, 0):
      return Rectifier((root,), fun, abs(float(slope)), cap)
  rise = np.diff(f) / np.diff(z)
  jumps = np.abs(np.diff(rise)) / (1 + np.abs(rise[1:]))
  return 'smooth' if np.all(jumps < 0.1) else None


def _floating(var) -> bool:
  return jnp.issubdtype(var.aval.dtype, jnp.floating)
