"""Does the speed of a run count updates alone?"""

import time

from implicit_attr.runtime.progress import Progress


def test_what_is_put_aside_does_not_count_in_the_speed():
  progress = Progress('step', 0, 10)
  progress.begin(0)
  with progress.aside():
    time.sleep(0.2)
  progress.leave_out(0.1)
  time.sleep(0.15)
  found = progress.times(10)
  assert found['time/wall_s'] >= 0.35
  updates = found['time/wall_s'] - 0.3  # as long as these are put aside
  assert found['time/steps_per_s'] >= 0.99 * 10 / updates
