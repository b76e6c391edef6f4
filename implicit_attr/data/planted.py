"""Planted glyphs: images whose explanation is known, with its mask.

A planted image is a random texture with one 8x8 glyph that decides the class
and, elsewhere, glyphs of a second family that say nothing. Every glyph is a
4x4 board of 2x2-pixel squares, eight light and eight dark, shown as it is or
in its negative, at random. So all glyphs have the same mean, the same energy
and the same histogram of values; the mean image of every class is the same;
and nothing outside the mask depends on the class.
"""

import dataclasses

import numpy as np

from implicit_attr.data.source import generator

VERSION = '1.0.0'  # to be raised whenever `render` draws other images
SIDE, GLYPH = 32, 8

# Boards read row by row, a set bit is a light square. Found by a search for
# boards that agree in at most 11 (differ in at least 5) of 16 squares with
# each other, with their negatives, and under every shift.
_CLASS_CODES = (
  0xB16C, 0xCD1A, 0x959C, 0xDF04, 0x8667, 0x923B, 0xA8D6, 0x8CAB,
)  # fmt: skip
_DISTRACTOR_CODES = (
  0x83AD, 0xBA70, 0xA3CA, 0xE0AE, 0xB81D, 0xB153, 0x9AC3, 0xEC68,
)  # fmt: skip
CLASSES = len(_CLASS_CODES)


@dataclasses.dataclass(frozen=True)
class Difficulty:
  """How hard the glyph is to find and to read.

  Attributes:
    contrast: half the step between light and dark squares, in pixel units.
    distractors: how many glyphs of the second family are in an image.
    noise: standard deviation of each pixel's own noise, in pixel units.
  """

  contrast: float
  distractors: int
  noise: float


DIFFICULTIES = {
  'easy': Difficulty(contrast=0.3, distractors=0, noise=0.02),
  'medium': Difficulty(contrast=0.25, distractors=2, noise=0.05),
  'hard': Difficulty(contrast=0.2, distractors=4, noise=0.06),
}


def render(
  level: Difficulty, draws: np.random.Generator, count: int
) -> dict[str, np.ndarray]:
  """`count` images: 'image' uint8 [N, 32, 32, 3], 'label', 'mask' [N, 32, 32].

  The mask is 1 on the 8x8 square of the class's glyph. Places are uniform
  over the image; distractors may cover each other, never the class's glyph.
  """
  label = draws.integers(0, CLASSES, count)
  place = draws.integers(0, SIDE - GLYPH + 1, (count, 2))
  layer = np.zeros((count, SIDE, SIDE), np.float32)
  for _ in range(level.distractors):
    which = draws.integers(0, len(DISTRACTORS), count)
    elsewhere = _apart_from(place, draws)
    _stamp(layer, elsewhere, DISTRACTORS[which] * _signs(draws, count))
  _stamp(layer, place, GLYPHS[label] * _signs(draws, count))
  mask = np.zeros((count, SIDE, SIDE), np.uint8)
  _stamp(mask, place, np.ones((count, GLYPH, GLYPH), np.uint8))
  tint = draws.uniform(0.8, 1.2, (count, 1, 1, 3)).astype(np.float32)
  image = _texture(draws, count) + level.contrast * tint * layer[..., None]
  image += level.noise * draws.standard_normal(image.shape, np.float32)
  pixels = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
  return {'image': pixels, 'label': label, 'mask': mask}


def blocks(level: Difficulty, split: str, count: int, size: int = 500):
  """Yields `render` of `count` images of a split, at most `size` at a time.

  Guarantees: a pure function of its arguments, split by split.
  """
  for block, start in enumerate(range(0, count, size)):
    draws = generator(0, f'data/planted/{split}', block)
    yield render(level, draws, min(size, count - start))


def _boards(codes: tuple[int, ...]) -> np.ndarray:
  bits = np.array(codes)[:, None] >> np.arange(15, -1, -1) & 1
  boards = (2 * bits - 1).reshape(-1, 4, 4)
  return boards.repeat(GLYPH // 4, axis=1).repeat(GLYPH // 4, axis=2)


GLYPHS = _boards(_CLASS_CODES)
DISTRACTORS = _boards(_DISTRACTOR_CODES)


def _signs(draws: np.random.Generator, count: int) -> np.ndarray:
  return draws.choice([-1, 1], (count, 1, 1))


def _apart_from(place: np.ndarray, draws: np.random.Generator) -> np.ndarray:
  """Places [N, 2] whose squares do not touch those at `place`."""
  other = draws.integers(0, SIDE - GLYPH + 1, place.shape)
  while (bad := (abs(other - place) < GLYPH).all(axis=1)).any():
    other[bad] = draws.integers(0, SIDE - GLYPH + 1, (bad.sum(), 2))
  return other


def _stamp(layer: np.ndarray, place: np.ndarray, squares: np.ndarray) -> None:
  """Writes `squares` [N, 8, 8] into `layer` [N, 32, 32] at `place` [N, 2]."""
  each = np.arange(len(layer))[:, None, None]
  y = (place[:, :1] + np.arange(GLYPH))[:, :, None]
  x = (place[:, 1:] + np.arange(GLYPH))[:, None, :]
  layer[each, y, x] = squares


def _texture(draws: np.random.Generator, count: int) -> np.ndarray:
  """Coloured noise with a 1/f spectrum: mean about 0.5, deviation about 0.1."""
  white = draws.standard_normal((count, 3, SIDE, SIDE), np.float32)
  f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
  f[0, 0] = np.inf  # the mean of an image is drawn below
  waves = np.fft.rfft2(white) / f.astype(np.float32)
  texture = np.fft.irfft2(waves, (SIDE, SIDE))
  power = np.square(texture).mean(axis=(2, 3), keepdims=True)
  texture *= 0.1 / np.sqrt(power)
  texture += draws.uniform(0.4, 0.6, (count, 3, 1, 1))
  return texture.transpose(0, 2, 3, 1)
