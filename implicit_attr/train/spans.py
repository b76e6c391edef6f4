"""Spans of updates with no event in between, and how a run is stopped."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

from implicit_attr.runtime import cadence

SECONDS = 0.4
"""What a span may take: a signal is heeded between two of them."""


class Interrupted(RuntimeError):
  """SIGTERM or SIGINT arrived at `step`, and the state is saved."""

  def __init__(self, step: int):
    super().__init__(f'stopped at step {step}; the same command goes on there')
    self.step = step


def events(
  total: int, every: Mapping[str, int], firsts: Iterable[int]
) -> list[int]:
  """Steps at which something is due or a lane sets in, rising, and `total`."""
  steps = {total, *firsts}
  for cycle in every.values():
    if cycle:
      due = lambda step: cadence.due(step, cycle, total)
      steps |= set(filter(due, range(0, total, cycle)))
  return sorted(steps)


class Spans:
  """Cuts a run into spans that end at events and take `SECONDS` at most.

  How long they are changes no number of a run. They begin with one update and
  grow as they turn out to be short.

  Args:
    events: rising; the last one is the end.
    longest: updates in a span, at most.
    timed: whether a clock has a say. Where processes share a batch it has none,
      for all must send off the same spans.
  """

  def __init__(self, events: list[int], longest: int, timed: bool):
    self._events, self._longest = events, longest
    self._most = 1 if timed else longest
    self._timed = timed
    self._sent: list[int] = []  # lengths of the spans that may be under way
    self._ended = time.perf_counter()

  def of(self, first: int) -> Iterator[tuple[int, int]]:
    """Yields (step, updates until the next one); (the end, 0) comes last."""
    step = first
    for event in self._events:
      while step < event:
        n = min(event - step, self._most)
        self._sent.append(n)
        yield step, n
        step += n
    yield step, 0

  def ended(self) -> None:
    """To be called when the span before the one just sent off has ended."""
    now = time.perf_counter()
    if len(self._sent) > 1 and self._timed:
      n = self._sent.pop(0)
      fits = int(n * SECONDS / max(now - self._ended, 1e-9))
      half, twice = self._most // 2, 2 * self._most
      self._most = min(max(fits, half, 1), twice, self._longest)
    self._ended = now


class Stop:
  """SIGTERM and SIGINT as a wish to stop, instead of the end of the process.

  Until `after_a_save` nothing is lost by leaving: while programs compile,
  `Interrupted` is raised where the signal arrives. After it the signal is kept
  for who asks `is_set`. Not `ours`, where several processes stop together: JAX
  catches SIGTERM then.
  """

  def __init__(self, ours: bool):
    main = threading.current_thread() is threading.main_thread()
    self._names = (signal.SIGTERM, signal.SIGINT) if ours and main else ()
    self._shared = main and not ours
    self._at_once, self._set = True, False
    self.first = 0
    """The step that a run goes on from."""

  def __enter__(self) -> 'Stop':
    self._before = {s: signal.signal(s, self._on) for s in self._names}
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    for name, handler in self._before.items():
      signal.signal(name, handler)
    if self._shared:  # JAX kept it until here, and nobody asks it now
      signal.signal(signal.SIGTERM, signal.SIG_DFL)

  def _on(self, *_) -> None:
    self._set = True
    if self._at_once:
      raise Interrupted(self.first)

  def after_a_save(self) -> None:
    self._at_once = False

  def is_set(self) -> bool:
    return self._set
