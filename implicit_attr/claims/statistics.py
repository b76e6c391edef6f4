"""Intervals over seeds and examples, and correlations clustered by setting."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95

Column = Sequence[float] | np.ndarray


class Estimate(NamedTuple):
  """A value with its 95 % interval, and how many seeds or runs it rests on.

  `p` is two-sided, of the value 0.
  """

  value: float
  low: float
  high: float
  n: int
  p: float = 1.0


def paired_mean(differences: np.ndarray, null: float = 0.0) -> Estimate:
  """Mean of paired differences, over seeds and examples at once.

  Every seed is judged on the same examples, so both are random and crossed.
  The variance of the mean is that of clusters by seed plus that of clusters by
  example less the remainder that both count (Cameron, Gelbach & Miller, J.
  Bus. Econ. Stat. 29, 2011; on a full table the estimate of a two-way analysis
  of variance). The quantile is that of t with n - 1 degrees of freedom for n
  seeds, as if examples were no surer than seeds.

  Args:
    differences: [seeds, examples], NaN where an example does not count; one
      column if only means are known.
    null: the value that `p` tests.

  Returns:
    The estimate; an interval from -inf to inf for fewer than two seeds.
  """
  from scipy import stats  # half a second that no other mode need wait for

  here = np.isfinite(differences)
  rows, columns = here.any(1), here.any(0)
  differences = differences[rows][:, columns]
  here = here[rows][:, columns]
  n, m = differences.shape
  if not n:
    return Estimate(float('nan'), -np.inf, np.inf, 0)
  total = here.sum()
  value = float(differences[here].sum() / total)
  if n < 2:
    return Estimate(value, -np.inf, np.inf, n)
  rest = np.where(here, differences - value, 0.0)
  variance = (rest.sum(1) ** 2).sum() * n / (n - 1)
  if m > 1:
    rows = rest.sum(1) / here.sum(1)
    columns = rest.sum(0) / here.sum(0)
    both = np.where(here, rest - rows[:, None] - columns, 0.0)
    of_examples = (rest.sum(0) ** 2).sum() * m / (m - 1)
    shared = (both**2).sum() * n * m / ((n - 1) * (m - 1))
    variance += max(of_examples - shared, 0.0)
  error = float(np.sqrt(variance)) / total
  half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * error
  with np.errstate(divide='ignore', invalid='ignore'):
    p = 2 * stats.t.sf(np.abs(np.float64(value - null)) / error, n - 1)
  p = 1.0 if np.isnan(p) else float(p)
  return Estimate(value, value - half, value + half, n, p)


def within_settings(
  cause: Column,
  effect: Column,
  setting: Sequence,
  seed: Sequence,
) -> Estimate:
  """Rank correlation of what setting and seed leave of two columns.

  Both columns are freed of the mean of each setting and of each seed, two
  factors without an order, so no effect of the rate, however curved, and no
  luck that a seed has everywhere is left; ranks of the rest are correlated.
  The interval is on Fisher's scale with as many degrees of freedom as the
  factors leave and, from five seeds on, no narrower than a jackknife over
  settings or one over seeds says. With fewer, these are mostly noise, and the
  larger of them would hide most true chains (docs/verdicts.md).

  Returns:
    The estimate; NaN from -1 to 1 where fewer than four degrees of freedom, or
    nothing that varies, is left.
  """
  from scipy import stats

  table = np.stack([cause, effect], 1).astype(float).reshape(-1, 2)
  places = [np.unique(f, return_inverse=True)[1] for f in (setting, seed)]

  def correlation(use: np.ndarray) -> tuple[float, int]:
    factors = [np.eye(p.max() + 1)[p[use]] for p in places]
    design = np.concatenate([f[:, f.any(0)] for f in factors], 1)
    fit, _, rank, _ = np.linalg.lstsq(design, table[use], rcond=None)
    left, free = table[use] - design @ fit, int(use.sum() - rank)
    if free < 4 or (np.ptp(left, 0) <= 1e-9 * np.ptp(table[use], 0)).any():
      return float('nan'), free
    rho: Any = stats.spearmanr(*left.T)
    return float(rho.statistic), free

  n = len(table)
  rho, free = correlation(np.ones(n, bool)) if n else (float('nan'), 0)
  if not np.isfinite(rho):
    return Estimate(float('nan'), -1.0, 1.0, n)
  variance = (1 + rho**2 / 2) / (free - 2)
  for place in places if places[1].max() >= 4 else ():
    without = [correlation(place != c)[0] for c in range(place.max() + 1)]
    z = _fisher(np.array(without))
    z = z[np.isfinite(z)]
    if z.size > 2:
      variance = max(variance, (z.size - 1) * z.var())
  return _on_fisher_scale(rho, variance, n)


def between_settings(
  cause: Column, effect: Column, given: np.ndarray,
  setting: Sequence,
) -> Estimate:  # fmt: skip
  """Partial correlation over the means of settings.

  The cause and what is given are the same for all runs of a setting, so a
  setting counts once, however many seeds it has. Of values, not ranks: nine
  settings of three rates have few ranks to tell them by, and a third more true
  chains are missed for it (docs/verdicts.md). See `partial_correlation`.
  """
  table = np.column_stack([cause, effect, given]).astype(float)
  place = np.unique(setting, return_inverse=True)[1]
  rows = range(place.max() + 1 if place.size else 0)
  means = [table[place == row].mean(0) for row in rows]
  means = np.array(means).reshape(-1, table.shape[1])
  return partial_correlation(means[:, 0], means[:, 1], means[:, 2:])._replace(
    n=len(table)
  )


def partial_correlation(
  cause: Column, effect: Column, given: np.ndarray | tuple[()]
) -> Estimate:
  """Correlation of two columns, with others held fixed.

  Both are freed of what `given` explains linearly; the rest is correlated. The
  interval is Fisher's, with variance 1 / (n - k - 3) for k columns held fixed.
  Rows count as independent.

  Args:
    given: [runs, k]; a constant column changes nothing.

  Returns:
    The estimate; NaN from -1 to 1 where there is nothing to correlate.
  """
  rho, free, n = _partial(cause, effect, given)
  if np.isnan(rho):
    return Estimate(rho, -1.0, 1.0, n)
  return _on_fisher_scale(rho, 1 / free, n)


def partial_spearman(
  cause: Column, effect: Column, given: np.ndarray | tuple[()]
) -> Estimate:
  """`partial_correlation` of ranks, those of `given` as well.

  The variance is (1 + ρ²/2) / (n - k - 3), of Bonett & Wright (Psychometrika
  65, 2000).
  """
  from scipy import stats

  n = len(cause)
  given = np.asarray(given, float).reshape(n, -1) if n else np.empty((0, 0))
  ranked = (stats.rankdata(column, axis=0) for column in (cause, effect, given))
  rho, free, n = _partial(*ranked)
  if np.isnan(rho):
    return Estimate(rho, -1.0, 1.0, n)
  return _on_fisher_scale(rho, (1 + rho**2 / 2) / free, n)


def _partial(
  cause: Column, effect: Column, given: np.ndarray | tuple[()]
) -> tuple[float, int, int]:
  """(correlation, n - k - 3, n)."""
  a, b = (np.asarray(column, float) for column in (cause, effect))
  n = len(a)
  given = np.asarray(given, float).reshape(n, -1) if n else np.empty((0, 0))
  given = given[:, np.ptp(given, 0) > 0] if n else given
  free = n - given.shape[1] - 3
  if free < 1:
    return float('nan'), free, n
  design = np.column_stack([np.ones(n), given])
  left = [c - design @ np.linalg.lstsq(design, c)[0] for c in (a, b)]
  flat = [
    np.linalg.norm(rest) <= 1e-9 * np.linalg.norm(whole)
    for rest, whole in zip(left, (a, b), strict=True)
  ]
  if any(flat):
    return float('nan'), free, n
  a, b = (rest / np.linalg.norm(rest) for rest in left)
  return float(np.clip(a @ b, -1, 1)), free, n


def _on_fisher_scale(rho: float, variance: float, n: int) -> Estimate:
  from scipy import stats

  centre, error = float(_fisher(rho)), variance**0.5
  half = stats.norm.ppf((1 + LEVEL) / 2) * error
  low, high = np.tanh(centre - half), np.tanh(centre + half)
  p = 2 * stats.norm.sf(abs(centre) / error)
  return Estimate(rho, float(low), float(high), n, float(p))


def _fisher(rho):
  return np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
