"""Pre-registered tests of the claims of arXiv 2605.29983, with verdicts.

Claims were written down before the runs: `CLAIMS`, as data. Runs are a table,
a list of dicts, made by hand or read from a folder of run directories:

    records, problems = claims.read('runs/sweep')
    for verdict in claims.judge(records):
      print(verdict)
"""

from implicit_attr.claims.decisions import (
  NO_EFFECT,
  REVERSED,
  SUPPORTED,
  TOO_FEW,
  UNDECIDED,
)
from implicit_attr.claims.reading import of_run, read, wanted
from implicit_attr.claims.registry import CLAIMS, SEEDS, Claim
from implicit_attr.claims.statistics import (
  Estimate,
  between_settings,
  paired_mean,
  partial_correlation,
  partial_spearman,
  within_settings,
)
from implicit_attr.claims.verdicts import (
  Cell,
  Verdict,
  judge,
  judge_one,
)

__all__ = [
  'CLAIMS',
  'NO_EFFECT',
  'REVERSED',
  'SEEDS',
  'SUPPORTED',
  'TOO_FEW',
  'UNDECIDED',
  'Cell',
  'Claim',
  'Estimate',
  'Verdict',
  'between_settings',
  'judge',
  'judge_one',
  'of_run',
  'paired_mean',
  'partial_correlation',
  'partial_spearman',
  'read',
  'wanted',
  'within_settings',
]
