"""Feature maps of linear attention: elu + 1, Taylor, Hedgehog, FAVOR+, …

Each maps x [B, L, H, Dh] to non-negative or jointly safe features
[B, L, H, M]: phi(q) . phi(k) is positive for all but relu, relu2 and
cosformer, where it can be 0, and never negative. None has parameters, so
networks with different feature maps share one parameter tree: a learned linear
map before phi (Hedgehog's) is part of the query and key projections already.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr.types import Array


def elu1(x: Array) -> Array:
  """elu(x) + 1; C1 (Katharopoulos et al., arXiv 2006.16236, eq. 7)."""
  # The inner `where` keeps exp from overflowing where it is not used: the
  # gradient of the outer one multiplies by both branches. A minimum would
  # halve the slope at 0.
  return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))


def relu2(x: Array) -> Array:
  """relu(x)^2; C1."""
  return jax.nn.relu(x) ** 2


def taylor2(x: Array) -> Array:
  """1 + s + s^2 / 2 of s = q . k / sqrt(Dh), at least 1/2; M = 1 + Dh + Dh^2.

  Second-order Taylor series of exp, as in Based (arXiv 2402.18668).
  """
  x = x / x.shape[-1] ** 0.25
  pairs = x[..., :, None] * x[..., None, :] / math.sqrt(2)
  one = jnp.ones((*x.shape[:-1], 1), x.dtype)
  return jnp.concatenate([one, x, pairs.reshape(*x.shape[:-1], -1)], -1)


def hedgehog(x: Array) -> Array:
  """softmax of [x, -x]; M = 2 Dh (Zhang et al., arXiv 2402.04347).

  The map's own linear layer is left at its start, the identity.
  """
  return jax.nn.softmax(jnp.concatenate([x, -x], -1), -1)


def favor(x: Array, *, over_positions: bool, draws: int = 128) -> Array:
  """Positive random features of exp(q . k / sqrt(Dh)); M = `draws`.

  Choromanski et al., arXiv 2009.14794, lemma 1. The orthogonal directions are
  constants, the same in every call, layer and process: a redraw would change
  the map while its input stays. Features are divided by their largest value,
  per row for queries and per head over all positions for keys
  (`over_positions`); this cancels in the normalised kernel and never looks at
  another example.
  """
  w = jnp.asarray(_orthogonal(draws, x.shape[-1]), x.dtype)
  x = x / x.shape[-1] ** 0.25
  logits = jnp.einsum('blhd,md->blhm', x, w)
  logits = logits - 0.5 * jnp.sum(x**2, -1, keepdims=True)
  axes = (1, 3) if over_positions else (3,)
  # Any constant cancels, so none of its derivative is missing.
  top = jax.lax.stop_gradient(jnp.max(logits, axes, keepdims=True))
  return jnp.exp(logits - top) / math.sqrt(draws)


def cosformer(x: Array, *, grid: tuple[int, int] | None) -> Array:
  """relu(x) reweighted by distance on a grid; M = 4 Dh.

  cosFormer (Qin et al., arXiv 2202.08791) in two separable dimensions: the
  kernel is relu(q) . relu(k) cos(row angle) cos(column angle), angles
  pi / 2 times the distance over the grid's length. The last rows * columns
  tokens are the grid in row order; tokens before them (a class token) stand
  in its middle. Without a grid the tokens are one row.
  """
  rows, cols = grid or (1, x.shape[1])
  extra = x.shape[1] - rows * cols
  r, c = np.divmod(np.arange(rows * cols), cols)
  place = np.stack([r / rows, c / cols])
  middle = np.array([[(rows - 1) / 2 / rows], [(cols - 1) / 2 / cols]])
  place = np.concatenate([np.repeat(middle, extra, 1), place], 1)
  angle = np.pi / 2 * place  # [2, L]
  wave = np.stack([np.cos(angle), np.sin(angle)])  # [2, 2, L]
  wave = np.einsum('al,bl->lab', wave[:, 0], wave[:, 1]).reshape(-1, 4)
  wave = jnp.asarray(wave, x.dtype)[None, :, None, :, None]
  y = jax.nn.relu(x)[..., None, :] * wave  # [B, L, H, 4, Dh]
  return y.reshape(*x.shape[:-1], -1)


FEATURE_MAPS: dict[str, Callable[..., Array]] = {
  'elu1': elu1,
  'relu': jax.nn.relu,
  'relu2': relu2,
  'softplus': jax.nn.softplus,
  'sigmoid': jax.nn.sigmoid,
  'taylor2': taylor2,
  'hedgehog': hedgehog,
  'favor': favor,
  'cosformer': cosformer,
}


def feature_pair(
  name: str, q: Array, k: Array, grid: tuple[int, int] | None
) -> tuple[Array, Array]:
  """phi(q) and phi(k), each [B, L, H, M]; `grid` is for cosformer alone."""
  phi = FEATURE_MAPS[name]
  if name == 'favor':
    return phi(q, over_positions=False), phi(k, over_positions=True)
  if name == 'cosformer':
    phi = functools.partial(phi, grid=grid)
  # A gradient keeps phi and makes again what its slope is made of: elu + 1 over
  # 8192 positions takes 33 MiB for 49, a Hessian product 82 for 114 (jax 0.12),
  # in 0.94 to 1.06 times the time (a Hessian product up to 1.17). The slope of
  # favor is phi itself.
  phi = jax.checkpoint(phi)
  return phi(q), phi(k)


@functools.lru_cache
def _orthogonal(draws: int, dim: int) -> np.ndarray:
  """[draws, dim] directions, orthogonal in blocks, with chi(dim) lengths."""
  rng = np.random.Generator(np.random.Philox(key=2009))
  blocks = []
  for _ in range(-(-draws // dim)):
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    blocks.append((q * np.sign(np.diag(r))).T)  # unique, so reproducible
  lengths = np.linalg.norm(rng.standard_normal((draws, dim)), axis=1)
  return np.concatenate(blocks)[:draws] * lengths[:, None]
