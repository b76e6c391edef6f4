"""The state of a training run at one step, and how it begins.

Everything else (batch order, randomness, learning rate) is a function of the
config and the step, so these four fields are what a checkpoint holds.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from implicit_attr.types import ApplyFn, Array, Params, Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """step [] int32: updates already applied; model_state: batch statistics."""

  step: Array
  params: Params
  model_state: Tree
  opt_state: Tree

  @property
  def averaged(self) -> 'State':
    """The state to be measured: average weights for the last, if there are."""
    if not isinstance(self.opt_state, Averaging):
      return self
    tx_state, params, model_state = self.opt_state
    return State(self.step, params, model_state, tx_state)


class Averaging(NamedTuple):
  """An opt_state with means over steps, which `make_update` moves."""

  tx_state: Tree
  params: Params
  model_state: Tree


def init(
  module: Any,
  tx: optax.GradientTransformation,
  key: Array,
  x: Array,
  average: bool = False,
) -> State:
  """State at step 0; `x` [1, H, W, C] gives the shape; jit it.

  With `average` its opt_state is an `Averaging`.
  """
  variables = module.init(key, x)
  params = variables['params']
  model_state = {k: v for k, v in variables.items() if k != 'params'}
  opt_state: Tree = tx.init(params)
  if average:
    opt_state = Averaging(opt_state, params, model_state)
  return State(jnp.zeros((), jnp.int32), params, model_state, opt_state)


def frozen(module: Any, model_state: Tree) -> ApplyFn:
  """The network in evaluation mode with its statistics closed over.

  Per-example quantities need examples that do not see each other, so this is
  the only form in which curvature, attributions and attacks see a network.
  Keyword arguments (`beta`) reach the module.
  """

  def apply_fn(params: Params, x: Array, **options) -> tuple[Array, dict]:
    return module.apply({'params': params, **model_state}, x, **options)

  return apply_fn
