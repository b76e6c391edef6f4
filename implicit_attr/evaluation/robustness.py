"""How far do a network's maps move under attack, and under noise of that size?

One compiled program per attribution and objective: clean map, attack, random
signs, similarities, and the faithfulness of the clean map beside them.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
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
)
from implicit_attr.evaluation.aggregate import BASELINE, arrays, row
from implicit_attr.runtime import dist
from implicit_attr.runtime.programs import Program
from implicit_attr.train.scoring import chunks
from implicit_attr.train.settings import Evaluation, maps
from implicit_attr.types import ApplyFn, Array, Batch, Explain, Params

SEED = 0
"""Attacks and noise start alike in every arm, so that arms are paired."""


class Robustness:
  """The attacks that `settings` name, as compiled programs, for any params.

  Compiling costs more than running on small networks, so what methods share
  (noise, scores) is compiled once, and a map once per method.

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    batch: 'image', 'label', and 'mask' where the truth is known; on the host.
    settings: the section `evaluation` of a config.
    options: keyword arguments of maps, those of the settings if not given.
    mesh: the devices that share a chunk of the batch.
    smooth_fn: (params, x, beta) -> (logits, out), the same network with a
      smooth activation; None where it is smooth itself.
    spread: (fun, positions of shared arguments) -> `fun` over many params,
      whose arrays then begin with the axes `lead`; see `lanes.Lanes.spread`.
  """

  def __init__(
    self,
    apply_fn: ApplyFn,
    batch: Batch,
    settings: Evaluation,
    mesh: dist.Mesh,
    smooth_fn: Callable[..., tuple[Array, dict]] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    spread: Callable[..., Callable] = lambda fun, shared: fun,
    lead: tuple[int, ...] = (),
  ):
    self._apply_fn, self._smooth_fn = apply_fn, smooth_fn
    self._batch, self._settings, self._mesh = batch, settings, mesh
    self._options = settings.options if options is None else options
    self._size = min(len(batch['label']), settings.batch_size)
    self._lead = lead
    bound = lambda fun, shared, *names: Program(
      spread(functools.partial(fun, *names), shared)
    )
    drawn = (1, 2, 3)  # images, key and radius are the same for all params
    self._noise = bound(self._noisy, drawn)
    self._maps = {m: bound(self._map, (), m) for m in settings.attributions}
    shapes = {m in attribution.ATTENTION_METHODS for m in self._maps}
    self._score = {tokens: bound(self._scores, (1,)) for tokens in shapes}
    self._attacks = {
      (m, o): bound(self._attacked, drawn, m, o)
      for m in settings.attributions
      for o in settings.attacks
    }
    self.jobs = len(self._attacks)

  def __call__(self, params: Params) -> Iterator[tuple[list[dict], dict]]:
    """Yields (rows, arrays) of each attribution and attack."""
    self.prepare(params)
    for name, objective, found in self.measured(params):
      yield self.table(name, objective, found)

  def measured(self, params: Params) -> Iterator[tuple[str, str, dict]]:
    """Yields (attribution, attack, everything found [*lead, n, ...])."""
    for name, objective in self._attacks:
      yield name, objective, self._run(name, objective, params)

  def table(
    self, name: str, objective: str, found: dict[str, np.ndarray]
  ) -> tuple[list[dict], dict]:
    """(rows, arrays) of what was found for one params."""
    found = {**self._batch, **found}
    rows = [
      row(name, attack, found, self._settings)
      for attack in (objective, BASELINE)
    ]
    return rows, arrays(name, objective, found)

  def check(self, params: Params) -> None:
    """Raises InputError for what a map or an attack refuses of this network.

    Traces each for its shapes; nothing is compiled.
    """
    chunk = next(self._chunks())[0]
    last = keys.stream(SEED, BASELINE), np.float32(0)
    for name, objective in self._attacks:
      attack = functools.partial(self._attacked, name, objective)
      try:
        jax.eval_shape(attack, params, chunk['image'], *last)
      except errors.InputError as e:
        raise errors.InputError(f'evaluation.attributions: {name}: {e}') from e

  def prepare(self, params: Params) -> None:
    """Begins to compile maps, attacks and scores."""
    batch = self._mesh.split(next(self._chunks())[0])
    image, label = batch['image'], batch['label']
    each, labels = self._each(image), self._each(label)
    last = keys.stream(SEED, BASELINE, 0), np.float32(0)
    for program in self._attacks.values():
      program.prepare(params, image, *last)
    for program in self._maps.values():
      program.prepare(params, each, labels)
    self._noise.prepare(params, image, *last)
    for tokens, score in self._score.items():
      # A map of tokens is not known before a network was asked for one.
      if not tokens:
        score.prepare(params, batch, labels, each, each)

  def _run(
    self, name: str, objective: str, params: Params
  ) -> dict[str, np.ndarray]:
    """Everything about all examples, chunk by chunk; the padding cut off."""
    split, parts = self._mesh.split, []
    for i, (chunk, _) in enumerate(self._chunks()):
      batch, eps = split(chunk), np.float32(self._settings.eps)
      stream = lambda what: keys.stream(SEED, what, i)
      noise = self._noise(params, batch['image'], stream(BASELINE), eps)
      attack = self._attacks[name, objective](
        params, batch['image'], stream(f'{name}/{objective}'), eps
      )
      # What one program left in its own layout, the next takes split.
      prediction = split(noise['prediction'])
      map_of = lambda x: split(self._maps[name](params, split(x), prediction))
      clean = map_of(self._each(batch['image']))
      part = {
        'prediction': prediction, 'map/clean': clean,
        f'curve/{objective}': split(jnp.swapaxes(attack['curve'], -1, -2)),
        f'stalled/{objective}': attack['stalled'],
      }  # fmt: skip
      for kind, result in ((objective, attack), (BASELINE, noise)):
        part[f'adv/{kind}'] = result['x_adv']
        part[f'kept/{kind}'] = result['kept']
        part[f'map/{kind}'] = changed = map_of(result['x_adv'])
        score = self._score[name in attribution.ATTENTION_METHODS]
        scores = score(params, batch, prediction, clean, changed)
        for metric, value in scores.items():
          shared = metric.startswith('faithfulness/')
          part[metric if shared else f'score/{kind}/{metric}'] = value
      parts.append(self._mesh.fetch(part))
    axis, kept = len(self._lead), np.arange(len(self._batch['label']))
    return {
      key: np.concatenate([p[key] for p in parts], axis).take(kept, axis)
      for key in parts[0]
    }

  def _each(self, a: Array) -> Array:
    """The same for all params."""
    if not self._lead:
      return a
    return self._mesh.split(jnp.broadcast_to(a, (*self._lead, *a.shape)))

  def _chunks(self) -> Iterator[tuple[dict, np.ndarray]]:
    return chunks(self._batch, self._size, self._mesh.size)

  def _explain(self, name: str, apply_fn: ApplyFn, params: Params) -> Explain:
    """The map as a function of x and y, with its noise fixed."""
    settings = self._settings
    return functools.partial(
      maps()[name], apply_fn, params,
      key=keys.stream(SEED, 'map'), target=settings.target,
      **self._options.get(name, {}),
    )  # fmt: skip

  def _map(self, name, params, x, y) -> Array:
    with numerics.exact():
      return self._explain(name, self._apply_fn, params)(x, y)

  def _ball(self, eps: Array) -> dict[str, Any]:
    settings = self._settings
    return {'eps': eps, 'norm': settings.norm, 'k': settings.k}

  def _attacked(self, name, objective, params, x, key, eps) -> dict[str, Array]:
    """The attack on the map of the predicted class."""
    settings = self._settings
    predict = lambda x: self._apply_fn(params, x)[0]

    def surrogate(x: Array, y: Array, beta: Array) -> Array:
      smooth = functools.partial(self._smooth_fn, beta=beta)
      return self._explain(name, smooth, params)(x, y)

    with numerics.exact():
      return attacks.attack_attribution(
        key, self._explain(name, self._apply_fn, params), predict,
        x, jnp.argmax(predict(x), axis=-1), objective=objective,
        steps=settings.steps, restarts=settings.restarts,
        surrogate=surrogate if self._smooth_fn else None, **self._ball(eps),
      )._asdict()  # fmt: skip

  def _noisy(self, params, x, key, eps) -> dict[str, Array]:
    """Random signs, the same for every map; and what is predicted for x."""
    predict = lambda x: self._apply_fn(params, x)[0]
    with numerics.exact():
      y = jnp.argmax(predict(x), axis=-1)
      # Any map will do for an image that is drawn without looking at one.
      found = attacks.random_sign(
        key, lambda x, y: x, predict, x, y, **self._ball(eps)
      )
    return {'prediction': y, **found._asdict()}

  def _scores(
    self, params, batch, prediction, clean, changed
  ) -> dict[str, Array]:
    """Similarity of two maps [B], and the faithfulness of the first."""
    k, x = self._settings.k, batch['image']
    with numerics.exact():
      # Ranks are of the channel-summed absolute map, cosines of the signed.
      ranked = similarity.magnitude(clean), similarity.magnitude(changed)
      pixels = clean
      if clean.ndim == 2:  # ranked as it is compared: by its absolute value
        pixels = attribution.token_pixels(ranked[0], x)
      found = {
        'topk': similarity.topk_intersection(*ranked, k),
        'kendall': similarity.kendall_tau(*ranked),
        'spearman': similarity.spearman(*ranked),
        'cosine': similarity.cosine(clean, changed),
        'pearson': similarity.pearson(clean, changed),
        'faithfulness/deletion_auc': attribution.deletion_auc(
          self._apply_fn, params, x, prediction, pixels
        ),
        'faithfulness/entropy': attribution.entropy(clean),
      }
      if 'mask' in batch:
        found['faithfulness/mask_mass'] = attribution.mask_mass(
          pixels, batch['mask']
        )
    return found
