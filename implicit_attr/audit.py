"""Audit of your own network's attribution maps: one call, any framework.

  result = audit(apply_fn, params, images, labels, eps=8 / 255)
  print(result)
  result.draw('pictures')

`apply_fn` is a pure function, (params, x) -> logits or (logits, out).
"""

import dataclasses
import math
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from implicit_attr import errors, report
from implicit_attr.attacks import inputs
from implicit_attr.evaluation import robustness
from implicit_attr.runtime import dist
from implicit_attr.train.settings import Evaluation, record
from implicit_attr.types import ApplyFn, Array, Params

ATTRIBUTIONS = (
  'gradient', 'gradient_x_input', 'integrated_gradients', 'smoothgrad',
)  # fmt: skip
OPTIONS = {
  'integrated_gradients': {'steps': 16},
  'smoothgrad': {'samples': 16, 'sigma': 0.1},
}
STALLED = (
  'no attack gradient for some images under {}: a piecewise linear network '
  '(ReLU) has no second derivative; pass smooth_fn=, the same parameters with '
  'softplus'
)


@dataclasses.dataclass(frozen=True)
class Audit:
  """What `audit` measured; as text it is the table.

  Attributes:
    rows: one for each map and perturbation, as in evaluation/*.json.
    arrays: scores of every image, and images and maps of a few, as in .npz.
    settings: what was asked for.
    notes: what was done to the input before.
  """

  rows: list[dict[str, Any]]
  arrays: dict[str, np.ndarray]
  settings: dict[str, Any]
  notes: tuple[str, ...] = ()

  def __str__(self) -> str:
    return '\n'.join([report.as_text(self._evaluation()), *self.notes])

  def draw(self, folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes one PNG a method: images, their maps, the maps after attack."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return report.draw_maps(self._evaluation(), folder)

  def _evaluation(self) -> report.Evaluation:
    return report.Evaluation(
      'audit', None, {}, self.settings, self.rows, self.arrays
    )


def audit(
  apply_fn: Callable[..., Any],
  params: Params,
  x: Array,
  y: Array | Sequence[int],
  *,
  eps: float,
  smooth_fn: Callable[..., Any] | None = None,
  mask: Array | None = None,
  attributions: Sequence[str] = ATTRIBUTIONS,
  options: Mapping[str, Mapping[str, Any]] = OPTIONS,
  objectives: Sequence[str] = ('topk',),
  similarities: Sequence[str] = (),
  target: str = 'logit',
  norm: str = 'linf',
  k: float = 0.1,
  steps: int = 50,
  restarts: int = 3,
  batch_size: int = 64,
) -> Audit:
  """Attacks the maps of a network and puts random signs beside each number.

  Means over the images that are labelled rightly, with 95 % bootstrap
  intervals. A network with ReLU needs `smooth_fn`, or the attacks on its
  gradients have none to follow: such images are counted as stalled, and a
  warning says so. A similarity that is not defined for an image (the map is 0
  everywhere) is left out of its mean, and the table counts such images.

  Args:
    apply_fn: (params, x) -> logits [B, C], or (logits, out).
    params: what `apply_fn` takes, any tree.
    x: images [N, H, W, C], 0 to 1; or uint8, which is divided by 255.
    y: labels [N], integers.
    eps: size of the change, pixel units: 8 / 255, not 8.
    smooth_fn: (params, x, beta) -> as `apply_fn`, the same network with
      softplus(β) for its ReLU.
    mask: bool [N, H, W], where the truth is known.
    attributions: names in `attribution.METHODS`.
    options: keyword arguments for some of them.
    objectives: names in `attacks.OBJECTIVES` that need no target.
    similarities: further columns, 'ssim' or 'lens_recall'.
    target: a name in `attribution.TARGETS`.
    norm: 'linf' or 'l2'.
    k: share of the pixels in a top-k set; the integer 1 is one pixel, 1.0 is
      all of them.
    steps, restarts: of every attack.
    batch_size: images at a time.

  Raises:
    InputError: images or labels that do not fit, values outside 0 to 1, an
      unknown name, a number out of range.
  """
  given = {
    'attributions': tuple(attributions), 'attacks': tuple(objectives),
    'similarities': tuple(similarities),
    'options': {m: dict(o) for m, o in options.items()}, 'target': target,
    'eps': eps, 'norm': norm, 'k': k, 'steps': steps, 'restarts': restarts,
    'batch_size': batch_size,
  }  # fmt: skip
  settings = record(Evaluation, '', given)
  settings.check('')
  x, y, notes = np.asarray(x), np.asarray(y), ()
  if x.dtype == np.uint8:
    x, notes = x / np.float32(255), ('Images of uint8 were divided by 255.',)
  inputs.check(x, y, eps=eps, norm=norm, bounds=(0.0, 1.0))
  most = math.sqrt(x[0].size)
  errors.require(
    'eps', eps, eps <= most,
    f'in pixel units, at most {most:g}, the diagonal of the box: 8/255, not 8',
  )  # fmt: skip
  network = _with_out(apply_fn)
  logits, _ = network(params, jnp.asarray(x[:1]))
  errors.require(
    'y', int(y.max()), int(y.max()) < logits.shape[-1],
    f'labels < {logits.shape[-1]}',
  )  # fmt: skip
  batch = {'image': x, 'label': y.astype(np.int32)}
  if mask is not None:
    batch['mask'] = np.asarray(mask)
  rows, arrays = [], {}
  attack = robustness.Robustness(
    network, batch, settings, dist.mesh(), smooth_fn and _with_out(smooth_fn)
  )
  for new_rows, new_arrays in attack(params):
    rows += new_rows
    arrays |= new_arrays
  stuck = sorted({r['attribution'] for r in rows if r['n_stalled']})
  if stuck:
    warnings.warn(STALLED.format(', '.join(stuck)), stacklevel=2)
  return Audit(rows, arrays, given, notes)


def _with_out(fun: Callable[..., Any]) -> ApplyFn:
  """`fun` as an apply_fn, with an empty `out` where it gives logits alone."""

  def apply_fn(*args, **kwargs):
    result = fun(*args, **kwargs)
    return result if isinstance(result, tuple) else (result, {})

  return apply_fn
