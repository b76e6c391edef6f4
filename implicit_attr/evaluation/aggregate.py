"""How do numbers of single examples become a line of the robustness table?"""

from typing import Any

import numpy as np

SHOWN = 6
"""Examples whose images and maps are kept for the report."""

BASELINE = 'random_sign'
"""What stands beside every attack: signs drawn at random, of the same size."""


def row(
  name: str, attack: str, found: dict[str, np.ndarray], settings: Any
) -> dict[str, Any]:
  """One line of the table: means over correctly classified examples.

  An example for which the attack found nothing admissible counts with its
  clean map (a similarity of 1), not as missing: dropping it would make the
  attack look stronger than it is.
  """
  right = found['prediction'] == found['label']
  prefix = f'score/{attack}/'
  shares = {
    key: value[right]
    for key, value in found.items()
    if key.startswith('faithfulness/')
  }
  return {
    'attribution': name,
    'attack': attack,
    'eps': settings.eps,
    'n': int(right.sum()),
    'n_kept': int(found[f'kept/{attack}'][right].sum()),
    'n_stalled': int(
      found.get(f'stalled/{attack}', right & False)[right].sum()
    ),
    'metrics': {
      key.removeprefix(prefix): _interval(value[right])
      for key, value in found.items()
      if key.startswith(prefix)
    },
    'faithfulness': {
      key.removeprefix('faithfulness/'): _interval(value)
      for key, value in shares.items()
    },
  }


def _interval(values: np.ndarray) -> dict[str, float | int | None]:
  """Mean with a 95 % percentile bootstrap interval over examples.

  Undefined similarities (a constant map) are left out, and `n` says so.
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
  name: str, objective: str, found: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """What the npz keeps: every score, and images and maps of a few examples."""
  right = found['prediction'] == found['label']
  shown = np.argsort(~right, kind='stable')[:SHOWN]  # rightly labelled first
  kept = {
    'images': found['image'][shown],
    'labels': found['label'][shown],
    'predictions': found['prediction'][shown],
    f'map/{name}/clean': found['map/clean'][shown],
    f'correct/{name}': right,
    f'shown/{name}': shown,
  }
  if right.any():
    curve = found[f'curve/{objective}'][right]
    kept[f'curve/{name}/{objective}'] = curve.mean(0)
  if 'mask' in found:
    kept['mask'] = found['mask'][shown]
  for attack in (objective, BASELINE):
    kept[f'adv/{name}/{attack}'] = found[f'adv/{attack}'][shown]
    kept[f'map/{name}/{attack}'] = found[f'map/{attack}'][shown]
    kept[f'kept/{name}/{attack}'] = found[f'kept/{attack}']
    kept |= {
      f'score/{name}/{key.removeprefix("score/")}': value
      for key, value in found.items()
      if key.startswith(f'score/{attack}/')
    }
  return kept
