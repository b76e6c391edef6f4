"""How well does a state do on whole sets: the test set, training examples?"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr.runtime.programs import Program
from implicit_attr.train import State, frozen
from implicit_attr.train.experiment import Experiment
from implicit_attr.types import Array, Batch

CHUNK = 512
TRAIN_EXAMPLES = 1024
"""Enough to place a milestone; the exact training loss is not needed."""


class Scorer:
  """Loss and accuracy in evaluation mode; compiled once, in chunks of a set."""

  def __init__(self, experiment: Experiment):
    self._mesh = experiment.mesh
    self._test = experiment.test_set.examples(
      np.arange(len(experiment.test_set))
    )
    n = min(TRAIN_EXAMPLES, len(experiment.train_set))
    self._train = experiment.probe_batch(n)
    # One size for both sets, so that one program serves them.
    self._size = min(CHUNK, max(n, len(experiment.test_set)))
    self._sums = Program(functools.partial(sums, experiment))

  def prepare(self, state: State) -> None:
    """Begins to compile."""
    self._sums.prepare(*next(self._arguments(state, self._train)))

  def __call__(self, state: State) -> dict[str, float]:
    """'eval/loss', 'eval/accuracy' on the test set; 'eval/train_loss',
    'eval/train_accuracy' on up to 1024 training examples."""
    loss, accuracy = self.score(state, self._test)
    train_loss, train_accuracy = self.score(state, self._train)
    return {
      'eval/loss': loss,
      'eval/accuracy': accuracy,
      'eval/train_loss': train_loss,
      'eval/train_accuracy': train_accuracy,
    }

  def score(self, state: State, batch: Batch) -> tuple[float, float]:
    """(mean loss, accuracy) over all of `batch`: sums, divided once."""
    found = [self._sums(*args) for args in self._arguments(state, batch)]
    n = len(batch['label'])
    loss, right = np.sum(jax.device_get(found), axis=0, dtype=np.float64)
    return float(loss / n), float(right / n)

  def _arguments(self, state: State, batch: Batch) -> Iterator[tuple]:
    for chunk, weight in chunks(batch, self._size, self._mesh.size):
      data = self._mesh.split((chunk['image'], chunk['label'], weight))
      yield state.params, state.model_state, *data


def sums(
  experiment: Experiment, params, model_state, image, label, weight
) -> tuple[Array, Array]:
  """Loss and number right over a chunk, each example times its weight [B]."""
  logits, _ = frozen(experiment.module, model_state)(params, image)
  right = jnp.argmax(logits, axis=-1) == label
  losses = experiment.loss(logits, label)
  return jnp.sum(weight * losses), jnp.sum(weight * right)


def chunks(
  batch: Batch, size: int, multiple: int = 1
) -> Iterator[tuple[Batch, np.ndarray]]:
  """Yields (chunk, weight [size]), all of one size; padding weighs 0.

  `size` is raised to a multiple of `multiple` devices; one compilation serves
  every chunk.
  """
  n = len(batch['label'])
  size = multiple * math.ceil(size / multiple)
  for start in range(0, n, size):
    take = np.arange(start, start + size)
    weight = (take < n).astype(np.float32)
    take = np.minimum(take, n - 1)
    yield {name: value[take] for name, value in batch.items()}, weight
