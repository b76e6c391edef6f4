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

from implicit_attr import (
  attacks,
  attribution,
  keys,
  numerics,
  similarity,
  train,
)  # fmt: skip
from implicit_attr.experiment import Experiment
from implicit_attr.programs import Program
from implicit_attr.scoring import chunks
from implicit_attr.train import State
from implicit_attr.types import ApplyFn, Array, Explain, Params

METRICS = ('topk', 'kendall', 'spearman', 'cosine')

SHOWN = 6
"""Examples whose images and maps are kept for the report."""

BASELINE = 'random_sign'

SEED = 0
"""Attacks and noise start alike in every arm, so that arms are paired."""


class Robustness:
  """The attacks of a config as compiled programs, for any number of states.

  Compiling costs more than running on small networks, so what methods share
  (noise, scores) is compiled once, and a map once per method.
  """

  def __init__(self, experiment: Experiment):
    self._experiment = experiment
    self._settings = settings = experiment.config['evaluation']
    n = min(settings['examples'], len(experiment.test_set))
    self._batch = experiment.test_batch(n)
    self._size = min(n, settings['batch_size'])
    self._noise, self._score = Program(self._noisy), Program(self._scores)
    bound = lambda fun, *names: Program(functools.partial(fun, *names))
    self._maps = {m: bound(self._map, m) for m in settings['attributions']}
    self._attacks = {
      (m, o): bound(self._attacked, m, o)
      for m in settings['attributions']
      for o in settings['attacks']
    }
    self.jobs = len(self._attacks)

  def __call__(self, state: State) -> Iterator[tuple[list[dict], dict]]:
    """Yields (rows, arrays) of each attribution and attack."""
    self.prepare(state)
    for name, objective in self._attacks:
      found = self._run(name, objective, state)
      rows = [
        _row(name, attack, found, self._settings)
        for attack in (objective, BASELINE)
      ]
      yield rows, _arrays(name, objective, found)

  def prepare(self, state: State) -> None:
    """Begins to compile maps, attacks and scores."""
    chunk, _ = next(self._chunks())
    batch = self._experiment.mesh.split(chunk)
    network, image = (state.params, state.model_state), batch['image']
    label, last = (
      batch['label'],
      (keys.stream(SEED, BASELINE, 0), np.float32(0)),
    )
    for name, objective in self._attacks:
      self._attacks[name, objective].prepare(*network, image, *last)
    for program in self._maps.values():
      program.prepare(*network, image, label)
    self._noise.prepare(*network, image, *last)
    self._score.prepare(*network, batch, label, image, image)

  def _run(
    self, name: str, objective: str, state: State
  ) -> dict[str, np.ndarray]:
    """Everything about all examples, chunk by chunk; the padding cut off."""
    mesh, parts = self._experiment.mesh, []
    network = state.params, state.model_state
    for i, (chunk, _) in enumerate(self._chunks()):
      batch, eps = mesh.split(chunk), np.float32(self._settings['eps'])
      stream = lambda what: keys.stream(SEED, what, i)
      noise = self._noise(*network, batch['image'], stream(BASELINE), eps)
      attack = self._attacks[name, objective](
        *network, batch['image'], stream(f'{name}/{objective}'), eps
      )
      # What one program left in its own layout, the next takes split.
      prediction = mesh.split(noise['prediction'])
      map_of = lambda x: mesh.split(
        self._maps[name](*network, mesh.split(x), prediction)
      )
      clean = map_of(batch['image'])
      part = {
        'prediction': prediction, 'map/clean': clean,
        f'curve/{objective}': attack['curve'].T,
        f'stalled/{objective}': attack['stalled'],
      }  # fmt: skip
      for kind, result in ((objective, attack), (BASELINE, noise)):
        part[f'adv/{kind}'] = result['x_adv']
        part[f'kept/{kind}'] = result['kept']
        part[f'map/{kind}'] = changed = map_of(result['x_adv'])
        scores = self._score(*network, batch, prediction, clean, changed)
        for metric, value in scores.items():
          shared = metric.startswith('faithfulness/')
          part[metric if shared else f'score/{kind}/{metric}'] = value
      parts.append(jax.device_get(part))
    n = len(self._batch['label'])
    joined = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    return {**self._batch, **{key: value[:n] for key, value in joined.items()}}

  def _chunks(self) -> Iterator[tuple[dict, np.ndarray]]:
    return chunks(self._batch, self._size, self._experiment.mesh.size)

  def _explain(self, name: str, apply_fn: ApplyFn, params: Params) -> Explain:
    """The map as a function of x and y, with its noise fixed."""
    settings = self._settings
    return functools.partial(
      attribution.METHODS[name], apply_fn, params,
      key=keys.stream(SEED, 'map'), target=settings['target'],
      **settings['options'].get(name, {}),
    )  # fmt: skip

  def _map(self, name, params, model_state, x, y) -> Array:
    apply_fn = train.frozen(self._experiment.module, model_state)
    with numerics.exact():
      return self._explain(name, apply_fn, params)(x, y)

  def _ball(self, eps: Array) -> dict[str, Any]:
    settings = self._settings
    return {'eps': eps, 'norm': settings['norm'], 'k': settings['k']}

  def _attacked(
    self, name, objective, params, model_state, x, key, eps
  ) -> dict[str, Array]:
    """The attack on the map of the predicted class."""
    settings = self._settings
    apply_fn = train.frozen(self._experiment.module, model_state)
    smooth_fn = self._experiment.smooth_apply_fn(model_state)
    predict = lambda x: apply_fn(params, x)[0]

    def surrogate(x: Array, y: Array, beta: Array) -> Array:
      smooth = functools.partial(smooth_fn, beta=beta)
      return self._explain(name, smooth, params)(x, y)

    with numerics.exact():
      return attacks.attack_attribution(
        key, self._explain(name, apply_fn, params), predict,
        x, jnp.argmax(predict(x), axis=-1), objective=objective,
        steps=settings['steps'], restarts=settings['restarts'],
        surrogate=surrogate if smooth_fn else None, **self._ball(eps),
      )._asdict()  # fmt: skip

  def _noisy(self, params, model_state, x, key, eps) -> dict[str, Array]:
    """Random signs, the same for every map; and what is predicted for x."""
    apply_fn = train.frozen(self._experiment.module, model_state)
    predict = lambda x: apply_fn(params, x)[0]
    with numerics.exact():
      y = jnp.argmax(predict(x), axis=-1)
      # Any map will do for an image that is drawn without looking at one.
      found = attacks.random_sign(
        key, lambda x, y: x, predict, x, y, **self._ball(eps)
      )
    return {'prediction': y, **found._asdict()}

  def _scores(
    self, params, model_state, batch, prediction, clean, changed
  ) -> dict[str, Array]:
    """Similarity of two maps [B], and the faithfulness of the first."""
    apply_fn = train.frozen(self._experiment.module, model_state)
    k = self._settings['k']
    with numerics.exact():
      # Ranks are of the channel-summed absolute map, the cosine of the signed.
      ranked = attribution.sum_abs(clean), attribution.sum_abs(changed)
      found = {
        'topk': similarity.topk_intersection(*ranked, k),
        'kendall': similarity.kendall_tau(*ranked),
        'spearman': similarity.spearman(*ranked),
        'cosine': similarity.cosine(clean, changed),
        'faithfulness/deletion_auc': attribution.deletion_auc(
          apply_fn, params, batch['image'], prediction, clean
        ),
      }
      if 'mask' in batch:
        found['faithfulness/mask_mass'] = attribution.mask_mass(
          clean, batch['mask']
        )
    return found


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
  from scipy import stats  # half a second that training need not wait for

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
  shown = np.argsort(~right, kind='stable')[:SHOWN]  # rightly labelled first
  arrays = {
    'images': found['image'][shown],
    'labels': found['label'][shown],
    'predictions': found['prediction'][shown],
    f'map/{name}/clean': found['map/clean'][shown],
    f'correct/{name}': right,
    f'shown/{name}': shown,
  }
  if right.any():
    curve = found[f'curve/{objective}'][right]
    arrays[f'curve/{name}/{objective}'] = curve.mean(0)
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
