"""AttnLRP, CP-LRP and Chefer's relevance: layer-wise relevance of tokens.

Relevance is a number times a changed derivative. The changes, all by `rewire`,
for any network whose `out` has what `attention_outputs` names and 'queries',
'keys' [B, L, H, Dh], 'preactivations' and 'activations' of each block:

- products of two activations share their relevance equally; it is defined on
  o = A v, A from q and k, whatever the order in which the network computes, so
  that q, k and v get 1/4, 1/4 and 1/2 for every kernel. (The other order of a
  linear kernel would give 1/2, 1/4, 1/4: arXiv 2510.18810.)
- the normaliser of a kernel with 'factors' is a constant, as is what a layer
  norm divides by (results of sqrt and rsqrt); softmax keeps its derivative;
- an activation f(z) passes on f(z) / z;
- linear layers keep their derivative, the ε rule with ε = 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from implicit_attr.attribution import attention, lrp
from implicit_attr.attribution.attention_outputs import image_tokens, seen
from implicit_attr.attribution.inputs import check
from implicit_attr.attribution.rewire import Rule, constant, per_block, rewired
from implicit_attr.attribution.targets import target as target_of
from implicit_attr.types import ApplyFn, Array, Params

HELD = ('rsqrt', 'sqrt')
NAMES = ('attention', 'values', 'mixed', 'preactivations', 'activations')


@jax.custom_vjp
def halved(x: Array) -> Array:
  """x, whose derivative counts half; see `rewire.constant`."""
  return x


halved.defvjp(lambda x: (x, None), lambda _, signal: (0.5 * signal,))


@jax.custom_vjp
def gated(z: Array, f: Array) -> Array:
  """f, taken as z times the constant f / z, 0 where z is."""
  return f


def _gated_back(saved: tuple[Array, Array], signal: Array) -> tuple:
  z, f = saved
  zero = z == 0
  gain = jnp.where(zero, 0, f / jnp.where(zero, 1, z))
  return gain * signal, 0 * signal


gated.defvjp(lambda z, f: (f, (z, f)), _gated_back)


def associated(a: Array, v: Array) -> Array:
  """A v, half of its relevance to each: [B, H, L, L], [B, L, H, Dh]."""
  return jnp.einsum('bhij,bjhd->bihd', halved(a), halved(v))


def weights_rule(block: int, read, old) -> Array:
  """A with a constant normaliser, where there are factors to make it of."""
  queries, keys, inverse = read('factors')
  return attention.dense(attention.Factored(queries, keys, constant(inverse)))


def activation_rule(block: int, read, old) -> Array:
  """f(z) as z times the constant f(z) / z."""
  return gated(read('preactivations'), old())


def _rules(has_factors: bool) -> dict[str, Rule]:
  half = lambda block, read, old: halved(old())
  rules: dict[str, Rule] = {
    'queries': half,
    'keys': half,
    'mixed': lambda block, read, old: associated(
      read('attention'), read('values')
    ),
    'activations': activation_rule,
  }
  return rules | ({'attention': weights_rule} if has_factors else {})


def _has_factors(apply_fn: ApplyFn, params: Params, x: Array) -> bool:
  out = jax.eval_shape(apply_fn, params, x)[1]
  return isinstance(out, Mapping) and bool(out.get('factors'))


def _tokens(apply_fn, params, x, y, target, readout, rules) -> Array:
  """Σ_D token · derivative by the token, under `rules`, [B, N]."""
  names = sorted(set(NAMES) | set(rules) - {'tokens'})
  out, _ = seen(
    apply_fn, params, x, y, readout=readout, names=[*names, 'tokens']
  )
  tokens: Any = out['tokens']  # one array, where others are one a block

  def total(x: Array, offset: Array) -> Array:
    # `tokens` is one array; `rewired` wants one for each block.
    def listed(params, x):
      logits, out = apply_fn(params, x)
      return logits, {**out, 'tokens': (out['tokens'],)}

    move = lambda block, read, old: old() + offset
    ruled = rewired(listed, {**rules, 'tokens': move}, held=HELD)
    return jnp.sum(target_of(target, ruled(params, x)[0], y))

  # By x too, and that dropped: see `constant`.
  gradient = jax.grad(total, (0, 1))(x, jnp.zeros_like(tokens))[1]
  return image_tokens(jnp.sum(tokens * gradient, -1), readout)


def attn_lrp(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
) -> Array:
  """AttnLRP (Achtibat et al., arXiv 2402.05602), of the first tokens, [B, N].

  Relevance of the tokens that the first block gets (patch and position). What
  biases carry is nobody's, so the sum is the target only without them. For
  kernels with features `cp_lrp` is the better defined: what φ does to relevance
  is the derivative's choice here.

  Arguments and errors as `attention_gradients.gradient_x_attention`.
  """
  del key
  rules = _rules(_has_factors(apply_fn, params, x))
  return _tokens(apply_fn, params, x, y, target, readout, rules)


def cp_lrp(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
) -> Array:
  """CP-LRP (Ali et al., arXiv 2202.07304): weights are constants, [B, N].

  All relevance goes through the values, so kernels differ in nothing but A.
  Otherwise as `attn_lrp`.
  """
  del key

  def mixed(block: int, read, old) -> Array:
    a = constant(read('attention'))
    return jnp.einsum('bhij,bjhd->bihd', a, read('values'))

  rules = {'mixed': mixed, 'activations': activation_rule}
  return _tokens(apply_fn, params, x, y, target, readout, rules)


def weight_relevance(
  apply_fn: ApplyFn, params: Params, x: Array, y: Array, *, target: str
) -> list[Array]:
  """Relevance of the weights of each block, [B, H, L, L].

  The rules above, with α = 1 in linear layers: only what adds to an output
  counts (Chefer et al., arXiv 2012.09838, eq. 4, with the bias as one of the
  contributions).

  Raises:
    InputError: as `lrp.lrp_zplus`; a network that does not return `NAMES`.
  """
  x, y = check(apply_fn, params, x, y)
  shapes = per_block(apply_fn, params, x, NAMES)['attention']
  rules = _rules(_has_factors(apply_fn, params, x))

  def moved(params: tuple, x: Array) -> tuple[Array, dict]:
    params, offsets = params

    def mixed(block: int, read, old) -> Array:
      return associated(read('attention') + offsets[block], read('values'))

    ruled = rewired(
      apply_fn, {**rules, 'mixed': mixed}, ['attention'], held=HELD
    )
    return ruled(params, x)

  ruled = lrp.with_layers(moved, lambda layer: layer.positive)

  def total(x: Array, offsets: list[Array]) -> tuple[Array, tuple]:
    logits, out = ruled((params, offsets), x)
    return jnp.sum(target_of(target, logits, y)), out['attention']

  zeros = [jnp.zeros(s.shape, s.dtype) for s in shapes]
  # By x too, and that dropped: see `constant`.
  (_, gradients), a = jax.grad(total, (0, 1), has_aux=True)(x, zeros)
  return [g * w for g, w in zip(gradients, a, strict=True)]


def chefer_lrp(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  readout: str = 'cls',
) -> Array:
  """Chefer et al.'s relevance rule (arXiv 2012.09838, eq. 13 and 14), [B, N].

  Product of I + mean_h relu(R_A ⊙ dy/dA), R_A from `weight_relevance`,
  divided by the target: theirs starts at 1, whatever the logit is. Their
  code lets layer norms and activations pass relevance on unchanged and scales
  the two branches of a residual sum; here they follow the rules above.

  Arguments and errors as `attention_gradients.gradient_x_attention`.
  """
  del key
  out, rows = seen(
    apply_fn, params, x, y, readout=readout, names=['attention'], target=target
  )
  pairs = zip(out['values'], out['gradient'], strict=True)
  gradients = [attention.weight_gradient(v, g) for v, g in pairs]
  relevance = weight_relevance(apply_fn, params, x, y, target=target)
  # Theirs starts at 1 whatever the logit is, and R is linear in its start.
  logits, y = apply_fn(params, x)[0], jnp.asarray(y)
  start = jax.jvp(lambda z: target_of(target, z, y), (logits,), (logits,))[1]
  start = jnp.where(start == 0, 1, start)[:, None, None, None]
  relevance = [r / start for r in relevance]
  result = attention.chefer(gradients, relevance, rows[:, None])
  return image_tokens(result[:, 0], readout)
