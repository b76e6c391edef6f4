"""Strength of our attack on attribution maps beside other objectives, four
times its steps and four restarts, and random signs, at every radius.

  python -m implicit_attr.main --config digits_cnn --workdir runs/digits_cnn
  python -m implicit_attr.main --config digits_vit --workdir runs/digits_vit
  python studies/attack_strength.py runs/digits_cnn runs/digits_vit

Any run will do whose config has `evaluation.radii`; of a ReLU network every
objective is lowered through its surrogate, as in evaluations. Label kept,
shares left of the clean top-k set, images as the run has them. 'default' is
what evaluations do (`evaluation.steps` and `restarts` of the run); every other
objective is given its steps, restarts and rule, and 'topk, signs' the steps of
Ghorbani et al. (arXiv 1710.10547) as well. 'floor' has four times the steps; it
and 'default' are means over three keys. Prints, and writes to
attack_strength.json and .png under docs, a line for each map.
"""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from implicit_attr import attacks, keys, numerics, train
from implicit_attr.attacks import map_losses
from implicit_attr.evaluation import evaluate
from implicit_attr.runs import records
from implicit_attr.runtime.progress import Progress
from implicit_attr.train import experiment
from implicit_attr.train.settings import maps

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
EXAMPLES = 64
GRADIENT_MAPS = (
  'gradient', 'gradient_x_input', 'integrated_gradients', 'smoothgrad',
)  # fmt: skip
ATTENTION_MAPS = ('gradient', 'raw', 'rollout', 'chefer')
KEYS = jax.random.split(jax.random.key(0), 3)
COMPARED = ('default', 'floor')
"""Of all three keys: half a per cent of the top-k set is one draw's luck."""
STYLES = {
  'random signs': {'color': '0.4', 'linestyle': ':'},
  'topk, signs': {'color': '#E69F00', 'marker': 'o'},
  'default': {'color': 'black', 'marker': 'o'},
}


def load(workdir: pathlib.Path) -> tuple:
  """(apply_fn, its surrogate or None, params, images, its `evaluation`)."""
  config = records.read_config(workdir)['config']
  built = experiment.build(config)
  state = evaluate.find(built, workdir, 'last')
  assert state is not None, f'{workdir} has no checkpoint'
  apply_fn = train.frozen(built.module, state.model_state)
  x = jnp.asarray(built.test_batch(EXAMPLES)['image'])
  smooth_fn = built.smooth_apply_fn(state.model_state)
  return apply_fn, smooth_fn, state.params, x, config['evaluation']


def panel(apply_fn, smooth_fn, params, x, settings: dict, name: str) -> dict:
  """{attack: share left at each radius}, means over the images."""

  def map_of(fun):
    return functools.partial(
      maps()[name], fun, params, key=keys.stream(0, 'map'),
      target=settings['target'], **settings['options'].get(name, {}),
    )  # fmt: skip

  def surrogate(x, y, beta):
    return map_of(functools.partial(smooth_fn, beta=beta))(x, y)

  explain = map_of(apply_fn)
  predict = lambda x: apply_fn(params, x)[0]
  y = jnp.argmax(predict(x), -1).astype(jnp.int32)
  radii = jnp.asarray(settings['radii'], x.dtype)
  steps, restarts = settings['steps'], settings['restarts']
  own = {
    'objective': 'border', 'steps': steps, 'restarts': restarts,
    'surrogate': surrogate if smooth_fn else None,
  }  # fmt: skip
  tried = {
    'default': own,
    'floor': {**own, 'steps': 4 * steps, 'restarts': max(4, restarts)},
    'topk, signs': {**own, 'objective': 'topk', 'rule': 'sign'},
  }
  left_out = {*map_losses.TARGETED, 'border'}
  if jax.eval_shape(explain, x, y).ndim < 3:  # tokens have no centre
    left_out.add('mass_centre')
  for other in map_losses.OBJECTIVES:
    if other not in left_out:
      tried[other] = {**own, 'objective': other}

  @functools.partial(jax.jit, static_argnums=0)
  def left(attack: str, x: jax.Array, key: jax.Array) -> jax.Array:
    def at(eps):
      problem = key, explain, predict, x, y
      ball = {'eps': eps, 'k': settings['k']}
      if attack == 'random signs':
        return attacks.random_sign(*problem, **ball).score.mean()
      found = attacks.attack_attribution(*problem, **ball, **tried[attack])
      return found.score.mean()

    with numerics.exact():
      return jax.lax.map(at, radii)

  progress = Progress(name, 0, len(tried) + 1, every=5)
  found = {}
  for i, attack in enumerate(['random signs', *tried], start=1):
    draws = KEYS if attack in COMPARED else KEYS[:1]
    share = np.mean([left(attack, x, key) for key in draws], axis=0)
    found[attack] = share.round(4).tolist()
    progress.say(i)
  return found


def main(workdirs: list[pathlib.Path]) -> None:
  lines = []
  for workdir in workdirs:
    apply_fn, smooth_fn, params, x, settings = load(workdir)
    out = jax.eval_shape(apply_fn, params, x)[1]
    for name in ATTENTION_MAPS if 'attention' in out else GRADIENT_MAPS:
      left = panel(apply_fn, smooth_fn, params, x, settings, name)
      gap = max(np.subtract(left['default'], left['floor']))
      steps = settings['steps']
      line = {'network': workdir.name, 'map': name, 'n': len(x), 'steps': steps}
      lines.append({**line, 'radii': list(settings['radii']), 'left': left})
      print(f'{workdir.name} {name}: default - floor at most {gap:.3f}')
      for attack, share in left.items():
        print(f'  {attack:14s}', *(f'{value:.3f}' for value in share))
  where = DOCS / pathlib.Path(__file__).name
  where.with_suffix('.json').write_text(json.dumps(lines, indent=1) + '\n')
  draw(lines, where.with_suffix('.png'))


def draw(lines: list[dict], path: pathlib.Path) -> None:
  """One panel a network and map; grey area: below the strongest of all."""
  rows = -(-len(lines) // 4)
  figure, axes = plt.subplots(
    rows, 4, figsize=(12, 2.7 * rows), sharey=True, layout='constrained',
    squeeze=False,
  )  # fmt: skip
  for axis in axes.flat[len(lines) :]:
    axis.set_axis_off()
  for line, axis in zip(lines, axes.flat, strict=False):
    radii, left = 255 * np.array(line['radii']), dict(line['left'])
    strongest = np.min(list(left.values()), axis=0)
    axis.fill_between(radii, 0, strongest, color='0.88', linewidth=0)
    left.pop('floor')
    for attack, share in left.items():
      style = STYLES.get(attack, {'color': '#56B4E9', 'alpha': 0.6})
      first = attack in STYLES or attack == 'topk'
      label = {'topk': 'other objectives'}.get(attack, attack) if first else ''
      axis.plot(
        radii, share, linewidth=1.2, markersize=3, label=label,
        zorder=3 if attack == 'default' else 2, **style,
      )  # fmt: skip
    title = f'{line["network"]}, {line["map"].replace("_", " ")}'
    axis.set_title(title, fontsize=9)
    axis.set_xscale('log', base=2)
    axis.set_xticks(radii, [f'{r:g}' for r in radii])
    axis.set_ylim(0, 1)
    axis.spines[['top', 'right']].set_visible(False)
  axes.flat[0].legend(frameon=False, fontsize=7)
  figure.supxlabel('radius, in 1/255 of the range of a pixel', fontsize=10)
  figure.supylabel('share of the top-k set that is left', fontsize=10)
  figure.savefig(path, dpi=110)


if __name__ == '__main__':
  main([pathlib.Path(workdir) for workdir in sys.argv[1:]])
