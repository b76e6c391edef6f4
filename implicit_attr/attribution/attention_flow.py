"""How much can flow from a token to the read-out, if weights are capacities?

Attention flow (Abnar & Zuidema, arXiv 2005.00928, section 3): the maximal flow
on the layered graph. Offline, in numpy, one flow for each token: for some tens
of tokens. It is piecewise linear in the weights; an attack goes through rollout
and is judged by this.
"""

from collections.abc import Sequence

import numpy as np

from implicit_attr import errors
from implicit_attr.attribution.attention_outputs import image_tokens, seen
from implicit_attr.types import ApplyFn, Array, Params

_TOLERANCE = 1e-12  # of the largest capacity; below it an edge is full


def attention_flow(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  readout: str = 'cls',
  residual: str = 'renorm',
) -> np.ndarray:
  """`flow` of the network's weights, [B, N]; outside of jit only.

  Arguments and errors as `attention_maps.rollout`.
  """
  found, _ = seen(apply_fn, params, x, y, readout=readout, names=['attention'])
  return image_tokens(flow(found['attention'], readout, residual), readout)


def flow(
  blocks: Sequence[np.ndarray], readout: str = 'cls', residual: str = 'renorm'
) -> np.ndarray:
  """The maximal flow from each token to the class token, or to all of them.

  Args:
    blocks: weights [B, H, L, L] of each block, the first block first; their
      head mean, with the residual as in `rollout`, is the capacities.
    readout: 'cls', the flow that reaches the first token, or 'mean', where each
      token takes up to 1 / L.
    residual: 'renorm', 'rows' or 'raw'.

  Returns:
    [B, L], float64. At most what `readout` can take, and homogeneous of degree
    1 in a factor common to all capacities.
  """
  errors.choose('readout', readout, ('cls', 'mean'))
  errors.choose('residual', residual, ('renorm', 'rows', 'raw'))
  heads = [np.asarray(a, np.float64).mean(1) for a in blocks]
  capacities = np.stack([_with_residual(a, residual) for a in heads], 1)
  size = capacities.shape[-1]
  end = np.full(size, 1 / size)
  if readout == 'cls':
    end = np.where(np.arange(size) == 0, np.inf, 0.0)
  return np.array(
    [[_max_flow(c, end, start) for start in range(size)] for c in capacities]
  )


def _with_residual(a: np.ndarray, residual: str) -> np.ndarray:
  sums, eye = a.sum(-1, keepdims=True), np.eye(a.shape[-1])
  if residual == 'renorm':
    return 0.5 * (eye + a / np.where(sums > 0, sums, 1))
  return (eye + a) / (1 + sums if residual == 'rows' else 1)


def _max_flow(capacities: np.ndarray, end: np.ndarray, start: int) -> float:
  """From token `start` below to `end`; capacities [n, L, L] of (i above, j).

  Augmenting along the widest of the shortest paths (Edmonds & Karp), level by
  level: `up` is what still fits from j to i, `down` what may be taken back.
  """
  n, size, _ = capacities.shape
  up, down = capacities.copy(), np.zeros_like(capacities)
  out = end.copy()
  finite = np.where(np.isfinite(out), out, 0)
  small = _TOLERANCE * max(capacities.max(), finite.max())
  total = 0.0
  while True:
    # width[l, i]: the widest shortest path to token i of level l, and from
    # where it came.
    width = np.zeros((n + 1, size))
    parent: dict[tuple[int, int], tuple[int, int]] = {}
    width[0, start] = np.inf
    front = [(0, start)]
    best = None
    while front and best is None:
      ends = [p for p in front if p[0] == n and out[p[1]] > small]
      if ends:
        best = max(ends, key=lambda p: min(width[p], out[p[1]]))
        break
      found: dict[tuple[int, int], float] = {}
      for level, i in front:
        steps = []
        if level < n:
          steps.append((level + 1, up[level, :, i]))
        if level > 0:
          steps.append((level - 1, down[level - 1, i, :]))
        for to, room in steps:
          wide = np.minimum(width[level, i], room)
          for j in np.flatnonzero((room > small) & (width[to] == 0)):
            if wide[j] > found.get((to, j), 0):
              found[to, j] = wide[j]
              parent[to, j] = (level, i)
      for place, wide in found.items():
        width[place] = wide
      front = list(found)
    if best is None:
      return total
    amount = min(width[best], out[best[1]])
    total += amount
    out[best[1]] -= amount
    place = best
    while place in parent:
      before = parent[place]
      if before[0] < place[0]:
        up[before[0], place[1], before[1]] -= amount
        down[before[0], place[1], before[1]] += amount
      else:
        down[place[0], before[1], place[1]] -= amount
        up[place[0], before[1], place[1]] += amount
      place = before
