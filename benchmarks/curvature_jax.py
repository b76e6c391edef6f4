"""Curvature in JAX's libraries, on our network and one linearisation."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

STEPS = (8, 10, 12, 14, 17, 20, 25, 30, 40, 60)  # of Lanczos
MODULES = {
  'PyHessian': 'pyhessian',
  'eigenthings': 'hessian_eigenthings',
  'curvlinops': 'curvlinops',
  'matfree': 'matfree',
  'traceax': 'traceax',
}


class Entry(NamedTuple):
  """run(setting, seed) -> number or array; settings, the cheapest first."""

  run: Callable[[Any, int], Any]
  settings: Sequence = (None,)


def missing() -> list[str]:
  """The libraries that are not installed."""
  return [
    name
    for name, module in MODULES.items()
    if importlib.util.find_spec(module) is None
  ]


def present(entries: dict[str, Any]) -> dict[str, Any]:
  """Those entries whose library is installed."""
  return {name: e for name, e in entries.items() if name not in missing()}


def lambda_max(mean_loss: Callable) -> dict[str, Callable]:
  """{library: steps -> (key, params, *data) -> λ_max}, to be jitted."""

  def matfree_(steps):
    import matfree.decomp

    def fun(key, params, *data):
      mvp, point = linearized(mean_loss, params, data)
      v0 = jax.random.normal(key, point.shape)
      form = matfree.decomp.tridiag_sym(steps)(mvp, v0)
      return jnp.linalg.eigvalsh(form.J_small)[-1]

    return fun

  return present({'matfree': matfree_})


def trace(mean_loss: Callable, draws: int) -> dict[str, Callable]:
  """{library: (key, params, *data) -> the trace}, to be jitted."""

  def matfree_(key, params, *data):
    import matfree.stochtrace as stochastic

    mvp, point = linearized(mean_loss, params, data)
    sampler = stochastic.sampler_signs(point, num=draws)
    integrand = stochastic.monte_carlo_trace()
    return stochastic.estimator_monte_carlo(integrand, sampler)(mvp, key)

  def traceax_(key, params, *data):
    import lineax
    import traceax

    mvp, point = linearized(mean_loss, params, data)
    shape = jax.ShapeDtypeStruct(point.shape, point.dtype)
    operator = lineax.FunctionLinearOperator(mvp, shape, lineax.symmetric_tag)
    sampler = traceax.RademacherSampler(float)
    estimator = traceax.HutchinsonEstimator(sampler)
    return estimator.estimate(key, operator, draws)[0]

  return present({'matfree': matfree_, 'traceax': traceax_})


def linearized(mean_loss: Callable, params: Any, data: tuple) -> tuple:
  """(v [n] -> H v from one linearisation, params [n])."""
  point, unravel = ravel_pytree(params)
  grad = jax.grad(lambda p: mean_loss(unravel(p), *data))
  return jax.linearize(grad, point)[1], point
