"""Attribution robustness: maps under attack, and under noise of that size.

Attack and random signs as in `attacks` (Ghorbani et al., arXiv 1710.10547),
similarities of the maps before and after, and the faithfulness of the clean
map beside them; each a compiled program that serves any parameters.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import attacks, attribution, errors, keys, numerics
from implicit_attr.evaluation import scores
from implicit_attr.evaluation.aggregate import BASELINE, arrays, row
from implicit_attr.evaluation.chunks import chunks
from implicit_attr.evaluation.radii import over_radii
from implicit_attr.runtime import dist
from implicit_attr.runtime.programs import Program
from implicit_attr.train.settings import Evaluation, maps
from implicit_attr.types import ApplyFn, Array, Batch, Explain, Params

SEED = 0
"""Attacks and noise start alike in every arm, so that arms are paired."""


class Robustness:
  """The attacks that `settings` name, as compiled programs, for any params.

  What maps share (noise, similarities, faithfulness) is compiled once, a map
  once. Noise and prediction are made once a chunk of the batch, the clean map,
  its faithfulness and what noise does to it once a map.

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
    self._maps = {m: bound(self.explain, (), m) for m in settings.attributions}
    like = settings.k, tuple(settings.similarities)
    shapes = {m in attribution.ATTENTION_METHODS for m in self._maps}
    self._alike = {t: bound(scores.similar, (0,), *like) for t in shapes}
    self._faith = {t: bound(scores.faithful, (1,), apply_fn) for t in shapes}
    self._attacks = {
      (m, o): bound(self._attacked, drawn, m, o)
      for m in settings.attributions
      for o in settings.attacks
    }
    swept = settings.attributions if settings.radii else ()
    self._sweeps = {
      (m, o): bound(self._swept, (1, 2), m, o)
      for m in swept
      for o in (*settings.attacks, BASELINE)
    }
    self.jobs = len(self._attacks)

  def __call__(self, params: Params) -> Iterator[tuple[list[dict], dict]]:
    """Yields (rows, arrays) of each attribution and attack."""
    self.prepare(params)
    for name, objective, examples in self.measured(params):
      yield self.table(name, objective, examples)

  def measured(
    self, params: Params
  ) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """Yields (attribution, attack, all about the examples [*lead, n, ...])."""

    def fetched(fun: Callable[..., dict], *parts: list[dict]) -> list[dict]:
      """fun(params, i, chunk, its parts) of each chunk, on the host."""
      given = enumerate(zip(self._chunks(), *parts, strict=True))
      return [
        self._mesh.fetch(fun(params, i, self._mesh.split(chunk), *part))
        for i, (chunk, *part) in given
      ]

    noise = fetched(self._of_noise)
    for name in self._maps:
      of_map = functools.partial(self._of_map, name)
      clean = fetched(of_map, noise)
      for objective in self._settings.attacks:
        attack = functools.partial(self._of_attack, name, objective)
        attacked = fetched(attack, noise, clean)
        parts = zip(noise, clean, attacked, strict=True)
        yield name, objective, self._joined([a | b | c for a, b, c in parts])

  def table(
    self, name: str, objective: str, examples: dict[str, np.ndarray]
  ) -> tuple[list[dict], dict]:
    """(rows, arrays) for one params: the attack, and after the last one of a
    map the random signs that all of them stand beside."""
    whole: dict[str, Any] = {**self._batch, **examples}
    last = objective == self._settings.attacks[-1]
    rows = [
      row(name, attack, whole, self._settings)
      for attack in (objective, *([BASELINE] if last else []))
    ]
    return rows, arrays(name, objective, whole)

  def check(self, params: Params) -> None:
    """Raises InputError for what a map or an attack refuses, by its shapes."""
    chunk = next(self._chunks())
    last = keys.stream(SEED, BASELINE), np.float32(0)
    for name, objective in self._attacks:
      attack = functools.partial(self._attacked, name, objective)
      try:
        jax.eval_shape(attack, params, chunk['image'], *last)
      except errors.InputError as e:
        field = f'evaluation.attributions: {name}'
        raise errors.InputError(f'{field}: {e}') from e

  def prepare(self, params: Params) -> None:
    """Begins to compile maps, attacks and scores."""
    batch = self._mesh.split(next(self._chunks()))
    each, labels = self._each(batch['image']), self._each(batch['label'])
    last = keys.stream(SEED, BASELINE, 0), np.float32(0)
    for program in self._attacks.values():
      program.prepare(params, batch['image'], *last)
    for program in self._sweeps.values():
      program.prepare(params, batch['image'], last[0])
    for program in self._maps.values():
      program.prepare(params, each, labels)
    self._noise.prepare(params, batch['image'], *last)
    # A map of tokens is not known before a network was asked for one.
    if False in self._alike:
      self._alike[False].prepare(batch['image'], each, each)
      self._faith[False].prepare(params, batch, labels, each)

  def _chunks(self) -> Iterator[Batch]:
    for chunk, _ in chunks(self._batch, self._size, self._mesh.size):
      yield chunk

  def _each(self, a: Array) -> Array:
    """The same for all params."""
    if not self._lead:
      return a
    return self._mesh.split(jnp.broadcast_to(a, (*self._lead, *a.shape)))

  def _joined(self, parts: list[dict]) -> dict[str, np.ndarray]:
    """Chunks end to end; the padding cut off."""
    axis, kept = len(self._lead), np.arange(len(self._batch['label']))
    return {
      key: np.concatenate([p[key] for p in parts], axis).take(kept, axis)
      for key in parts[0]
    }

  def _drawn(self, what: str, i: int) -> tuple[Array, np.float32]:
    """The key of chunk `i`, and the radius."""
    return keys.stream(SEED, what, i), np.float32(self._settings.eps)

  def _of_noise(self, params, i, batch) -> dict[str, Array]:
    """Of chunk `i`: what is predicted, and random signs."""
    noise = self._noise(params, batch['image'], *self._drawn(BASELINE, i))
    return {
      'prediction': noise['prediction'],
      f'adv/{BASELINE}': noise['x_adv'],
      f'kept/{BASELINE}': noise['kept'],
    }

  def _of_map(self, name, params, i, batch, noise) -> dict[str, Array]:
    """Of chunk `i`: the clean map, its faithfulness, and the noisy map."""
    prediction = self._mesh.split(noise['prediction'])
    clean = self._map(name, params, self._each(batch['image']), prediction)
    faith = self._faith[name in attribution.ATTENTION_METHODS]
    shares = faith(params, batch, prediction, clean)
    return {
      'map/clean': clean,
      **{f'faithfulness/{metric}': a for metric, a in shares.items()},
      **self._changed(name, BASELINE, params, batch, noise, clean),
      **self._radii(name, BASELINE, params, i, batch),
    }

  def _of_attack(
    self, name, objective, params, i, batch, noise, clean
  ) -> dict[str, Array]:
    """Of chunk `i`: the attack, and the map after it."""
    drawn = self._drawn(f'{name}/{objective}', i)
    attack = self._attacks[name, objective](params, batch['image'], *drawn)
    adv = {f'adv/{objective}': attack['x_adv']}
    clean = self._mesh.split(clean['map/clean'])
    return {
      f'curve/{objective}': self._mesh.split(
        jnp.swapaxes(attack['curve'], -1, -2)
      ),
      f'stalled/{objective}': attack['stalled'],
      f'kept/{objective}': attack['kept'],
      **adv,
      **self._changed(name, objective, params, batch, noise | adv, clean),
      **self._radii(name, objective, params, i, batch),
    }

  def _radii(self, name, kind, params, i, batch) -> dict[str, Array]:
    """Of chunk `i`: the radius that leaves half, and the curves over radii."""
    if not self._sweeps:
      return {}
    # One draw of signs for all maps; a start of its own for each attack.
    what = kind if kind == BASELINE else f'{name}/{kind}'
    sweep, image = self._sweeps[name, kind], batch['image']
    return sweep(params, image, self._drawn(what, i)[0])

  def _changed(self, name, kind, params, batch, examples, clean) -> dict:
    """The map of what an attack or noise left, and how like `clean` it is."""
    prediction = self._mesh.split(examples['prediction'])
    changed = self._map(name, params, examples[f'adv/{kind}'], prediction)
    alike = self._alike[name in attribution.ATTENTION_METHODS]
    values = alike(batch['image'], clean, changed)
    return {
      f'map/{kind}': changed,
      **{f'score/{kind}/{metric}': a for metric, a in values.items()},
    }

  def _map(self, name, params, x, prediction) -> Array:
    split = self._mesh.split  # one program's layout is not the next one's
    return split(self._maps[name](params, split(x), prediction))

  def explain(self, name: str, params: Params, x: Array, y: Array) -> Array:
    """The map `name` of x for the classes y, as it is attacked."""
    with numerics.exact():
      return self._explain(name, self._apply_fn, params)(x, y).astype(x.dtype)

  def _explain(self, name: str, apply_fn: ApplyFn, params: Params) -> Explain:
    """The map as a function of x and y, with its noise fixed."""
    settings = self._settings
    return functools.partial(
      maps()[name], apply_fn, params,
      key=keys.stream(SEED, 'map'), target=settings.target,
      **self._options.get(name, {}),
    )  # fmt: skip

  def _ball(self, eps: Array) -> dict[str, Any]:
    return {'eps': eps, 'norm': self._settings.norm, 'k': self._settings.k}

  def _attacked(self, name, objective, params, x, key, eps) -> dict[str, Array]:
    """The attack on the map of the predicted class."""
    settings = self._settings
    predict = lambda x: self._apply_fn(params, x)[0]
    with numerics.exact():
      return attacks.attack_attribution(
        key, self._explain(name, self._apply_fn, params), predict,
        x, jnp.argmax(predict(x), axis=-1), objective=objective,
        steps=settings.steps, restarts=settings.restarts,
        surrogate=self._surrogate(name, params), **self._ball(eps),
      )._asdict()  # fmt: skip

  def _swept(self, name, kind, params, x, key) -> dict[str, Array]:
    """The attack, or random signs, at every radius."""
    return over_radii(
      kind, key, self._explain(name, self._apply_fn, params),
      lambda x: self._apply_fn(params, x)[0], x, self._settings,
      self._surrogate(name, params),
    )  # fmt: skip

  def _surrogate(self, name: str, params: Params) -> attacks.Surrogate | None:
    """x, y, beta -> the map of the smooth network, where there is one."""
    fun: Any = self._smooth_fn
    smooth = lambda beta: functools.partial(fun, beta=beta)
    like = lambda x, y, beta: self._explain(name, smooth(beta), params)(x, y)
    return like if fun else None

  def _noisy(self, params, x, key, eps) -> dict[str, Array]:
    """Random signs, the same for every map; and what is predicted for x."""
    predict = lambda x: self._apply_fn(params, x)[0]
    with numerics.exact():
      # int32 as labels are, whatever jax_enable_x64 is.
      y = jnp.argmax(predict(x), axis=-1).astype(jnp.int32)
      signs = attacks.random_sign(
        key, lambda x, y: x, predict, x, y, **self._ball(eps)
      )
    return {'prediction': y, **signs._asdict()}
