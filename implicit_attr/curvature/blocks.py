"""How curved is the loss in one layer, the others held fixed?"""

from collections.abc import Callable

import jax

from implicit_attr import errors
from implicit_attr.types import Array, Tree


def block_names(tree: Tree, depth: int = 1) -> tuple[str, ...]:
  """The first `depth` keys of every leaf's path, joined by '/', each once."""
  names = ('/'.join(path.split('/')[:depth]) for path in _paths(tree))
  return tuple(dict.fromkeys(names))


def block(
  fun: Callable[[Tree], Array], x: Tree, name: str
) -> tuple[Callable[[dict[str, Array]], Array], dict[str, Array]]:
  """(`fun` of one block of `x` alone, the block).

  The Hessian of the result is the diagonal block of the Hessian of `fun`; what
  it needs is differentiated and nothing else, so a block's product is cheaper
  than a whole one. By interlacing λ_max of a block never exceeds λ_max.

  Args:
    fun: x -> any output.
    name: a path or the beginning of one, by '/': 'first', 'first/kernel'.

  Returns:
    (fun_of_block, block), the block a dict from leaf paths to arrays.

  Raises:
    InputError: no leaf of `x` lies under `name`.
  """
  paths = _paths(x)
  leaves, treedef = jax.tree.flatten(x)
  chosen = {
    path: leaf
    for path, leaf in zip(paths, leaves, strict=True)
    if path == name or path.startswith(name + '/')
  }
  if not chosen:
    errors.choose('block', name, [*block_names(x), *paths])

  def of_block(part: dict[str, Array]) -> Array:
    whole = [
      part.get(path, leaf) for path, leaf in zip(paths, leaves, strict=True)
    ]
    return fun(jax.tree.unflatten(treedef, whole))

  return of_block, chosen


def _paths(tree: Tree) -> list[str]:
  """'a/b/c' of every leaf, in the order of `jax.tree.leaves`."""
  return [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  ]
