"""Checks: both sides of a statement over random draws, and their slack.

A check computes both sides of one statement over many random draws, in
float64 on the CPU, and the worst draw decides. What a draw is, the check says
in its assumptions. Derivatives are JAX's; the algebra around them is NumPy's,
so that a formula and the thing it speaks about share no code.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from implicit_attr import errors, numerics
from implicit_attr.types import Array

Sides = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Random numbers -> (lhs, rhs), of one shape [draws] or [draws, entries]."""

RELATIONS = ('<=', '==', '>')
DRAWS = 1000


class CheckResult(NamedTuple):
  """Both sides at the worst draw, and what all draws say.

  slack is relative to the larger side of its draw: (rhs - lhs) for '<=',
  (lhs - rhs) for '>', and minus the largest error for '=='. `typical` is its
  median over draws: how loose a bound is where it is not at its worst.
  """

  lhs: float
  rhs: float
  slack: float
  holds: bool
  typical: float
  draws: int


@dataclasses.dataclass(frozen=True)
class Check:
  """One statement, as words and as two sides of random draws.

  Attributes:
    name: key in `CHECKS`.
    statement: what is claimed, in one line.
    source: where it was published, or 'derived here'.
    assumptions: what has to be true for it, and what is drawn.
    sides: generator -> (lhs, rhs), float64.
    relation: '<=' (a bound), '==' (an identity) or '>' (a counterexample: the
      bound that others may believe in fails, in every draw).
    tol: relative. A '<=' or '==' may be off by it, a '>' has to exceed it.
  """

  name: str
  statement: str
  source: str
  assumptions: str
  sides: Sides
  relation: str = '<='
  tol: float = 1e-10

  def run(self, key: Array) -> CheckResult:
    """Draws, computes both sides and judges them.

    The same key gives the same result. A side that is not finite does not
    hold.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    with jax.enable_x64(True), jax.default_device('cpu'), numerics.exact():
      lhs, rhs = self.sides(rng)
    return judge(lhs, rhs, self.relation, self.tol)


def judge(
  lhs: np.ndarray, rhs: np.ndarray, relation: str, tol: float
) -> CheckResult:
  """The result of two arrays [draws] or [draws, entries]; worst draw first.

  An identity is judged by its largest entry's error, relative to the largest
  entry of the draw; a bound entry by entry.

  Raises:
    InputError: an unknown relation; sides of different shapes, or empty.
  """
  errors.choose('relation', relation, RELATIONS)
  lhs, rhs = np.asarray(lhs, np.float64), np.asarray(rhs, np.float64)
  fits = lhs.shape == rhs.shape and lhs.size > 0
  errors.require('rhs', rhs.shape, fits, f'of the shape of lhs, {lhs.shape}')
  draws = len(lhs)
  lhs, rhs = lhs.reshape(draws, -1), rhs.reshape(draws, -1)
  scale = np.maximum(np.abs(lhs), np.abs(rhs))
  if relation == '==':
    scale = np.broadcast_to(scale.max(1, keepdims=True), scale.shape)
  finite = np.isfinite(lhs) & np.isfinite(rhs)
  with np.errstate(invalid='ignore'):
    gain = {'<=': rhs - lhs, '>': lhs - rhs, '==': -np.abs(lhs - rhs)}[relation]
    slack = np.where(finite, gain / np.where(scale > 0, scale, 1), -np.inf)
  place = np.unravel_index(np.argmin(slack), slack.shape)
  worst = float(slack[place])
  return CheckResult(
    lhs=float(lhs[place]),
    rhs=float(rhs[place]),
    slack=worst,
    holds=worst > tol if relation == '>' else worst >= -tol,
    typical=float(np.median(slack.min(1))),
    draws=draws,
  )


def named(*checks: Check) -> dict[str, Check]:
  """name -> check; a name that comes twice is a mistake in this package."""
  by_name = {check.name: check for check in checks}
  assert len(by_name) == len(checks)
  return by_name


def columns(*sides: np.ndarray) -> np.ndarray:
  """Statements side by side: arrays [draws, ...] -> [draws, entries]."""
  return np.concatenate([np.asarray(s).reshape(len(s), -1) for s in sides], 1)


def spectral(a: np.ndarray) -> np.ndarray:
  """Largest singular value of matrices [..., m, n]; -> [...]."""
  return np.linalg.norm(a, 2, axis=(-2, -1))


def frobenius(a: np.ndarray) -> np.ndarray:
  """√ Σ a² of matrices [..., m, n]; -> [...]."""
  return np.linalg.norm(a, axis=(-2, -1))


def top_of(a: np.ndarray) -> np.ndarray:
  """Largest eigenvalue, with sign, of symmetric [..., n, n]; -> [...]."""
  return np.linalg.eigvalsh(a)[..., -1]


def trace_of(a: np.ndarray) -> np.ndarray:
  """Sum of the diagonal of matrices [..., n, n]; -> [...]."""
  return np.trace(a, axis1=-2, axis2=-1)
