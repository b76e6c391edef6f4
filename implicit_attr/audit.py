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

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import errors, report
from implicit_attr.attacks import inputs
from implicit_attr.attribution import graph
from implicit_attr.curvature.flat import warn_of_state
from implicit_attr.evaluation import robustness
from implicit_attr.runtime import dist, memory
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
NAN = 'a NaN in the maps of {}: their scores are left out of every mean'
SOFTENED = (
  'Attacks follow the network with softplus(β) for its rectifiers, which were '
  'found in its jaxpr; every score is of the network itself.'
)
NARROW = (
  'Images of {} are attacked and explained in float32; the network gets {}.'
)
LAYOUTS = ('NHWC', 'NCHW')
COPIES = 2
"""A step of an attack on a map, in intermediates of the forward pass: XLA's own
count on a CPU is 2.1 for a CNN and 1.1 for a ResNet with batch norm."""


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
  x: Array | np.ndarray,
  y: Array | np.ndarray | Sequence[int],
  *,
  eps: float,
  layout: str | None = None,
  mean: Array | Sequence[float] | float = 0.0,
  std: Array | Sequence[float] | float = 1.0,
  smooth_fn: Callable[..., Any] | None = None,
  mask: Array | None = None,
  attributions: Sequence[str] = ATTRIBUTIONS,
  options: Mapping[str, Mapping[str, Any]] = OPTIONS,
  objectives: Sequence[str] = ('border',),
  similarities: Sequence[str] = (),
  target: str = 'logit',
  norm: str = 'linf',
  k: float = 0.1,
  steps: int = 30,
  restarts: int = 5,
  memory_gb: float = 2.0,
  batch_size: int | None = None,
) -> Audit:
  """Attacks the maps of a network and puts random signs beside each number.

  Means over the images that are labelled rightly, with 95 % bootstrap
  intervals. A network with ReLU has no second derivative for an attack to
  follow: `smooth_fn`, or if it is not given the network with softplus for the
  rectifiers that `graph.softened` finds in it, has. Images without an attack
  gradient are counted as stalled, and a warning says so. A similarity that is
  not defined for an image (the map is 0 everywhere) is left out of its mean,
  and the table counts such images.

  Images, radius, steps, maps and scores are float32 (float64 if `x` is), also
  where parameters, activations, logits or images are bfloat16: the network
  runs in its own types and is measured as it is.

  Args:
    apply_fn: (params, x) -> logits [B, C], or (logits, out). One logit z, as
      [B] or [B, 1], is a binary head: its classes have logits -z/2 and z/2, so
      the sign is the class and the probability sigmoid(z).
    params: what `apply_fn` takes, any tree; leaves that look like running
      statistics are warned of, for they belong into `apply_fn`.
    x: images [N, H, W, C], 0 to 1; or uint8, which is divided by 255. Of
      bfloat16 or float16, `apply_fn` is given that type.
    y: labels [N], integers of any width.
    eps: size of the change, pixel units: 8 / 255, not 8.
    layout: 'NHWC' or 'NCHW', of `x` and of what `apply_fn` takes. Maps and
      arrays of the result are NHWC always.
    mean, std: one number or one a channel; `apply_fn` is given (x - mean) /
      std, while `x` and `eps` stay in pixel units and the box is [0, 1].
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
    memory_gb: what the arrays of the images at a time may take, in 10^9 bytes;
      the process, parameters and compiled programs come on top.
    batch_size: images at a time; as many as `memory_gb` has room for if None.
      Starts and signs are drawn anew for each of these batches.

  Raises:
    InputError: images or labels that do not fit, values outside 0 to 1, an
      unknown name, a number out of range; no `layout` for images that look
      like NCHW (second axis at most 4, last axis larger).
  """
  given = {
    'attributions': tuple(attributions), 'attacks': tuple(objectives),
    'similarities': tuple(similarities),
    'options': {m: dict(o) for m, o in options.items()}, 'target': target,
    'eps': eps, 'norm': norm, 'k': k, 'steps': steps, 'restarts': restarts,
    'batch_size': 1 if batch_size is None else batch_size,
  }  # fmt: skip
  record(Evaluation, '', given).check('')
  errors.number('memory_gb', memory_gb, 0, open_low=True)
  images, labels, notes = np.asarray(x), np.asarray(y), ()
  if images.dtype == np.uint8:
    images = images / np.float32(255)
    notes = ('Images of uint8 were divided by 255.',)
  images, kind = _channels_last(images, layout), images.dtype
  if jnp.issubdtype(kind, jnp.floating) and kind.itemsize < 4:
    images, notes = images.astype(np.float32), (NARROW.format(kind, kind),)
  inputs.check(images, labels, eps=eps, norm=norm, bounds=(0.0, 1.0))
  most = math.sqrt(images[0].size)
  errors.require(
    'eps', eps, eps <= most,
    f'in pixel units, at most {most:g}, the diagonal of the box: 8/255, not 8',
  )  # fmt: skip
  warn_of_state('params', params)
  into = _standardised(mean, std, layout, images.shape[-1], kind)
  network = _with_out(apply_fn, into)
  logits, _ = jax.eval_shape(network, params, images[:1])
  errors.require(
    'y', int(labels.max()), int(labels.max()) < logits.shape[-1],
    f'labels < {logits.shape[-1]}',
  )  # fmt: skip
  smooth = smooth_fn and _with_out(smooth_fn, into)
  if smooth is None and _softens(network, params, images[:1]):
    smooth, notes = graph.softened(network), (*notes, SOFTENED)
  one = memory.of_an_image(
    network, params, images.shape[1:], jnp.result_type(images)
  )
  room = memory_gb * 1e9 // (COPIES * one)
  given |= _sizes(batch_size, given['options'], len(images), room)
  settings = record(Evaluation, '', given)
  batch = {'image': images, 'label': labels.astype(np.int32)}
  if mask is not None:
    batch['mask'] = np.asarray(mask)
  rows, arrays = [], {}
  attack = robustness.Robustness(network, batch, settings, dist.mesh(), smooth)
  for new_rows, new_arrays in attack(params):
    rows += new_rows
    arrays |= new_arrays
  stuck = sorted({r['attribution'] for r in rows if r['n_stalled']})
  if stuck:
    warnings.warn(STALLED.format(', '.join(stuck)), stacklevel=2)
  broken = {r['attribution']: r['n_nan'] for r in rows if r['n_nan']}
  if broken:
    shown = ', '.join(f'{name} ({n} images)' for name, n in broken.items())
    warnings.warn(NAN.format(shown), stacklevel=2)
  return Audit(rows, arrays, given, notes)


def _channels_last(x: np.ndarray, layout: str | None) -> np.ndarray:
  """x as [N, H, W, C]; refused if it looks like another layout."""
  if layout is not None:
    errors.choose('layout', layout, LAYOUTS)
  errors.require('x.shape', x.shape, x.ndim == 4, 'four axes, images')
  other = layout is None and x.shape[1] <= 4 < x.shape[-1]
  errors.require(
    'x.shape', x.shape, not other,
    "[N, H, W, C]; pass layout='NCHW' if these are [N, C, H, W]",
  )  # fmt: skip
  return np.moveaxis(x, 1, -1) if layout == 'NCHW' else x


def _sizes(
  batch_size: int | None, options: dict[str, Any], n: int, room: float
) -> dict[str, Any]:
  """Images at a time, and points of a path at a time, if `room` images fit."""
  if batch_size is None:
    parts = math.ceil(n / max(1, room))
    batch_size = math.ceil(n / parts)
  path = options.get('integrated_gradients', {})
  chunk = max(1, int(room // batch_size))
  if 'chunk' not in path and chunk < path.get('steps', 16):
    options = options | {'integrated_gradients': {**path, 'chunk': chunk}}
  return {'batch_size': batch_size, 'options': options}


def _standardised(
  mean: Any, std: Any, layout: str | None, channels: int, kind: np.dtype
) -> Callable[[Array], Array]:
  """What turns images [B, H, W, C] in pixel units into a network's input."""
  mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
  for name, a in (('mean', mean), ('std', std)):
    fits = a.shape in ((), (channels,)) and bool(np.isfinite(a).all())
    errors.require(name, a, fits, f'one finite number, or {channels}')
  errors.require('std', std, bool((std > 0).all()), 'more than 0')
  mean, std = (np.broadcast_to(a, (1, 1, 1, channels)) for a in (mean, std))

  def into(x: Array) -> Array:
    if mean.any() or (std != 1).any():
      x = ((x - mean) / std).astype(x.dtype)
    if kind.itemsize < 4:
      x = x.astype(kind)
    return jnp.moveaxis(x, -1, 1) if layout == 'NCHW' else x

  return into


def _with_out(
  fun: Callable[..., Any], into: Callable[[Array], Array]
) -> ApplyFn:
  """`fun` of into(x) as an apply_fn: two classes at least, and an `out`."""

  def apply_fn(params, x, *args, **kwargs):
    result = fun(params, into(x), *args, **kwargs)
    logits, out = result if isinstance(result, tuple) else (result, {})
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if logits.shape in ((len(x),), (len(x), 1)):
      z = logits.reshape(-1, 1) / 2
      logits = jnp.concatenate([-z, z], axis=-1)
    return logits, out

  return apply_fn


def _softens(network: ApplyFn, params: Params, x: np.ndarray) -> bool:
  """Whether there are rectifiers in `network` that softplus can replace."""
  try:
    jax.eval_shape(graph.softened(network), params, x, np.float32(1))
  except errors.InputError:
    return False
  return True
