"""How robust are the maps of my own network? One call, any framework.

  found = audit(apply_fn, params, images, labels, eps=8 / 255)
  print(found)
  found.draw('pictures')

`apply_fn` is a pure function, (params, x) -> (logits, out).
"""

import dataclasses
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
  """What `audit` found; as text it is the table.

  Attributes:
    rows: one for each map and perturbation, as in evaluation/*.json.
    arrays: scores of every image, and images and maps of a few, as in .npz.
    settings: what was asked for.
  """

  rows: list[dict[str, Any]]
  arrays: dict[str, np.ndarray]
  settings: dict[str, Any]

  def __str__(self) -> str:
    return report.as_text(self._evaluation())

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
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  eps: float,
  smooth_fn: Callable[..., tuple[Array, dict]] | None = None,
  mask: Array | None = None,
  attributions: Sequence[str] = ATTRIBUTIONS,
  options: Mapping[str, Mapping[str, Any]] = OPTIONS,
  objectives: Sequence[str] = ('topk',),
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
  warning says so.

  Args:
    apply_fn: (params, x) -> (logits [B, C], out); `out` may be {}.
    params: what `apply_fn` takes, any tree.
    x: images [N, H, W, C], 0 to 1.
    y: labels [N], int.
    eps: size of the change, pixel units.
    smooth_fn: (params, x, beta) -> (logits, out), the same network with
      softplus(β) for its ReLU.
    mask: bool [N, H, W], where the truth is known.
    attributions: names in `attribution.METHODS`.
    options: keyword arguments for some of them.
    objectives: names in `attacks.OBJECTIVES` that need no target.
    target: a name in `attribution.TARGETS`.
    norm: 'linf' or 'l2'.
    k: share of the pixels in a top-k set.
    steps, restarts: of every attack.
    batch_size: images at a time.

  Raises:
    InputError: images or labels that do not fit, values outside 0 to 1, an
      unknown name, a number out of range.
  """
  given = {
    'attributions': tuple(attributions), 'attacks': tuple(objectives),
    'options': {m: dict(o) for m, o in options.items()}, 'target': target,
    'eps': eps, 'norm': norm, 'k': k, 'steps': steps, 'restarts': restarts,
    'batch_size': batch_size, 'examples': len(x), 'checkpoints': ('last',),
    'curvature': 0,
  }  # fmt: skip
  settings = record(Evaluation, '', given)
  settings.check('')
  x, y = np.asarray(x), np.asarray(y)
  inputs.check(x, y, eps=eps, bounds=(0.0, 1.0))
  logits, _ = apply_fn(params, jnp.asarray(x[:1]))
  errors.require(
    'y', int(y.max()), int(y.max()) < logits.shape[-1],
    f'labels < {logits.shape[-1]}',
  )  # fmt: skip
  batch = {'image': x, 'label': y.astype(np.int32)}
  if mask is not None:
    batch['mask'] = np.asarray(mask)
  rows, arrays = [], {}
  attack = robustness.Robustness(
    apply_fn, batch, settings, dist.mesh(), smooth_fn
  )
  for found in attack(params):
    rows += found[0]
    arrays |= found[1]
  stuck = sorted({r['attribution'] for r in rows if r['n_stalled']})
  if stuck:
    warnings.warn(STALLED.format(', '.join(stuck)), stacklevel=2)
  return Audit(rows, arrays, given)
