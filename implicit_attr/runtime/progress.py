"""Progress lines: how far, how fast, and how long it will still take."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from implicit_attr.runtime.cadence import clock

LOG = logging.getLogger(__name__)


class Progress:
  """Steps done of `total`, starting at `first`; one line every few seconds.

  Guarantee: no speed and no ETA is said of what compiled. The clock starts with
  `begin` or, without it, with the first `say` beyond `first`; until then a line
  says 'compiling'.
  """

  def __init__(self, what: str, first: int, total: int, *, every: float = 5.0):
    self._what, self._first, self._total = what, first, total
    self._every = every
    self._said = self._started = time.perf_counter()
    self._aside, self._warm = 0.0, False
    if first < total:
      LOG.info('%s %d/%d  compiling', what, first, total)

  def begin(self, done: int) -> None:
    """Starts the clock after `done` steps: compiling is not counted."""
    self._first, self._aside, self._warm = done, 0.0, True
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
    if not self._warm and done > self._first:
      self.begin(done)
    now = time.perf_counter()
    if now - self._said < self._every and done < self._total:
      return
    self._said = now
    speed = 'compiling'
    if self._warm:
      rate = (done - self._first) / max(now - self._started, 1e-9)
      speed = 'ETA ?'
      if rate > 0:
        speed = f'{rate:.3g}/s  ETA {clock((self._total - done) / rate)}'
    shown = '  '.join(f'{k} {v:.4g}' for k, v in (values or {}).items())
    LOG.info(
      '%s %d/%d (%.0f%%)  %s  %s',
      self._what, done, self._total, 100 * done / self._total, shown, speed,
    )  # fmt: skip
