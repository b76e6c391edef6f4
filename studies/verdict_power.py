"""How often the verdicts of `claims` are right, on simulated trees of runs.

  python -m studies.verdict_power

prints the tables of docs/verdicts.md. Log2 of the radius scatters by
0.1 between runs and by 0.5 between images.
"""

import itertools
import math

import numpy as np

from implicit_attr import claims

TREES = 100
RATES, BATCHES = (0.03, 0.1, 0.3), (16, 128)
SCATTERS = (0.05, 0.1, 0.3, 1.0)


def gains(rng, effect: float, *, seeds: int, maps: int) -> list[dict]:
  """Runs whose log2 radius rises by `effect` towards either good end."""
  hard, found = 0.5 * rng.standard_normal(24), []
  for seed in range(seeds):
    for (i, lr), batch in itertools.product(enumerate(RATES), BATCHES):
      step = i / (len(RATES) - 1) - (batch == BATCHES[-1])
      run = effect * step + 0.1 * rng.standard_normal()
      for name in range(maps):
        radius = hard + run + 0.5 * rng.standard_normal(24)
        found.append({
          'lr': lr, 'batch_size': batch, 'seed': seed, 'map': str(name),
          'family': 'gradient', 'objective': 'none', 'rule': 'train_loss',
          'log2_eps50': float(radius.mean()),
          'examples': {'log2_eps50': radius},
        })  # fmt: skip
  return found


def chain(rng, scatter: float, *, seeds: int, mediated: bool) -> list[dict]:
  """Nine settings; both curvatures follow rate and batch along curves."""
  bends, found = rng.uniform(-2, 2, 2), []
  luck = 0.5 * scatter * rng.standard_normal((seeds, 2))
  for seed, i, j in itertools.product(range(seeds), range(3), range(3)):
    a, b = i / 2, j / 2
    noise = scatter * rng.standard_normal(3)
    bend = -3 * a + b + bends[0] * a**2 + luck[seed, 0] + noise[0]
    beside = -3 * a**2 + b + bends[1] * a + luck[seed, 1] + noise[1]
    inside = bend + noise[1] if mediated else beside
    found.append({
      'lr': 0.01 * 10**a, 'batch_size': 16 * 2**j, 'seed': seed,
      'map': 'gradient', 'family': 'gradient', 'objective': 'none',
      'rule': 'train_loss', 'train_lambda_max': math.exp(bend),
      'input_lambda': math.exp(inside),
      'normalized_curvature': math.exp(inside),
      'log2_eps50': -inside + noise[2],
    })  # fmt: skip
  return found


def judged(name: str, make) -> list[claims.Verdict]:
  rngs = map(np.random.default_rng, range(TREES))
  return [claims.judge_one(claims.CLAIMS[name], make(rng)) for rng in rngs]


def main() -> None:
  print('| cells | seeds | planted | supported | any cell decided | covers |')
  print('|---' * 6 + '|')
  for maps, seeds, effect in itertools.product(
    (1, 24), (3, 5), (0.0, 0.3, 0.6, 1.2)
  ):
    found = judged('C1', lambda rng: gains(rng, effect, seeds=seeds, maps=maps))
    cells = [cell for verdict in found for cell in verdict.cells]
    decided = sum(
      any(c.verdict in (claims.SUPPORTED, claims.REVERSED) for c in v.cells)
      for v in found
    )
    covers = np.mean([c.estimate.low < effect < c.estimate.high for c in cells])
    right = sum(v.verdict == claims.SUPPORTED for v in found)
    print(f'| {2 * maps} | {seeds} | {effect} | {right} | {decided} '
          f'| {covers:.3f} |')  # fmt: skip
  print('\n| scatter | seeds | side by side | mediated |')
  print('|---' * 4 + '|')
  for seeds, scatter in itertools.product((3, 5), SCATTERS):
    counts = [
      sum(
        v.verdict == claims.SUPPORTED
        for v in judged(
          'C2',
          lambda rng: chain(rng, scatter, seeds=seeds, mediated=mediated),
        )
      )
      for mediated in (False, True)
    ]
    print(f'| {scatter} | {seeds} | {counts[0]} | {counts[1]} |')


if __name__ == '__main__':
  main()
