"""Rows of the robustness table: means over examples, bootstrap intervals."""

from typing import Any

import numpy as np

from implicit_attr.train.settings import Evaluation

SHOWN = 6
"""Examples whose images and maps are kept for the report."""

BASELINE = 'random_sign'
"""What stands beside every attack: signs drawn at random, of the same size."""


def row(
  name: str, attack: str, examples: dict[str, np.ndarray], settings: Evaluation
) -> dict[str, Any]:
  """One line of the table: means over correctly classified examples.

  An example for which the attack found nothing admissible counts with its
  clean map (a similarity of 1), not as missing: dropping it would make the
  attack look stronger than it is. One for which a similarity is not defined
  (a map that is 0 or the same everywhere) is left out of the mean of that
  similarity, whose own n says so, and 'n_undefined' counts such examples.
  'n_nan' counts maps with a NaN, before or after the attack, among all
  examples: a network that gives NaN has no class to be right about.
  """
  right = np.equal(examples['prediction'], examples['label'])
  part = lambda prefix: {
    key.removeprefix(prefix): value[right]
    for key, value in examples.items()
    if key.startswith(prefix)
  }
  scores, shares = part(f'score/{attack}/'), part('faithfulness/')
  curves = part(f'radius/{attack}/')
  undefined = np.any([np.isnan(a) for a in scores.values()], axis=0)
  nan = [
    np.isnan(examples[f'map/{when}'].reshape(len(right), -1)).any(1)
    for when in ('clean', attack)
  ]
  return {
    'attribution': name,
    'attack': attack,
    'eps': settings.eps,
    'n': int(right.sum()),
    'n_kept': int(examples[f'kept/{attack}'][right].sum()),
    'n_stalled': int(
      examples.get(f'stalled/{attack}', np.zeros_like(right))[right].sum()
    ),
    'n_undefined': int(undefined.sum()),
    'n_nan': int((nan[0] | nan[1]).sum()),
    'metrics': {metric: interval(a) for metric, a in scores.items()},
    'faithfulness': {metric: interval(a) for metric, a in shares.items()},
    **(_radii(curves, part('radius/'), settings) if curves else {}),
  }


def _radii(curves: dict, both: dict, settings: Evaluation) -> dict[str, Any]:
  """The curves over `settings.radii`, and how many images lie at their ends.

  'area' is that between the share left under noise and under the attack, over
  log ε, as a share of what it could be.
  """
  ends = curves.pop('censored')
  at_each = lambda a: zip(*(interval(v).items() for v in a.T), strict=True)
  curve = {
    metric: {pairs[0][0]: [value for _, value in pairs] for pairs in at_each(a)}
    for metric, a in curves.items()
  }
  where = np.log2(settings.radii)
  gap = both[f'{BASELINE}/topk'] - curves['topk']
  area = np.trapezoid(gap, where, axis=1) / np.ptp(where)
  return {
    'curve': {'eps': list(settings.radii), **curve},
    'censored': {
      name: float(np.mean(ends == end)) if len(ends) else None
      for name, end in (('below', -1), ('above', 1))
    },
    'area': interval(area),
  }


def interval(values: np.ndarray) -> dict[str, float | int | None]:
  """Mean with a 95 % percentile bootstrap interval over examples.

  What is not finite is left out, and `n` says so; all None where nothing is.
  """
  from scipy import stats  # half a second that training need not wait for

  values = values[np.isfinite(values)].astype(np.float64)
  if not len(values):
    return {'mean': None, 'low': None, 'high': None, 'n': 0}
  low = high = values.mean()
  if np.ptp(values):
    low, high = stats.bootstrap(
      (values,), np.mean, n_resamples=2000, method='percentile', rng=0
    ).confidence_interval
  return {
    'mean': float(values.mean()), 'low': float(low), 'high': float(high),
    'n': len(values),
  }  # fmt: skip


def arrays(
  name: str, objective: str, examples: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """What the npz keeps: every score, and images and maps of a few examples."""
  right = examples['prediction'] == examples['label']
  shown = np.argsort(~right, kind='stable')[:SHOWN]  # rightly labelled first
  kept = {
    'images': examples['image'][shown],
    'labels': examples['label'][shown],
    'predictions': examples['prediction'][shown],
    'class': examples['prediction'],
    f'map/{name}/clean': examples['map/clean'][shown],
    f'correct/{name}': right,
    f'shown/{name}': shown,
  }
  if right.any():
    curve = examples[f'curve/{objective}'][right]
    kept[f'curve/{name}/{objective}'] = curve.mean(0)
  if 'mask' in examples:
    kept['mask'] = examples['mask'][shown]
  for attack in (objective, BASELINE):
    kept[f'adv/{name}/{attack}'] = examples[f'adv/{attack}'][shown]
    kept[f'map/{name}/{attack}'] = examples[f'map/{attack}'][shown]
    kept[f'kept/{name}/{attack}'] = examples[f'kept/{attack}']
    kept |= {
      f'score/{name}/{key.removeprefix("score/")}': value
      for key, value in examples.items()
      if key.startswith(f'score/{attack}/')
    }
    kept |= {
      f'radius/{name}/{key.removeprefix("radius/")}': value
      for key, value in examples.items()
      if key.startswith(f'radius/{attack}/')
    }
  return kept
