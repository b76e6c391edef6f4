"""Are the numbers that the report works out itself the right ones?"""

import numpy as np
import pytest

from implicit_attr.report import canvas, maps, tables
from implicit_attr.runs.reading import Evaluation


def test_attack_stands_above_its_baseline():
  rows = [
    {'attribution': 'a', 'attack': 'random_sign', 'eps': 0.1},
    {'attribution': 'b', 'attack': 'topk', 'eps': 0.1},
    {'attribution': 'a', 'attack': 'topk', 'eps': 0.1},
  ]
  found = [(row['attribution'], row['attack']) for row in tables.ordered(rows)]
  assert found == [('a', 'topk'), ('a', 'random_sign'), ('b', 'topk')]


def test_strongest_pixels_sum_the_size_of_channels():
  attribution = np.zeros((2, 2, 2))
  attribution[0, 1] = (-3, 3)  # cancels in a signed sum
  attribution[1, 0] = (4, 0)
  attribution[1, 1] = (0, -5)
  chosen = maps.strongest(attribution, 2)
  assert chosen.tolist() == [[False, True], [False, True]]
  assert maps.strongest(np.zeros((2, 2, 1)), 3).sum() == 3


def test_scores_under_a_map_are_those_of_its_example(monkeypatch, tmp_path):
  texts = []

  def save(target, folder, name, alt):
    texts.extend(text.get_text() for text in target.axes[0].texts)
    return canvas.Image(folder, alt, 1.0)

  monkeypatch.setattr(canvas, 'save', save)
  shape = (2, 4, 4, 1)
  arrays = {
    'images': np.zeros(shape),
    'map/gradient/clean': np.ones(shape),
    'map/gradient/topk': np.ones(shape),
    'adv/gradient/topk': np.full(shape, 0.0625),
    'score/gradient/topk/topk': np.array([0.11, 0.22, 0.33, 0.44]),
    'shown/gradient': np.array([3, 1]),
  }
  maps.draw(Evaluation('last', 1, {}, {'k': 0.25}, [], arrays), tmp_path)
  scores = [text.strip() for text in texts if text.startswith('top-k')]
  assert scores == ['top-k 0.44', 'top-k 0.22']
  assert texts.count('largest change\n0.062') == 2


def test_a_share_is_of_the_entries_of_the_map():
  assert [maps.strong(0.1, n) for n in (64, 16, 4)] == [6, 2, 1]
  assert maps.strong(5, 64) == 5
  assert [maps.strong(k, 64) for k in (None, True, 0, '3')] == [None] * 4


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
