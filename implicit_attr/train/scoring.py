"""Loss and accuracy of a state on the test set and on training examples."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import data
from implicit_attr.runtime.programs import Program
from implicit_attr.train.experiment import Experiment
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.state import State, frozen
from implicit_attr.types import Array, Tree

CHUNK = 512
TRAIN_EXAMPLES = 1024
"""Enough to place a milestone; the exact training loss is not needed."""


class Scorer:
  """Scores of all lanes in evaluation mode: one program, chunks of a set.

  Chunks are stored pixels and stay on the devices, unless both sets together
  are larger than `train.resident_bytes`.
  """

  def __init__(self, lanes: Lanes):
    template = lanes.template
    self._lanes, self._mesh = lanes, template.mesh
    self._levels = template.test_set.levels
    tests, n = len(template.test_set), template.probes(TRAIN_EXAMPLES)
    # One size for both sets, so that one program serves them.
    size = template.mesh.size * math.ceil(
      min(CHUNK, max(len(n), tests)) / template.mesh.size
    )
    sets = {
      'eval/': (lambda e: e.test_set, np.arange(tests)),
      'eval/train_': (lambda e: e.train_set, n),
    }
    make = {
      prefix: lambda source=source, at=at: self._chunks(source, at, size)
      for prefix, (source, at) in sets.items()
    }
    pixels = (tests + len(n)) * template.test_set.image_bytes
    if pixels <= template.settings.train.resident_bytes:
      kept = {prefix: list(chunks()) for prefix, chunks in make.items()}
      make = {prefix: lambda c=chunks: c for prefix, chunks in kept.items()}
    self._sets: dict[str, Callable[[], Iterator[Tree]]] = make
    self._sums = Program(lanes.spread(self._sum, shared=(2,)))

  def prepare(self, state: State) -> None:
    """Begins to compile."""
    chunk = next(iter(self._sets['eval/train_']()))
    self._sums.prepare(self._lanes.values, state, chunk)

  def __call__(self, state: State) -> list[dict[str, float]]:
    """For each lane 'eval/loss', 'eval/accuracy' on the test set, and
    'eval/train_loss', 'eval/train_accuracy' on up to 1024 training examples."""
    scores: list[dict[str, float]] = [{} for _ in self._lanes.experiments]
    for prefix, chunks in self._sets.items():
      sums = [self._sums(self._lanes.values, state, c) for c in chunks()]
      total = np.sum(jax.device_get(sums), axis=0, dtype=np.float64)
      for i, score in enumerate(scores):
        loss, right, n = self._lanes.take(total, i)
        score[f'{prefix}loss'] = float(loss / n)
        score[f'{prefix}accuracy'] = float(right / n)
    return scores

  def _chunks(
    self, source: Callable[[Experiment], data.Source], at: np.ndarray, size: int
  ) -> Iterator[Tree]:
    """Stored pixels, labels and weights of the examples `at`, on the devices.

    All chunks are of one size; padding weighs 0.
    """
    lanes = self._lanes
    place = self._mesh.split if lanes.alone else self._mesh.replicate
    for start in range(0, len(at), size):
      take = np.arange(start, start + size)
      weight = (take < len(at)).astype(np.float32)
      here = at[np.minimum(take, len(at) - 1)]
      stored = lambda e: source(e).stored(here)
      image = lanes.of_images(lambda e: stored(e)['image'])
      label = lanes.of_seeds(lambda e: stored(e)['label'])
      yield place((image, label, weight))

  def _sum(self, values, state: State, chunk: Tree) -> Array:
    """Loss, number right and number, each example times its weight; [3]."""
    images, labels, weight = chunk
    e = self._lanes.bind(values)
    label = self._lanes.pick(labels, values)
    draw = {'image': self._lanes.pick_images(images, values), 'label': label}
    batch = data.assemble({'levels': self._levels}, draw)
    logits, _ = frozen(e.module, state.model_state)(
      state.params, batch['image']
    )
    right = jnp.argmax(logits, axis=-1) == label
    losses = e.loss(logits, label)
    parts = jnp.sum(weight * losses), jnp.sum(weight * right), jnp.sum(weight)
    return jnp.stack(parts)
