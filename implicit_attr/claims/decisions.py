"""Five answers to a cell, and Benjamini & Yekutieli's false discovery rate.

'supported', 'reversed', 'no effect of interest', 'undecided' and 'not enough
runs'; `Claim.decision` says in a sentence when which is given.
"""

from collections.abc import Sequence

from implicit_attr.claims.statistics import Estimate

SUPPORTED, REVERSED = 'supported', 'reversed'
NO_EFFECT = 'no effect of interest'
UNDECIDED, TOO_FEW = 'undecided', 'not enough runs'

RATE = 0.05
"""The false discovery rate over the cells of a claim."""


def decide(test: str, estimate: Estimate, smallest: float) -> str:
  """The answer of one 'gain' or 'no_loss', taken by itself."""
  value, low, high = estimate[:3]
  if high < 0 and value <= -smallest:
    return REVERSED
  if test == 'no_loss':
    return SUPPORTED if low > -smallest else UNDECIDED
  if low > 0 and value >= smallest:
    return SUPPORTED
  inside = -smallest < low and high < smallest
  return NO_EFFECT if inside else UNDECIDED


def decide_chain(
  links: Sequence[Estimate], smallest: float
) -> tuple[str, float]:
  """(the answer of a chain, its p): every link has to hold, one may break it.

  All links at once are as sure as the least sure one; that any of them is
  reversed was looked for as often as there are links (Bonferroni).
  """
  each = [decide('gain', link, smallest) for link in links]
  p = [link.p for link in links]
  if REVERSED in each:
    reversed_ = [a for a, said in zip(p, each, strict=True) if said == REVERSED]
    return REVERSED, min(1.0, len(links) * min(reversed_))
  if set(each) == {SUPPORTED}:
    return SUPPORTED, max(p)
  return (NO_EFFECT if NO_EFFECT in each else UNDECIDED), 1.0


def held(verdicts: Sequence[str], p: Sequence[float]) -> list[str]:
  """The answers with too many discoveries taken back to 'undecided'.

  The rate holds however the cells depend on each other (Benjamini & Yekutieli,
  Ann. Stat. 29, 2001). Cells without enough runs were not tested. 'No effect
  of interest' stands on its interval alone.
  """
  from scipy import stats

  tested = [i for i, said in enumerate(verdicts) if said != TOO_FEW]
  found = list(verdicts)
  if not tested:
    return found
  adjusted = stats.false_discovery_control([p[i] for i in tested], method='by')
  for i, q in zip(tested, adjusted, strict=True):
    if found[i] in (SUPPORTED, REVERSED) and q > RATE:
      found[i] = UNDECIDED
  return found
