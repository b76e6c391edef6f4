"""Progress lines: how far, how fast, and how long it will still take."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from implicit_attr.runtime.cadence import clock

LOG = logging.getLogger(__name__)


class Progress:
  """Steps done of `total`, starting at `first`; one line every few seconds."""

  def __init__(self, what: str, first: int, total: int, *, every: float = 5.0):
    self._what, self._first, self._total = what, first, total
    self._every = every
    self._said = self._started = time.perf_counter()
    self._aside = 0.0

  def begin(self, done: int) -> None:
    """Starts the clock after `done` steps: compiling is not counted."""
    self._first, self._aside = done, 0.0
    self._said = self._started = time.perf_counter()

  @contextlib.contextmanager
  def aside(self) -> Iterator[None]:
    """What happens inside does not count in 'time/steps_per_s'."""
    began = time.perf_counter()
    yield
    self.leave_out(time.perf_counter() - began)

  def leave_out(self, seconds: float) -> None:
    """Has `seconds` not count in 'time/steps_per_s'."""
    self._aside += seconds

  def times(self, done: int) -> dict[str, float]:
    """'time/wall_s' since the start, and 'time/steps_per_s' of what was not
    `aside`, in this process."""
    wall = time.perf_counter() - self._started
    rate = max(done - self._first, 0) / max(wall - self._aside, 1e-9)
    return {'time/wall_s': round(wall, 3), 'time/steps_per_s': round(rate, 2)}

  def say(self, done: int, values: dict[str, Any] | None = None) -> None:
    """Logs position, rate and ETA with `values`, if the last line is old."""
    now = time.perf_counter()
    if now - self._said < self._every and done < self._total:
      return
    self._said = now
    spent = now - self._started
    rate = (done - self._first) / max(spent, 1e-9)
    eta = clock((self._total - done) / rate) if rate > 0 else '?'
    shown = '  '.join(f'{k} {v:.4g}' for k, v in (values or {}).items())
    LOG.info(
      '%s %d/%d (%.0f%%)  %s  %.3g/s  ETA %s',
      self._what, done, self._total, 100 * done / self._total, shown, rate, eta,
    )  # fmt: skip
