"""Is the class of a planted image decided inside the mask and only there?"""

import numpy as np
import pytest

from implicit_attr.data import planted

CHANCE = 1 / planted.CLASSES


def rendered(level, split, count):
  blocks = list(planted.blocks(planted.DIFFICULTIES[level], split, count))
  return {n: np.concatenate([b[n] for b in blocks]) for n in blocks[0]}


@pytest.fixture(scope='module')
def medium():
  return rendered('medium', 'train', 3000), rendered('medium', 'test', 1000)


def blanked(images):
  pixels = images['image'].astype(np.float64) / 255
  return np.where(images['mask'][..., None], 0.5, pixels)


def ridge_accuracy(train_x, train_y, test_x, test_y, ridge):
  mean = train_x.mean(0)
  x, targets = train_x - mean, np.eye(planted.CLASSES)[train_y] - CHANCE
  gram = x.T @ x + ridge * np.eye(x.shape[1])
  scores = (test_x - mean) @ np.linalg.solve(gram, x.T @ targets)
  return (scores.argmax(1) == test_y).mean()


def test_glyphs_share_mean_energy_and_histogram_and_are_told_apart():
  glyphs = np.concatenate([planted.GLYPHS, planted.DISTRACTORS])
  assert glyphs.shape == (16, 8, 8)
  assert set(np.unique(glyphs)) == {-1, 1}
  assert (glyphs.sum(axis=(1, 2)) == 0).all()
  padded = np.pad(glyphs, ((0, 0), (7, 7), (7, 7)))
  for y in range(15):
    for x in range(15):
      shifted = padded[:, y : y + 8, x : x + 8]
      match = abs(np.einsum('aij,bij->ab', glyphs, shifted))
      np.fill_diagonal(match, 0)
      assert match.max() <= 28  # of 64: they agree in at most 11 of 16 squares


def test_nothing_outside_the_mask_depends_on_the_class(monkeypatch):
  one = rendered('hard', 'train', 200)
  # The same draws, but every class shows the next one's glyph.
  monkeypatch.setattr(planted, 'GLYPHS', np.roll(planted.GLYPHS, 1, axis=0))
  two = rendered('hard', 'train', 200)
  differs = (one['image'] != two['image']).any(axis=3)
  assert np.array_equal(one['mask'], two['mask'])
  assert not (differs & (one['mask'] == 0)).any()
  assert (differs & (one['mask'] == 1)).any(axis=(1, 2)).all()


def test_distractors_are_whole_and_beside_the_glyph(monkeypatch):
  level = planted.Difficulty(contrast=0.1, distractors=1, noise=0.0)
  one = next(planted.blocks(level, 'train', 300))
  monkeypatch.setattr(planted, 'DISTRACTORS', 0 * planted.DISTRACTORS)
  none = next(planted.blocks(level, 'train', 300))
  differs = (one['image'] != none['image']).any(axis=3)
  assert (differs.sum(axis=(1, 2)) == 64).all()
  assert not (differs & (one['mask'] == 1)).any()


def test_probes_of_the_blanked_images_are_at_chance(medium):
  train, test = medium
  bound = CHANCE + 4 * np.sqrt(CHANCE * (1 - CHANCE) / 1000)
  x, x_test = (blanked(s).mean(axis=3).reshape(-1, 1024) for s in medium)
  labels = train['label'], test['label']
  assert ridge_accuracy(x, labels[0], x_test, labels[1], 1.0) < bound
  distances = (x * x).sum(1) - 2 * x_test @ x.T
  assert (labels[0][distances.argmin(1)] == labels[1]).mean() < bound


def test_histograms_and_means_of_whole_images_are_at_chance(medium):
  def statistics(images):
    flat = images['image'].reshape(-1, 1024, 3)
    bins = np.linspace(0, 256, 17)
    rows = [np.histogram(x, bins)[0] / x.size for x in flat]
    sizes = [flat.mean(1) / 255, flat.std(1) / 255]
    return np.concatenate([np.array(rows), *sizes], axis=1)

  train, test = medium
  found = ridge_accuracy(
    statistics(train), train['label'], statistics(test), test['label'], 1e-3
  )
  assert found < CHANCE + 4 * np.sqrt(CHANCE * (1 - CHANCE) / 1000)


@pytest.mark.parametrize(
  ('level', 'least'), [('easy', 0.99), ('medium', 0.98), ('hard', 0.9)]
)
def test_the_square_of_the_mask_decides_the_class(level, least):
  images = rendered(level, 'test', 1000)
  inside = images['image'][images['mask'] == 1].reshape(1000, 8, 8, 3)
  match = np.einsum('nijc,gij->ng', inside.astype(float), planted.GLYPHS)
  assert (abs(match).argmax(1) == images['label']).mean() > least


def test_places_are_uniform_and_the_mask_is_one_whole_square(medium):
  mask = medium[0]['mask']
  assert mask.dtype == np.uint8 and (mask.sum(axis=(1, 2)) == 64).all()
  tops, lefts = (mask.any(axis=a).argmax(1) for a in (2, 1))
  for place in (tops, lefts):
    counts = np.bincount(place, minlength=25)
    assert len(counts) == 25 and (abs(counts - 120) < 60).all()
  counts = np.bincount(medium[0]['label'], minlength=8)
  assert len(counts) == 8 and (abs(counts - 375) < 90).all()


def test_splits_differ_and_each_is_a_pure_function():
  level = planted.DIFFICULTIES['medium']
  a, b = rendered('medium', 'train', 50), rendered('medium', 'train', 50)
  assert all(np.array_equal(a[k], b[k]) for k in a)
  c = next(planted.blocks(level, 'test', 50))
  assert not np.array_equal(a['image'], c['image'])
