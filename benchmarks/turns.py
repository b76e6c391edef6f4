"""Work that is timed in turn, so that the load of a machine slows all alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def interleave(
  runs: Mapping[str, Callable[[], Any]],
  rounds: int,
  patience: float = float('inf'),
) -> dict[str, np.ndarray]:
  """{name: (wall, CPU) seconds [2, rounds]}, one call of each in turn.

  A call returns when its work has ended, and each was made before, as the first
  compiles. One that took over `patience` seconds is not made again.
  """
  times: dict[str, list] = {name: [] for name in runs}
  for _ in range(rounds):
    for name, run in runs.items():
      if times[name] and times[name][-1][0] > patience:
        continue
      time.sleep(0.02)  # lets the other library's idle threads go to sleep
      wall, cpu = time.perf_counter(), time.process_time()
      run()
      times[name].append(
        (time.perf_counter() - wall, time.process_time() - cpu)
      )
  return {name: np.array(t).T for name, t in times.items()}
