"""A training step, update after sums, both pure; and many steps in one call.

`sums` is the only part that sees examples and is linear in them: adding the
results of two halves of a batch gives the result of the whole. `update` sees
only sums, divides once, and is the same arithmetic on every device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from implicit_attr.train.state import Averaging, State
from implicit_attr.types import ApplyFn, Array, Batch, LossFn, Params, Tree

Sums = dict[str, Tree]
"""'grad' tree, 'loss' [], 'correct' [], 'n' [], all sums over examples, and
'model_state', the new batch statistics."""


PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
OTHER = {'float32': 'bfloat16', 'bfloat16': 'float32'}


def make_sums(
  module: Any,
  make_loss_fn: Callable[[ApplyFn], LossFn],
  precision: str = 'float32',
) -> Callable[[Params, Tree, Batch, Array], Sums]:
  """sums(params, model_state, batch, key) of the network in training mode.

  Args:
    module: a flax module.
    make_loss_fn: apply_fn -> loss_fn, an objective with its options bound.
    precision: of the network's forward and backward pass, one of `PRECISIONS`.
      Parameters, statistics, losses and all sums are float32 either way.
  """

  def sums(params, model_state, batch, key):
    def apply_fn(params, x):
      (logits, out), new = module.apply(
        {'params': _cast(params, precision), **model_state},
        _cast(x, precision),
        train=True,
        mutable=list(model_state),
        rngs={'dropout': key},
      )
      if precision != 'float32':
        logits, out = _cast((logits, out), 'float32')
      return logits, {**out, 'model_state': new}

    def total(params):
      per_example, aux = make_loss_fn(apply_fn)(params, batch, key)
      return jnp.sum(per_example), aux

    (loss, aux), grad = jax.value_and_grad(total, has_aux=True)(params)
    correct = jnp.argmax(aux['logits'], axis=-1) == batch['label']
    return {
      'grad': grad,
      'loss': loss,
      'correct': jnp.sum(correct.astype(jnp.float32)),
      'n': jnp.full((), correct.shape[0], jnp.float32),
      'model_state': aux.get('model_state', model_state),
    }

  return sums


def _cast(tree: Tree, precision: str) -> Tree:
  """`tree` with float leaves in bfloat16, or in float32 again.

  Only these two are turned into one another: a float64 stays what it is.
  """
  wanted, other = PRECISIONS[precision], PRECISIONS[OTHER[precision]]
  return jax.tree.map(
    lambda a: a.astype(wanted) if a.dtype == other else a, tree
  )


def make_update(
  tx: optax.GradientTransformation, decay: float = 0.0
) -> Callable[[State, Sums, Array], State]:
  """update(state, sums, lr): `tx` gives a direction, `lr` is traced.

  In an `Averaging` the means go 1 - min(decay, (1 + t) / (10 + t)) of the way
  to weights and statistics after update t + 1: exponential moving averages
  whose first steps do not linger.
  """

  def update(state, sums, lr):
    grad = jax.tree.map(lambda g: g / sums['n'], sums['grad'])
    means = state.opt_state
    averages = isinstance(means, Averaging)
    opt_state = means.tx_state if averages else means
    direction, opt_state = tx.update(grad, opt_state, state.params)
    params = jax.tree.map(
      lambda p, d: p - lr.astype(p.dtype) * d, state.params, direction
    )
    model_state = sums['model_state']
    if averages:
      t = state.step.astype(jnp.float32)
      share = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
      move = lambda new, old: _moved(new, old, share)
      means = jax.tree.map(move, (params, model_state), tuple(means[1:]))
      opt_state = Averaging(opt_state, *means)
    return State(state.step + 1, params, model_state, opt_state)

  return update


def _moved(new: Array, old: Array, share: Array) -> Array:
  """`old`, by `share` of the way to `new`; a counter is the new one."""
  if not jnp.issubdtype(new.dtype, jnp.inexact):
    return new
  return old + share.astype(new.dtype) * (new - old)


def make_advance(
  step: Callable[[Tree, Tree], tuple[Tree, Tree]],
) -> Callable[[Tree, Tree, Array | int], tuple[Tree, Tree]]:
  """advance(state, each, n) -> (state, outputs [K, …]): n <= K steps, one call.

  `step(state, one)` -> (state, output), where `each` [K, …] holds what is
  particular to each step. `n` may be traced: one program serves every length,
  and outputs from `n` on are zeros. To be jitted.

  Guarantee: n steps and then m have the bits of n + m.
  """

  def advance(state, each, n):
    one = lambda i: jax.tree.map(lambda a: a[i], each)
    size = len(jax.tree.leaves(each)[0])
    shapes = jax.eval_shape(step, state, one(0))[1]
    outputs = jax.tree.map(
      lambda s: jnp.zeros((size, *s.shape), s.dtype), shapes
    )

    def body(i, carry):
      state, outputs = carry
      state, output = step(state, one(i))
      put = lambda whole, new: whole.at[i].set(new)
      return state, jax.tree.map(put, outputs, output)

    return jax.lax.fori_loop(0, n, body, (state, outputs))

  return advance
