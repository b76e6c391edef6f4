"""Memory that an image takes in a network, from its jaxpr, before it is run."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from implicit_attr.types import Params


def of_an_image(
  fun: Callable[..., Any], params: Params, shape: tuple[int, ...], dtype: Any
) -> int:
  """Bytes of all intermediates of fun(params, x) that one more image adds.

  Counted as if nothing were fused and all of them were kept, as what a
  derivative needs is: those in a loop once a turn. Nothing is run or compiled.

  Args:
    fun: takes params and images [B, *shape] of `dtype`.
  """

  def of(n: int) -> int:
    x = jax.ShapeDtypeStruct((n, *shape), dtype)
    return _bytes(jax.make_jaxpr(fun)(params, x).jaxpr)

  return of(2) - of(1)


def _bytes(jaxpr: core.Jaxpr) -> int:
  total = 0
  for eqn in jaxpr.eqns:
    inside = [getattr(j, 'jaxpr', j) for j in core.jaxprs_in_params(eqn.params)]
    turns = eqn.params.get('length', 1)
    if inside:
      total += turns * sum(map(_bytes, inside))
    else:
      made: list[Any] = [v.aval for v in eqn.outvars]
      total += sum(a.size * a.dtype.itemsize for a in made)
  return total
