"""Certified radii of attribution maps beside the attack's, where one is proved.

Which of `theory`'s certificates is about a map of the table: `mlp_radius`
about the gradient of a logit, for dense layers whose activation has bounded
derivatives; `affine_radius`, exact, about gradient and gradient times input of
a network without a hidden layer. Both are about sets of entries, and the table
ranks pixels by sums over channels, so images have one channel.
`smoothed_radius` is about the mean of maps of unit length, which is no map of
the table. All hold with the class fixed and for real numbers: radii are
computed in float64, and rounding inside of the network is not in them.
"""

from typing import Any

import jax
import numpy as np

from implicit_attr import models, numerics, theory
from implicit_attr.evaluation.aggregate import interval
from implicit_attr.similarity.topk import count
from implicit_attr.theory.mlp_certificate import SLOPES
from implicit_attr.train import State, frozen
from implicit_attr.train.experiment import Experiment


def beside(
  experiment: Experiment,
  state: State,
  rows: list[dict[str, Any]],
  arrays: dict[str, np.ndarray],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
  """The rows and arrays that `Robustness` has of `state`, with certificates.

  Returns:
    rows with 'certificate': means and intervals of 'radius' (pixel units, in
    the norm of the attack, at most the size of the box of images), 'certified'
    (is it above eps?) and 'unbroken' (is the top-k set after this perturbation
    what it was?), between which the true share lies; or 'absent', the reason
    why there is none. Arrays with 'certificate/<map>' [n].
  """
  x = np.asarray(experiment.test_batch(len(arrays['class']))['image'])
  radii = {
    name: radius(experiment, state, name, x, arrays['class'])
    for name in dict.fromkeys(row['attribution'] for row in rows)
  }
  proved = {name: r for name, r in radii.items() if not isinstance(r, str)}

  def certificate(row: dict[str, Any]) -> dict[str, Any]:
    name = row['attribution']
    if name not in proved:
      return {'absent': radii[name]}
    topk = arrays[f'score/{name}/{row["attack"]}/topk']
    values = {
      'radius': proved[name],
      'certified': proved[name] > row['eps'],
      'unbroken': np.where(np.isnan(topk), np.nan, topk == 1),
    }
    right = arrays[f'correct/{name}']
    return {key: interval(value[right]) for key, value in values.items()}

  rows = [{**row, 'certificate': certificate(row)} for row in rows]
  return rows, arrays | {f'certificate/{n}': r for n, r in proved.items()}


def radius(
  experiment: Experiment, state: State, name: str, x: np.ndarray, y: np.ndarray
) -> np.ndarray | str:
  """[B] inside of which nothing changes the top-k set of the map `name` of
  x [B, H, W, C] for the classes y [B]; or the reason why it is not known."""
  module, settings = experiment.module, experiment.settings.evaluation
  k, norm = count(settings.k, x[0, ..., 0].size), settings.norm
  reasons = (
    ('only networks of dense layers', type(module) is not models.MLP),
    ('only the logit as target', settings.target != 'logit'),
    ('only images of one channel', x.shape[-1] != 1),
    ('the set is the whole map', k == x[0].size),
  )
  for reason, holds in reasons:
    if holds:
      return reason
  params = jax.tree.map(np.float64, jax.device_get(state.params))
  if not module.widths:
    bound = _linear(module, params, name, x, y, k, norm)
  elif name != 'gradient':
    return 'only the gradient'
  elif module.activation not in SLOPES:
    return f'{module.activation} has no bounded second derivative'
  else:
    bound = _dense(module, params, x, y, k, norm)
  # All images are in the box: nothing in it is further away than its size.
  most = 1.0 if norm == 'linf' else x[0].size ** 0.5
  return bound if isinstance(bound, str) else np.minimum(bound, most)


def _linear(module, params, name, x, y, k, norm) -> np.ndarray | str:
  """Exact: the gradient does not move, its product with the input is A δ."""
  slopes = params['logits']['kernel'].T[y] / np.ravel(module.std)  # [B, HW]
  if name == 'gradient':
    return theory.affine_radius(0 * np.eye(x[0].size), slopes, k, norm)
  if name != 'gradient_x_input':
    return 'only gradient and gradient × input'
  maps = slopes * x.reshape(slopes.shape)
  radii = [
    theory.affine_radius(np.diag(a), phi[None], k, norm)
    for a, phi in zip(slopes, maps, strict=True)
  ]
  return np.concatenate(radii)


def _dense(module, params, x, y, k, norm) -> np.ndarray:
  """From the norms of the layers."""
  names = ['first', *(f'dense_{i}' for i in range(1, len(module.widths)))]
  layers = [params[n] for n in (*names, 'logits')]
  with jax.enable_x64(True), numerics.exact():
    return theory.mlp_radius(
      frozen(module, {}), params, x.astype(np.float64), y, k,
      layers=[(layer['kernel'], layer['bias']) for layer in layers],
      activation=module.activation, beta=module.beta,
      mean=np.ravel(module.mean)[0], std=np.ravel(module.std)[0], norm=norm,
    )  # fmt: skip
