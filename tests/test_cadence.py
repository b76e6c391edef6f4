"""When is something due, and in which words may one say so?"""

import pytest

from implicit_attr import errors
from implicit_attr.runtime import cadence


@pytest.mark.parametrize(
  'words, expected',
  [
    ('500 steps', 500), ('1 step', 1), ('3 epochs', 60), ('0.5 epochs', 10),
    ('10%', 100), ('7%', 70), ('0.01%', 1), ('never', 0),
  ],
)  # fmt: skip
def test_words_become_steps(words, expected):
  assert cadence.steps('f', words, per_epoch=20, total=1000) == expected


@pytest.mark.parametrize('words', ['5', 'ten steps', '-1 steps', '0 epochs'])
def test_other_forms_name_the_field_and_the_value(words):
  with pytest.raises(errors.InputError, match=f'track.every={words!r}'):
    cadence.steps('track.every', words, per_epoch=20, total=1000)


def test_a_run_cannot_be_a_percentage_of_itself():
  with pytest.raises(errors.InputError, match='train.duration'):
    cadence.steps('train.duration', '10%', per_epoch=20)


def test_due_at_both_ends_and_never_twice_near_the_end():
  due = [s for s in range(104) if cadence.due(s, 10, 103)]
  assert due == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 103]
  assert not any(cadence.due(s, 0, 103) for s in range(104))
