"""λ_max of the loss over the whole training set, in bounded memory.

The tracked examples are few, and a loss that is flat in them may be sharp in
the rest. Here a product is a sum over microbatches of stored pixels.
"""

import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature, data, numerics
from implicit_attr.runtime.programs import Program
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.state import State, frozen
from implicit_attr.types import Array, Tree

MICROBATCH = 256
"""Examples that a product sees at once, over all lanes side by side."""


class Whole:
  """λ_max of all lanes over `track.whole` training examples, or all there are.

  Unaugmented, with their noisy labels, the network in evaluation mode, exact
  float32. Pixels stay on the devices as they are stored; each device makes the
  whole product.

  Guarantee: `microbatch` changes nothing beyond rounding.
  """

  def __init__(self, lanes: Lanes, microbatch: int = MICROBATCH):
    template = lanes.template
    self._lanes = lanes
    self._levels = template.train_set.levels
    at = template.probes(template.settings.track.whole)
    self._examples = len(at)
    beside = 1 if lanes.alone or lanes.mapped else len(lanes)
    size = min(max(microbatch // beside, 1), len(at))
    count = -(-len(at) // size)
    padded = np.resize(at, count * size)
    weight = (np.arange(count * size) < len(at)).astype(np.float32)
    cut = lambda a: a.reshape(count, size, *a.shape[1:])
    stored = lambda name: lambda e: cut(e.train_set.stored(padded)[name])
    chunks = lanes.of_images(stored('image')), lanes.of_seeds(stored('label'))
    self._data = template.mesh.replicate((*chunks, cut(weight)))
    spread = lanes.spread(self._measured, shared=(4,))
    self._program = Program(spread, out_shardings=template.mesh.whole)

  def prepare(self, due: np.ndarray, state: State, start: Tree) -> None:
    """Begins to compile."""
    self._program.prepare(*self._arguments(due, state, start))

  def wait(self) -> None:
    """Returns when what was prepared is compiled."""
    self._program.wait()

  def __call__(self, due: np.ndarray, state: State, start: Tree) -> Tree:
    """'param/train_lambda_max', its residual bound '…_residual' and the number
    of products '…_products', of the lanes that are `due`; zeros elsewhere.

    Args:
      due: bool, `lanes.lead`.
      start: where Lanczos begins, the eigenvector over the tracked examples.
    """
    return self._program(*self._arguments(due, state, start))

  def _arguments(self, due: np.ndarray, state: State, start: Tree) -> tuple:
    return self._lanes.values, due, state, start, self._data

  def _measured(self, values, due, state, start, chunks) -> dict[str, Array]:
    e, (images, labels, weight) = self._lanes.bind(values), chunks
    images = self._lanes.pick_images(images, values)
    labels = self._lanes.pick(labels, values)
    apply_fn = frozen(e.module, state.model_state)
    track = e.settings.track

    def loss_sum(params: Tree, chunk: tuple) -> Array:
      image, label, weight = chunk
      draw = {'image': image, 'label': label}
      batch = data.assemble({'levels': self._levels}, draw)
      logits, _ = apply_fn(params, batch['image'])
      return jnp.sum(weight * e.loss(logits, label))

    total = curvature.microbatched(loss_sum)
    mean = lambda p: total(p, (images, labels, weight)) / self._examples

    def own() -> tuple[None, dict[str, Array]]:
      with numerics.exact():
        mvp = curvature.linearize_hvp(mean, state.params)
        top = curvature.eigenpairs(
          mvp, start, k=1, order=track.order, tol=track.tol
        )
      name = 'param/train_lambda_max'
      return None, {
        name: top.values[0],
        f'{name}_residual': top.residuals[0],
        f'{name}_products': top.products,
      }

    return self._lanes.only(due, own, None)[1]
