"""Paired bootstrap over seeds and examples, and partial rank correlation."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
  """A value with its 95 % interval, and how many seeds or runs it rests on."""

  value: float
  low: float
  high: float
  n: int


def paired_bootstrap(differences: np.ndarray, seed: int = 0) -> Estimate:
  """Mean of paired differences, over seeds and examples at once.

  Seeds and examples are resampled independently of each other (Owen, arXiv
  0712.1111), because every seed is judged on the same examples. The interval
  is the mean ± t standard errors with the few degrees of freedom that the
  seeds leave, n - 1, and the factor √(n / (n - 1)) that a bootstrap over n
  seeds falls short of: percentiles of three values would be far too sure.

  Args:
    differences: [seeds, examples], NaN where an example does not count; one
      column if only means are known.
    seed: of the resampling; the same one, the same interval.

  Returns:
    The estimate; an interval from -inf to inf for fewer than two seeds.
  """
  from scipy import stats  # half a second that no other mode need wait for

  here = np.isfinite(differences)
  differences = np.where(here, differences, 0.0)
  kept = here.any(1)
  differences, here = differences[kept], here[kept]
  n, m = differences.shape
  if not n:
    return Estimate(float('nan'), -np.inf, np.inf, 0)
  value = float(differences.sum() / here.sum())
  if n < 2:
    return Estimate(value, -np.inf, np.inf, n)
  seeds, examples = _weights(n, m, RESAMPLES, seed)
  total = np.sum(seeds * (examples @ differences.T), 1)
  count = np.sum(seeds * (examples @ here.T), 1)
  means = total[count > 0] / count[count > 0]
  half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * means.std(ddof=1)
  half *= (n / (n - 1)) ** 0.5
  return Estimate(value, value - half, value + half, n)


@functools.lru_cache(maxsize=16)
def _weights(
  n: int, m: int, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """How often each of n seeds and m examples is drawn: [resamples, n], [… m].

  Kept, because drawing them costs far more than using them does.
  """
  rng = np.random.default_rng(seed)
  draw = lambda size: rng.multinomial(size, np.full(size, 1 / size), resamples)
  return draw(n).astype(float), draw(m).astype(float)


def partial_spearman(
  cause: Sequence[float], effect: Sequence[float], given: np.ndarray
) -> Estimate:
  """Rank correlation of two columns, with others held fixed.

  Ranks of `cause` and `effect` are freed of what ranks of `given` explain
  linearly; the rest is correlated. The interval is Fisher's, with the variance
  (1 + ρ²/2) / (n - k - 3) of Bonett & Wright (Psychometrika 65, 2000) for k
  columns held fixed. Runs count as independent.

  Args:
    given: [runs, k]; a constant column changes nothing.

  Returns:
    The estimate; NaN from -1 to 1 where there is nothing to correlate.
  """
  from scipy import stats

  columns = [np.asarray(column, float) for column in (cause, effect)]
  n = len(columns[0])
  given = np.asarray(given, float).reshape(n, -1) if n else np.empty((0, 0))
  given = given[:, np.ptp(given, 0) > 0] if n else given
  k = given.shape[1]
  if n - k - 3 < 1:
    return Estimate(float('nan'), -1.0, 1.0, n)
  ranks = [stats.rankdata(g) for g in given.T]
  design = np.stack([np.ones(n), *ranks], 1)

  def left(column: np.ndarray) -> np.ndarray:
    ranked = stats.rankdata(column)
    return ranked - design @ np.linalg.lstsq(design, ranked, rcond=None)[0]

  a, b = map(left, columns)
  size = np.linalg.norm(a) * np.linalg.norm(b)
  if size < 1e-9 * n**3:
    return Estimate(float('nan'), -1.0, 1.0, n)
  rho = float(np.clip(a @ b / size, -1, 1))
  width = stats.norm.ppf((1 + LEVEL) / 2)
  width *= ((1 + rho**2 / 2) / (n - k - 3)) ** 0.5
  centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
  return Estimate(
    rho, float(np.tanh(centre - width)), float(np.tanh(centre + width)), n
  )
