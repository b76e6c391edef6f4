"""Trees as one long vector, and back.

The algorithms of this folder run on matrices [problems, dimension]; this file
is the only one that knows what the user's tree looks like.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.types import Array, Tree


class Flat(NamedTuple):
  """The two directions between a tree and vectors of length `size`.

  `ravel` and `unravel` keep any leading axes that all leaves share. Vectors
  are float32, or float64 where a leaf is; leaves get their own dtype back.
  """

  size: int
  dtype: jnp.dtype
  ravel: Callable[[Tree], Array]
  unravel: Callable[[Array], Tree]


STATE = {'batch_stats', 'BatchStat', 'RngState'}
STATISTICS = {'mean', 'var'}


def warn_of_state(field: str, tree: Tree) -> None:
  """Warns, by name, of leaves that are a layer's state and no parameters.

  Those below a key in `STATE`, those whose own name is in `STATISTICS`, and
  those that flax nnx holds in a Variable of a type in `STATE`.
  """
  held = lambda node: bool(STATE & {t.__name__ for t in type(node).__mro__})
  names = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=held):
    keys = [str(getattr(k, 'key', getattr(k, 'name', k))) for k in path]
    own = [k for k in keys if k != 'value'][-1:]
    if held(leaf) or STATE & set(keys) or STATISTICS & set(own):
      names.append(jax.tree_util.keystr(path))
  if names:
    shown = ', '.join(names[:3]) + (', …' if len(names) > 3 else '')
    warnings.warn(
      f'{len(names)} leaves of {field} look like state, not parameters '
      f'({shown}): close over them, as linen: params and the rest; nnx: '
      'nnx.split(model, nnx.Param, ...)',
      stacklevel=4,
    )


def check_tree(field: str, tree: Tree) -> None:
  """Raises InputError unless `tree` has elements and all are real floats.

  Warns of leaves that are no parameters, see `warn_of_state`.
  """
  warn_of_state(field, tree)
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  errors.require(
    field,
    tree if not leaves else '…',
    sum(math.prod(jnp.shape(leaf)) for _, leaf in leaves) > 0,
    'a tree with at least one array element',
  )
  for path, leaf in leaves:
    dtype = jnp.result_type(leaf)
    errors.require(
      field + jax.tree_util.keystr(path),
      str(dtype),
      jnp.issubdtype(dtype, jnp.floating),
      'a real floating-point array; close over the leaves that are not',
    )


def flatten_like(like: Tree, *, lead: int = 0) -> Flat:
  """The `Flat` of trees shaped like `like`, whose first `lead` axes are extra.

  Raises:
    InputError: no elements, or a leaf that is not floating point.
  """
  check_tree('like', like)
  leaves, treedef = jax.tree.flatten(like)
  shapes = [jnp.shape(leaf)[lead:] for leaf in leaves]
  dtypes = [jnp.result_type(leaf) for leaf in leaves]
  sizes = [math.prod(shape) for shape in shapes]
  dtype = jnp.result_type(jnp.float32, *dtypes)

  def ravel(tree: Tree) -> Array:
    rows = [
      jnp.reshape(leaf, (*leaf.shape[: leaf.ndim - len(shape)], size))
      for leaf, shape, size in zip(
        jax.tree.leaves(tree), shapes, sizes, strict=True
      )
    ]
    # Fused with what comes before it, a concatenation on a CPU goes number by
    # number, at up to three times the cost of the product that it follows.
    rows = jax.lax.optimization_barrier([row.astype(dtype) for row in rows])
    return jnp.concatenate(rows, axis=-1)

  def unravel(rows: Array) -> Tree:
    parts, start = [], 0
    for shape, size, leaf_dtype in zip(shapes, sizes, dtypes, strict=True):
      part = jax.lax.slice_in_dim(rows, start, start + size, axis=-1)
      parts.append(part.reshape(*rows.shape[:-1], *shape).astype(leaf_dtype))
      start += size
    return jax.tree.unflatten(treedef, parts)

  return Flat(sum(sizes), dtype, ravel, unravel)
