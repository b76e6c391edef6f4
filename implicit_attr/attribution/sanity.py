"""Sanity checks of maps: parameter randomisation, Gini index and entropy.

A map that stays when weights are replaced by fresh ones shows the image or the
architecture (Adebayo et al., arXiv 1810.03292). A map that is the same
everywhere is perfectly stable and says nothing; Gini index and entropy tell.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attribution.reduce import floating, sum_abs
from implicit_attr.types import Array, Params

Compare = Callable[[Array, Array], Array]
"""Two maps -> how alike they are, [B]."""


def parameter_randomisation(
  explain: Callable[[Params, Array, Array], Array],
  params: Params,
  fresh: Params,
  x: Array,
  y: Array,
  compare: Compare,
  *,
  layers: Sequence[str],
  independent: bool = False,
) -> Array:
  """How alike maps stay while layers lose what they learnt.

  Cascading, row i has the layers 0 to i replaced by `fresh`; independent,
  layer i alone. The class that is asked about stays. States are taken one
  after the other, in one compiled loop.

  Args:
    explain: (params, x, y) -> map.
    params: learnt.
    fresh: like `params`, from the network's initialiser under another key.
    x: [B, ...].
    y: int [B].
    compare: (map of `params`, map of the others) -> [B], for instance the
      absolute `similarity.spearman`.
    layers: from the logits down: paths into `params`, joined by '/', of a
      leaf or of all below it: 'logits', 'block_1', 'first/kernel'.
    independent: one layer at a time.

  Returns:
    [len(layers), B]; a map that passes falls to what unrelated maps have.

  Raises:
    InputError: trees or shapes of `params` and `fresh` that differ, no layer,
      one that is not there, or two that share a leaf.
  """
  leaves, tree = jax.tree.flatten_with_path(params)
  names = [jax.tree_util.keystr(p, simple=True, separator='/')
           for p, _ in leaves]  # fmt: skip
  shapes = [jnp.shape(leaf) for _, leaf in leaves]
  alike = jax.tree.structure(fresh) == tree
  alike = alike and shapes == [jnp.shape(v) for v in jax.tree.leaves(fresh)]
  errors.require('fresh', 'a tree', alike, 'like params, leaf by leaf')
  errors.require('layers', list(layers), len(layers) > 0, 'at least one path')
  for layer in layers:
    errors.choose('layers', layer, _paths(names))
  places = [_place(name, layers) for name in names]
  place = jax.tree.unflatten(tree, places)
  clean = explain(params, x, y)

  def state(row: Array) -> Array:
    def pick(place: int, old: Array, new: Array) -> Array:
      replaced = place == row if independent else place <= row
      return jnp.where(replaced, new, old)

    moved = jax.tree.map(pick, place, params, fresh)
    return compare(clean, explain(moved, x, y))

  return jax.lax.map(state, jnp.arange(len(layers)))


def _paths(names: list[str]) -> set[str]:
  """All that a leaf's path begins with."""
  parts = [name.split('/') for name in names]
  return {'/'.join(p[:n]) for p in parts for n in range(1, len(p) + 1)}


def _place(name: str, layers: Sequence[str]) -> int:
  """Which layer a leaf belongs to; len(layers), which no row reaches, if none.

  Raises:
    InputError: it belongs to two.
  """
  inside = [i for i, layer in enumerate(layers)
            if f'{name}/'.startswith(f'{layer}/')]  # fmt: skip
  errors.require('layers', list(layers), len(inside) < 2, 'apart from another')
  return inside[0] if inside else len(layers)


def gini(a: Array) -> Array:
  """Gini index of the absolute map (Hurley and Rickard, arXiv 0811.4706); [B].

  0 where all of the n pixels are equal, 1 - 1 / n where one has everything,
  about 0.41 for normal noise on one channel. A map that is 0 is constant: 0.
  Channels, [B, H, W, C], are summed (`sum_abs`); any other [B, ...] will do.
  """
  shares, n = _shares(a)
  rank = jnp.arange(1, n + 1, dtype=shares.dtype)
  weight = (n - rank + 0.5) / n
  return 1 - 2 * jnp.sort(shares, axis=1) @ weight


def entropy(a: Array) -> Array:
  """Entropy of the absolute map over that of a constant one, log n; [B].

  1 where all pixels are equal, 0 where one has everything (complexity in
  arXiv 2005.00631, there not divided by log n). Maps as `gini` takes them.
  """
  shares, n = _shares(a)
  zero = shares == 0
  terms = jnp.where(zero, 0, shares * jnp.log(jnp.where(zero, 1, shares)))
  return -jnp.sum(terms, axis=1) / jnp.log(float(n))


def _shares(a: Array) -> tuple[Array, int]:
  """|a| over its sum, [B, n], and n; a map that is 0 counts as constant."""
  a = floating(a)
  errors.require('map.shape', a.shape, a.ndim > 1, '[B, ...]')
  a = sum_abs(a) if a.ndim == 4 else jnp.abs(a)
  a = a.reshape(a.shape[0], -1)
  n = a.shape[1]
  errors.require('map.shape', a.shape, n > 1, 'of more than one pixel')
  # The largest is 1, so that the sum does not overflow.
  top = jnp.max(a, axis=1, keepdims=True)
  a = jnp.where(top == 0, 1, a / jnp.where(top == 0, 1, top))
  return a / jnp.sum(a, axis=1, keepdims=True), n
