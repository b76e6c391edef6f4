"""Does the speed of a run count updates alone, and an ETA no compiling?"""

import logging
import re
import time

import pytest

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


@pytest.fixture
def lines(caplog):
  """() -> what has been said."""
  caplog.set_level(logging.INFO, 'implicit_attr')
  return lambda: [record.getMessage() for record in caplog.records]


def at(monkeypatch, seconds):
  monkeypatch.setattr(time, 'perf_counter', lambda: float(seconds))


def test_an_item_that_compiled_gives_no_estimate(lines, monkeypatch):
  at(monkeypatch, 0)
  progress = Progress('attack', 0, 5)
  for seconds, done in ((100, 1), (102, 2), (110, 3), (116, 4), (120, 5)):
    at(monkeypatch, seconds)
    progress.say(done)
  said = lines()
  assert said[0] == 'attack 0/5  compiling'
  # 100 seconds for the first; two items in 10, and three in 16, after it.
  assert [re.search('ETA (.*)', s)[1] for s in said[1:]] == [
    '10.0s', '5.3s', '0.0s',
  ]  # fmt: skip


def test_until_the_first_update_a_line_says_compiling(lines, monkeypatch):
  at(monkeypatch, 0)
  progress = Progress('step', 0, 100)
  at(monkeypatch, 50)
  progress.say(0)
  assert lines()[-1].endswith('compiling')
  progress.begin(10)  # the span that compiled
  at(monkeypatch, 60)
  progress.say(0)
  assert lines()[-1].endswith('ETA ?')
  at(monkeypatch, 70)
  progress.say(30)
  assert lines()[-1].endswith('1/s  ETA 1m10s')


def test_a_run_with_nothing_left_does_not_say_that_it_compiles(lines):
  Progress('arm', 3, 3)
  assert not lines()
