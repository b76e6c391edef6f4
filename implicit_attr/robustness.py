"""How far do a network's maps move under attack, and under noise of that size?

One compiled program per attribution and objective: clean map, attack, random
signs, similarities, and the faithfulness of the clean map beside them.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from implicit_attr import (
  attacks,
  attribution,
  keys,
  numerics,
  similarity,
  train,
)  # fmt: skip
from implicit_attr.experiment import Experiment
from implicit_attr.scoring import chunks
from implicit_attr.train import State
from implicit_attr.types import Array

METRICS = ('topk', 'kendall', 'spearman', 'cosine')

SHOWN = 6
"""Examples whose images and maps are kept for the report."""

BASELINE = 'random_sign'

SEED = 0
"""Attacks and noise start alike in every arm, so that arms are paired."""


class Robustness:
  """One compiled program per attribution and attack, for all checkpoints."""

  def __init__(self, experiment: Experiment):
    self._experiment = experiment
    self._settings = settings = experiment.config['evaluation']
    n = min(settings['examples'], len(experiment.test_set))
    self._batch = experiment.test_batch(n)
    self._programs = {
      (name, objective): jax.jit(
        functools.partial(self._chunk, name, objective)
      )
      for name in settings['attributions']
      for objective in settings['attacks']
    }
    self.jobs = len(self._programs)

  def __call__(self, state: State) -> Iterator[tuple[list[dict], dict]]:
    """Yields (rows, arrays) of each attribution and attack."""
    for (name, objective), program in self._programs.items():
      found = self._run(name, objective, program, state)
      rows = [
        _row(name, attack, found, self._settings)
        for attack in (objective, BASELINE)
      ]
      yield rows, _arrays(name, objective, found)

  def _run(self, name, objective, program, state) -> dict[str, np.ndarray]:
    """The program over all examples, chunk by chunk; padding cut off."""
    mesh, parts = self._experiment.mesh, []
    size = self._settings['batch_size']
    for i, (chunk, _) in enumerate(chunks(self._batch, size, mesh.size)):
      key = keys.stream(SEED, f'{name}/{objective}', i)
      eps = np.float32(self._settings['eps'])
      part = program(
        state.params, state.model_state, mesh.split(chunk), key, eps
      )
      parts.append(jax.device_get(part))
    n = len(self._batch['label'])
    axis = lambda key: 1 if key.startswith('curve/') else 0
    return {
      key: np.concatenate([p[key] for p in parts], axis(key)).take(
        range(n), axis(key)
      )
      for key in parts[0]
    }

  def _chunk(
    self, name: str, objective: str, params, model_state, batch, key, eps
  ) -> dict[str, Array]:
    """Attack, baseline and their scores for one chunk; leading axis [B]."""
    settings = self._settings
    apply_fn = train.frozen(self._experiment.module, model_state)
    smooth_fn = self._experiment.smooth_apply_fn(model_state)
    x = batch['image']
    attack_key, noise_key, map_key = jax.random.split(key, 3)
    predict = lambda x: apply_fn(params, x)[0]
    options = settings['options'].get(name, {})

    def explain(x: Array, y: Array, apply_fn=apply_fn) -> Array:
      return attribution.METHODS[name](
        apply_fn, params, x, y, key=map_key, target=settings['target'],
        **options,
      )  # fmt: skip

    def surrogate(x: Array, y: Array, beta: Array) -> Array:
      return explain(x, y, functools.partial(smooth_fn, beta=beta))

    with numerics.exact():
      y = jnp.argmax(predict(x), axis=-1)
      clean = explain(x, y)
      attacked = attacks.attack_attribution(
        attack_key, explain, predict, x, y, eps=eps,
        norm=settings['norm'], objective=objective, k=settings['k'],
        steps=settings['steps'], restarts=settings['restarts'],
        surrogate=surrogate if smooth_fn else None,
      )  # fmt: skip
      noisy = attacks.random_sign(
        noise_key, explain, predict, x, y,
        eps=eps, norm=settings['norm'], k=settings['k'],
      )  # fmt: skip
      found = {
        'image': x, 'prediction': y, 'label': batch['label'],
        'map/clean': clean, f'curve/{objective}': attacked.curve,
        f'stalled/{objective}': attacked.stalled,
        'faithfulness/deletion_auc': attribution.deletion_auc(
          apply_fn, params, x, y, clean
        ),
      }  # fmt: skip
      if 'mask' in batch:
        found['mask'] = batch['mask']
        found['faithfulness/mask_mass'] = attribution.mask_mass(
          clean, batch['mask']
        )
      for attack, result in ((objective, attacked), (BASELINE, noisy)):
        changed = explain(result.x_adv, y)
        found |= {
          f'adv/{attack}': result.x_adv, f'map/{attack}': changed,
          f'kept/{attack}': result.kept,
        }  # fmt: skip
        found |= {
          f'score/{attack}/{metric}': value
          for metric, value in _similarities(clean, changed, settings['k'])
        }
    return found


def _similarities(a: Array, b: Array, k: float) -> Iterator[tuple[str, Array]]:
  """Rank metrics on the channel-summed absolute map; cosine on the signed."""
  ranked = [attribution.sum_abs(m) for m in (a, b)]
  yield 'topk', similarity.topk_intersection(*ranked, k)
  yield 'kendall', similarity.kendall_tau(*ranked)
  yield 'spearman', similarity.spearman(*ranked)
  yield 'cosine', similarity.cosine(a, b)


def _row(
  name: str, attack: str, found: dict[str, np.ndarray], settings: dict
) -> dict[str, Any]:
  """One line of the table: means over correctly classified examples.

  An example for which the attack found nothing admissible counts with its
  clean map (a similarity of 1), not as missing: dropping it would make the
  attack look stronger than it is.
  """
  right = found['prediction'] == found['label']
  prefix = f'score/{attack}/'
  shares = {
    key: value[right]
    for key, value in found.items()
    if key.startswith('faithfulness/')
  }
  return {
    'attribution': name,
    'attack': attack,
    'eps': settings['eps'],
    'n': int(right.sum()),
    'n_kept': int(found[f'kept/{attack}'][right].sum()),
    'n_stalled': int(
      found.get(f'stalled/{attack}', right & False)[right].sum()
    ),
    'metrics': {
      key.removeprefix(prefix): _interval(value[right])
      for key, value in found.items()
      if key.startswith(prefix)
    },
    'faithfulness': {
      key.removeprefix('faithfulness/'): _interval(value)
      for key, value in shares.items()
    },
  }


def _interval(values: np.ndarray) -> dict[str, float | int | None]:
  """Mean with a 95 % percentile bootstrap interval over examples.

  Undefined similarities (a constant map) are left out, and `n` says so.
  """
  values = values[np.isfinite(values)].astype(np.float64)
  if not len(values):
    return {'mean': None, 'low': None, 'high': None, 'n': 0}
  low = high = values.mean()
  if np.ptp(values):
    low, high = stats.bootstrap(
      (values,), np.mean, n_resamples=2000, method='percentile', rng=SEED
    ).confidence_interval
  return {
    'mean': float(values.mean()), 'low': float(low), 'high': float(high),
    'n': len(values),
  }  # fmt: skip


def _arrays(
  name: str, objective: str, found: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """What the npz keeps: every score, and images and maps of a few examples."""
  right = found['prediction'] == found['label']
  shown = np.flatnonzero(right)[:SHOWN]
  arrays = {
    'images': found['image'][shown],
    'labels': found['label'][shown],
    'predictions': found['prediction'][shown],
    f'map/{name}/clean': found['map/clean'][shown],
    f'curve/{name}/{objective}': found[f'curve/{objective}'][:, right].mean(1),
    f'correct/{name}': right,
    f'shown/{name}': shown,
  }
  if 'mask' in found:
    arrays['mask'] = found['mask'][shown]
  for attack in (objective, BASELINE):
    arrays[f'adv/{name}/{attack}'] = found[f'adv/{attack}'][shown]
    arrays[f'map/{name}/{attack}'] = found[f'map/{attack}'][shown]
    arrays[f'kept/{name}/{attack}'] = found[f'kept/{attack}']
    for metric in METRICS:
      arrays[f'score/{name}/{attack}/{metric}'] = found[
        f'score/{attack}/{metric}'
      ]
  return arrays
