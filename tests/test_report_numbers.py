"""Are the numbers that the report works out itself the right ones?"""

# ruff: noqa: RUF001 (minus signs and dashes in text for people are meant)

import numpy as np
import pytest
import scipy.stats

from implicit_attr.report import maps, relation, tables


def test_attack_stands_above_its_baseline():
  rows = [
    {'attribution': 'a', 'attack': 'random_sign', 'eps': 0.1},
    {'attribution': 'b', 'attack': 'topk', 'eps': 0.1},
    {'attribution': 'a', 'attack': 'topk', 'eps': 0.1},
  ]
  found = [(row['attribution'], row['attack']) for row in tables.ordered(rows)]
  assert found == [('a', 'topk'), ('a', 'random_sign'), ('b', 'topk')]


@pytest.mark.parametrize('levels', [4, 1000])
def test_spearman_agrees_with_scipy(levels):
  a, b = np.random.default_rng(1).integers(0, levels, (2, 40)).astype(float)
  b += 0.5 * a
  expected = scipy.stats.spearmanr(a, b).statistic
  np.testing.assert_allclose(relation.spearman(a, b), expected, rtol=1e-12)


def test_spearman_is_nan_where_not_defined():
  assert np.isnan(relation.spearman(np.ones(5), np.arange(5.0)))
  assert np.isnan(relation.spearman(np.arange(2.0), np.arange(2.0)))


def test_strongest_pixels_sum_the_size_of_channels():
  attribution = np.zeros((2, 2, 2))
  attribution[0, 1] = (-3, 3)  # cancels in a signed sum
  attribution[1, 0] = (4, 0)
  attribution[1, 1] = (0, -5)
  chosen = maps.strongest(attribution, 2)
  assert chosen.tolist() == [[False, True], [False, True]]
  assert maps.strongest(np.zeros((2, 2, 1)), 3).sum() == 3


def test_tokens_are_laid_out_as_an_image():
  tokens = np.arange(8.0).reshape(2, 4)
  assert maps.on_pixels(tokens)[1, :, :, 0].tolist() == [[4, 5], [6, 7]]
  assert maps.on_pixels(np.ones((2, 5))) is None


@pytest.mark.parametrize(
  'value, text',
  [(9.856, '9.86'), (20.0, '20.0'), (1234.5, '1234'), (0.0812, '0.0812'),
   (0.03, '0.03'), (-2.5e-7, "−2.50e−07"), (0, '0'), (None, '–'),
   (float('nan'), '–')],
)  # fmt: skip
def test_short_numbers_keep_three_digits(value, text):
  assert tables.short(value) == text
