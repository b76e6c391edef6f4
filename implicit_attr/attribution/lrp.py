"""Layer-wise relevance propagation in linear layers: LRP-γ and LRP-z⁺.

How is relevance shared among the inputs of a linear layer?
In proportion to what they contribute to its output, those of the output's own
sign counting for more. Linear layers are found by their product, see
`with_layers`; everything between them passes the plain gradient, which is the
ε rule with ε = 0: rectifiers with f(0) = 0 and two slopes, sums and averages
keep the relevance, normalisation layers and other biases do not.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from implicit_attr import errors
from implicit_attr.attribution import graph
from implicit_attr.attribution.gradients import gradient_of
from implicit_attr.attribution.inputs import check, known
from implicit_attr.types import ApplyFn, Array, Params, Tree

PRODUCTS = (
  'dot_general', 'conv_general_dilated', 'implicit_attr_conv_output',
)  # fmt: skip
"""Operations that make a linear layer where one factor does not depend on x;
the last one is `models.conv.conv2d`."""

# What may stand between a product and the bias that is added to it.
_LAYOUTS = ('reshape', 'transpose', 'squeeze', 'convert_element_type')


class Layer(NamedTuple):
  """A linear layer's output z, and the sum of its positive contributions.

  Contributions to z_k are the a_j w_jk and the bias b_k; those that are
  negative add up to z - positive.
  """

  z: Array
  positive: Array


def lrp_gamma(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  gamma: float | Array = 0.25,
) -> Array:
  """Layer-wise relevance, γ rule, in every linear layer.

  Contributions with the sign of the output z_k weigh 1 + γ, the others 1; the
  bias is one of them. For inputs a ≥ 0 and z_k > 0 this is the rule of
  Montavon et al. (LNCS 11700, 2019, section 10.2.1); for other signs it is its
  generalisation (Andéol et al. 2021, and zennit), where no denominator is
  smaller than |z_k|. γ = 0 is gradient times input, γ → ∞ is `lrp_zplus`.

  Args:
    apply_fn, params, x, y, target: as `gradient`.
    gamma: how much more; may be traced.

  Returns:
    Signed, in units of the target, with the shape of x. In a network of linear
    layers and relu or leaky_relu, without biases, it sums to the logit for
    every γ, up to rounding.

  Raises:
    InputError: as `gradient`; a network without linear layers, or with some
      inside of a loop; a negative gamma.
  """
  del key
  if known(gamma):
    errors.number('gamma', float(gamma), 0)

  def stand_in(layer: Layer) -> Array:
    return layer.z + jnp.asarray(gamma, layer.z.dtype) * _own_sign(layer)

  return _relevance(apply_fn, params, x, y, target, stand_in)


def lrp_zplus(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
) -> Array:
  """Layer-wise relevance, z⁺ rule, in every linear layer.

  Only contributions with the sign of the output count: for z_k > 0, which is
  all that a relu lets through, α = 1 and β = 0 (Bach et al., PLoS ONE 2015,
  eq. 60; for a ≥ 0 the z⁺ rule of Montavon et al., arXiv 1512.02479). A
  negative logit is shared among what is negative.

  Returns:
    As `lrp_gamma`. With target 'logit' and relu no entry has the sign that the
    logit has not.

  Raises:
    InputError: as `lrp_gamma`.
  """
  del key
  return _relevance(apply_fn, params, x, y, target, _own_sign)


def _own_sign(layer: Layer) -> Array:
  """The sum of the contributions that have the sign of z."""
  return jnp.where(layer.z > 0, layer.positive, layer.z - layer.positive)


def _relevance(apply_fn, params, x, y, target, stand_in) -> Array:
  x, y = check(apply_fn, params, x, y)
  ruled = with_layers(apply_fn, stand_in)
  return x * gradient_of(ruled, params, target)(x, y)


def with_layers(
  apply_fn: ApplyFn, stand_in: Callable[[Layer], Array]
) -> ApplyFn:
  """`apply_fn` in which a stand-in passes back the signals of linear layers.

  A layer is one of `PRODUCTS` with a factor that does not depend on x, and
  what is added to or subtracted from it next that does not depend on x, its
  bias. Values stay.
  A signal s at the layer's output z comes back as s z / z' (s for 0 / 0)
  through the derivative of its stand-in z' = stand_in(layer).

  Raises:
    InputError: when called, if no layer was recognised, or one sits inside of
      a loop.
  """

  def ruled(params: Params, x: Array) -> tuple[Array, dict]:
    closed, shapes = graph.traced(graph.opened(apply_fn), params, x)
    moving = _moving(closed.jaxpr)
    seen = 0

    def settled(value: Array | Layer) -> Array:
      if not isinstance(value, Layer):
        return value
      return _instead(value.z, stand_in(value))

    def visit(eqn, args, read) -> list:
      nonlocal seen
      one = lambda *args: graph.bind(eqn, args)[0]
      name = eqn.primitive.name
      moves = [isinstance(v, core.Var) and v in moving for v in eqn.invars]
      pending = any(isinstance(a, Layer) for a in args)
      if pending and name in _LAYOUTS:
        return [Layer(*map(one, args[0]))]
      if pending and name == 'neg':
        return [_negative(args[0])]
      if pending and name in ('add', 'sub') and sum(moves) == 1:
        layer, bias = args if moves[0] else reversed(args)
        if name == 'sub':
          layer, bias = (layer, -bias) if moves[0] else (_negative(layer), bias)
        positive = layer.positive + _above(bias)
        return [Layer(one(*map(_output, args)), positive)]
      args = [settled(a) for a in args]
      if name in PRODUCTS and sum(moves) == 1:
        seen += 1
        positive = one(*map(_above, args)) + one(*map(_below, args))
        return [Layer(one(*args), positive)]
      if any(moves):
        hidden = any(map(_has_product, core.jaxprs_in_params(eqn.params)))
        errors.require(
          'apply_fn', f'linear layers in {name}', not hidden,
          'calls of jit, checkpoint or vmap only for this method',
        )  # fmt: skip
      return graph.bind(eqn, args)

    args = jax.tree.leaves((params, x))
    flat = graph.run(closed, args, visit)
    errors.require(
      'apply_fn', 'a network', seen > 0,
      f'one with linear layers ({", ".join(PRODUCTS)}) for this method',
    )  # fmt: skip
    values = [settled(value) for value in flat]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)

  return ruled


def _output(value: Array | Layer) -> Array:
  return value.z if isinstance(value, Layer) else value


def _negative(layer: Layer) -> Layer:
  return Layer(-layer.z, layer.positive - layer.z)


def _above(a: Array) -> Array:
  return jnp.where(a >= 0, a, 0)


def _below(a: Array) -> Array:
  return jnp.where(a < 0, a, 0)


@jax.custom_vjp
def _instead(z: Array, stand_in: Array) -> Array:
  """z, whose signals go to `stand_in`; see `with_layers`."""
  return z


def _instead_back(saved: tuple[Array, Array], signal: Array) -> tuple:
  z, stand_in = saved
  zero = stand_in == 0
  share = jnp.where(zero, 1, z / jnp.where(zero, 1, stand_in))
  return jnp.zeros_like(z), signal * share


_instead.defvjp(lambda z, stand_in: (z, (z, stand_in)), _instead_back)


def _moving(jaxpr: core.Jaxpr) -> set[core.Var]:
  """The variables that depend on x, the last argument."""
  moving = {jaxpr.invars[-1]}
  for eqn in jaxpr.eqns:
    used = [v for v in eqn.invars if isinstance(v, core.Var)]
    if moving.intersection(used):
      moving.update(eqn.outvars)
  return moving


def _has_product(closed: Tree) -> bool:
  jaxpr, _ = graph.parts(closed)
  return any(
    eqn.primitive.name in PRODUCTS
    or any(map(_has_product, core.jaxprs_in_params(eqn.params)))
    for eqn in jaxpr.eqns
  )
