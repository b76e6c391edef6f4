"""Pre-registered tests of the claims of arXiv 2605.29983, with verdicts.

Claims were written down before the runs: `CLAIMS`, as data. Runs are a table,
a list of dicts, made by hand or read from a folder of run directories:

    records, problems = claims.read('runs/sweep')
    for verdict in claims.judge(records):
      print(verdict)
"""

from implicit_attr.claims.reading import of_run, read, wanted
from implicit_attr.claims.registry import CLAIMS, SEEDS, Claim
from implicit_attr.claims.statistics import (
  Estimate,
  paired_bootstrap,
  partial_spearman,
)
from implicit_attr.claims.verdicts import (
  TOO_FEW,
  UNDECIDED,
  Cell,
  Verdict,
  judge,
  judge_one,
)

__all__ = [
  'CLAIMS',
  'SEEDS',
  'TOO_FEW',
  'UNDECIDED',
  'Cell',
  'Claim',
  'Estimate',
  'Verdict',
  'judge',
  'judge_one',
  'of_run',
  'paired_bootstrap',
  'partial_spearman',
  'read',
  'wanted',
]
