"""Cadences: durations in words, turned into steps once, and what is due when.

'500 steps', '30 epochs' and '5%' (of the run) all become a number of updates.
"""

import math
import re

from implicit_attr import errors

_FORM = re.compile(r'\s*([0-9]+(?:\.[0-9]*)?)\s*(steps?|epochs?|%)\s*')
MOST = 2**31 - 1
"""Updates of a run: what the step of a state can count."""
_ALLOWED = "'<number> steps', '<number> epochs' or '<number>%'"


def steps(
  field: str, duration: str, *, per_epoch: int, total: int | None = None
) -> int:
  """`duration` in updates, rounded up; 'never' is 0, anything else >= 1.

  Args:
    field: the name under which the user gave it, for the error.
    per_epoch: updates in one epoch.
    total: updates of the whole run; without it a percentage is refused.

  Raises:
    InputError: a form that is none of those above, a zero, or more updates
      than a state can count.
  """
  if duration == 'never' and total is not None:
    return 0
  match = _FORM.fullmatch(str(duration))
  allowed = _ALLOWED if total is None else f"{_ALLOWED}, or 'never'"
  errors.require(field, duration, match is not None, allowed)
  assert match is not None
  value, unit = float(match[1]), match[2]
  errors.require(field, duration, value > 0, 'more than zero')
  if unit == '%':
    errors.require(
      field, duration, total is not None, "in 'steps' or 'epochs' here"
    )
    errors.require(field, duration, value <= 100, 'at most 100%')
  unit_steps = {'s': 1, 'e': per_epoch, '%': (total or 0) / 100}[unit[0]]
  updates = value * unit_steps
  errors.require(field, duration, updates <= MOST, f'at most {MOST} updates')
  # The tolerance keeps 7% of 100 steps at 7 in floating point.
  return max(1, math.ceil(updates - 1e-9))


def due(step: int, every: int, total: int) -> bool:
  """True at step 0, at multiples of `every` and at the last step.

  A multiple that falls within half a cadence of the last step is left out:
  the last step says the same. `every` = 0 means never, not even at the ends.
  """
  if not every:
    return False
  if step in (0, total):
    return True
  return step % every == 0 and total - step > every // 2


def clock(seconds: float) -> str:
  """Seconds as people read them: 4.2s, 3m10s, 2h05m."""
  if seconds < 60:
    return f'{seconds:.1f}s'
  minutes, seconds = divmod(int(seconds), 60)
  if minutes < 60:
    return f'{minutes}m{seconds:02d}s'
  hours, minutes = divmod(minutes, 60)
  return f'{hours}h{minutes:02d}m'
