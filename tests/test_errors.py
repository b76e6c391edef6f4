"""Does every refusal name the field, the value and what is allowed?"""

import pytest

from implicit_attr import errors


def test_an_unknown_name_comes_with_the_nearest_known():
  with pytest.raises(errors.InputError, match="did you mean 'softmax'") as e:
    errors.choose('model.attention', 'sofmax', ['softmax', 'linear'])
  assert 'allowed: linear, softmax' in str(e.value)


@pytest.mark.parametrize('value', [-1, float('nan'), '3', True, None, 2.5])
def test_a_number_is_a_finite_number_in_its_range(value):
  with pytest.raises(errors.InputError, match=r'optim\.n=.*an integer >= 0'):
    errors.number('optim.n', value, 0, integer=True)


def test_an_open_range_excludes_its_end():
  errors.number('lr', 0.1, 0, open_low=True)
  with pytest.raises(errors.InputError, match='> 0'):
    errors.number('lr', 0, 0, open_low=True)


def test_the_message_is_one_line():
  with pytest.raises(errors.InputError) as e:
    errors.require('a.b', 'c', False, 'something else')
  assert str(e.value) == "a.b='c' must be something else"
