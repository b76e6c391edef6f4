"""Theory: every statement as a check with both sides and their slack.

print(theory.run(None))                      # all checks, as a table
theory.CHECKS['topk_gap'].run(key)           # one, as a CheckResult
print(theory.run_on(apply_fn, params, x, y)) # on your own network
theory.affine_radius(matrix, phi, k)         # what no attack can undo
"""

from implicit_attr.theory.certificates import (
  Smoothed,
  affine_radius,
  empirical_radius,
  lipschitz_radius,
  smoothed_radius,
)
from implicit_attr.theory.check import Check, CheckResult, judge
from implicit_attr.theory.mlp_certificate import mlp_radius
from implicit_attr.theory.network import LARGEST, run_on
from implicit_attr.theory.table import CHECKS, run

__all__ = [
  'CHECKS',
  'LARGEST',
  'Check',
  'CheckResult',
  'Smoothed',
  'affine_radius',
  'empirical_radius',
  'judge',
  'lipschitz_radius',
  'mlp_radius',
  'run',
  'run_on',
  'smoothed_radius',
]
