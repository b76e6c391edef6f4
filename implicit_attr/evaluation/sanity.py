"""Sanity checks for saliency maps (Adebayo et al., arXiv 1810.03292).

A map that is about what a network has learnt changes when its weights are
replaced by fresh ones, from the logits down (parameter randomisation), and
differs from that of a twin, the same network trained in the same way on labels
drawn at random (data randomisation).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import attribution, keys, similarity
from implicit_attr.evaluation.aggregate import interval
from implicit_attr.evaluation.chunks import chunks
from implicit_attr.runtime.programs import Program
from implicit_attr.train import State, experiment
from implicit_attr.train.advance import make_program
from implicit_attr.train.feed import Feed
from implicit_attr.train.lanes import Lanes
from implicit_attr.types import Array, Params

Explain = Callable[[str, State, Array, Array], Array]
"""(name of a map, state, x, y) -> the map."""


class Sanity:
  """Both tests of the maps of one experiment, compiled once for all states.

  Trains the twin, which takes as long as the run took without its tracking.

  Args:
    explain: the maps, as they are attacked.
  """

  def __init__(self, built: experiment.Experiment, explain: Explain):
    settings = built.settings.evaluation
    n = min(settings.examples, len(built.test_set))
    self._batch, self._mesh = built.test_batch(n), built.mesh
    self._size, self._explain = min(n, settings.batch_size), explain
    fresh, self.layers = untrained(built)
    twin, self.fitted = trained(experiment.build(random_labels(built)))
    self._others = fresh, twin.params, twin.model_state
    self._tests = {
      name: Program(functools.partial(self._tested, name))
      for name in settings.attributions
    }

  def __call__(
    self, state: State, classes: np.ndarray
  ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """(rows for the JSON, arrays for the npz).

    Args:
      classes: [n], those that are predicted of the test images.

    Returns:
      A row a map and test: 'test' is 'parameters' or 'labels'; 'replaced', of
      the former, the layer down to which weights are fresh; 'fitted', of the
      latter, the share of its random labels that the twin learnt, without
      which it says nothing; 'spearman' of the magnitudes of both maps, a mean
      over the n images labelled rightly with an interval; for 'n_undefined'
      of them there is none. Arrays 'sanity/<map>' [layers + 1, n], the twin
      last.
    """
    right, rows, arrays = classes == self._batch['label'], [], {}
    tests = [
      *({'test': 'parameters', 'replaced': layer} for layer in self.layers),
      {'test': 'labels', 'fitted': self.fitted},
    ]
    for name in self._tests:
      values = arrays[f'sanity/{name}'] = self._run(name, state, classes)
      for test, value in zip(tests, values[:, right], strict=True):
        rows.append({
          'attribution': name, **test, 'n': int(right.sum()),
          'n_undefined': int(np.isnan(value).sum()),
          'spearman': interval(value),
        })  # fmt: skip
    return rows, arrays

  def _run(self, name: str, state: State, classes: np.ndarray) -> np.ndarray:
    parts, batch = [], {'image': self._batch['image'], 'label': classes}
    weights = state.params, state.model_state, *self._others
    for chunk, _ in chunks(batch, self._size, self._mesh.size):
      values = self._tests[name](*weights, self._mesh.split(chunk))
      parts.append(self._mesh.fetch(values))
    return np.concatenate(parts, axis=1)[:, : len(classes)]

  def _tested(
    self, name, params, model_state, fresh, twin, statistics, chunk
  ) -> Array:
    """[layers + 1, B], how like the map of `params` those of others are."""
    x, y = chunk['image'], chunk['label']

    def explain(params, x, y, statistics=model_state):
      state = State(jnp.zeros((), jnp.int32), params, statistics, ())
      return similarity.magnitude(self._explain(name, state, x, y))

    cascade = attribution.parameter_randomisation(
      explain, params, fresh, x, y, similarity.spearman, layers=self.layers
    )
    other = explain(twin, x, y, statistics)
    last = similarity.spearman(explain(params, x, y), other)
    return jnp.concatenate([cascade, last[None]])


def untrained(built: experiment.Experiment) -> tuple[Params, list[str]]:
  """(fresh weights, names of the layers from the logits down).

  The weights are the same for all runs of a network and those at the start of
  none. Statistics of batch norm are not among them: they stay as they are.
  """
  layers = []

  def draw(key: Array) -> Params:
    one = jnp.zeros((1, *built.train_set.shape), jnp.float32)
    params = built.module.init(key, one)['params']
    layers[:] = params  # in the order in which they were made, which jit loses
    return params

  return jax.jit(draw)(keys.stream(0, 'sanity')), layers[::-1]


def random_labels(built: experiment.Experiment) -> dict[str, Any]:
  """The config of the twin, whose labels tell nothing of the images.

  As many are wrong as of labels drawn at random, so that no class, not even
  the right one, is more likely than another.
  """
  share = 1 - 1 / built.train_set.num_classes
  return {
    **built.config, 'data': {**built.config['data'], 'label_noise': share}
  }  # fmt: skip


def trained(built: experiment.Experiment) -> tuple[State, float]:
  """(last state of a run that keeps no files, accuracy in its last epoch)."""
  lanes, total = Lanes.of([built]), built.total
  feed, advance = Feed(lanes, total), make_program(lanes)
  state = built.mesh.replicate(lanes.init())
  right = np.zeros(0)
  for step in range(0, total, feed.longest):
    n = min(feed.longest, total - step)
    rates = np.zeros(feed.longest, np.float32)
    rates[:n] = built.learning_rates[step : step + n]
    state, sums = advance(
      lanes.values, np.bool_(True), state, rates, feed(step, n), np.int32(n),
      feed.table,
    )  # fmt: skip
    correct, count = (jax.device_get(sums[k])[:n] for k in ('correct', 'n'))
    right = np.append(right, correct / count)
  last = right[-built.train_set.steps_per_epoch :]
  return state, float(last.mean())
