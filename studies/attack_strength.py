"""Is our attack strong enough? Success over steps and restarts: the figure.

  python -m implicit_attr.main --config configs/cifar_cnn.py \
    --config.data.name=cifar10_jpeg --config.data.data_dir=… \
    --workdir runs/strength
  python studies/attack_strength.py runs/strength

One network, the gradient map, ε of the run's config, the label kept. Each
number of steps is an attack of its own, as its step size depends on it; all
select by top-k intersection, whatever they descend. Steps are varied at the
default restarts, restarts at the default steps. Writes attack_strength.png and
.json beside this file.
"""

import functools
import inspect
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import tqdm

from implicit_attr import attacks, attribution, train
from implicit_attr.attacks import map_losses
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints
from implicit_attr.train import experiment

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

EXAMPLES = 16
STEPS = (10, 20, 50, 100, 200, 500)
RESTARTS = (1, 2, 3, 5, 10)
DEFAULT = {
  name: inspect.signature(attacks.attack_attribution).parameters[name].default
  for name in ('steps', 'restarts')
}
KEY = jax.random.key(0)
COLOURS = {'steps': '#0072B2', 'restarts': '#E69F00'}


def load(workdir: pathlib.Path) -> tuple:
  """(explain, predict, images, their labels, eps): all predicted rightly."""
  config = records.read_config(workdir)['config']
  built = experiment.build(config)
  kept = Checkpoints(workdir / 'checkpoints' / 'last')
  state = kept.restore(kept.steps()[-1], {'state': built.like()})[0]['state']
  kept.close()
  apply_fn = train.frozen(built.module, state.model_state)
  predict = lambda x: apply_fn(state.params, x)[0]
  explain = lambda x, y: attribution.METHODS['gradient'](
    apply_fn, state.params, x, y
  )
  batch = built.test_batch(2 * EXAMPLES)
  x, y = jnp.asarray(batch['image']), jnp.asarray(batch['label'])
  right = np.flatnonzero(jnp.argmax(predict(x), -1) == y)[:EXAMPLES]
  return explain, predict, x[right], y[right], config['evaluation']['eps']


def goal(name: str, clean: jax.Array) -> jax.Array | None:
  """What a targeted objective aims at: a corner, or another image's map."""
  corner = jnp.zeros(clean.shape[1:3], bool).at[:8, :8].set(True)
  others = {
    'target_region': jnp.broadcast_to(corner, clean.shape[:3]),
    'target_map': jnp.roll(clean, 1, 0),
  }
  return others.get(name)


def main(workdir: pathlib.Path) -> None:
  explain, predict, x, y, eps = load(workdir)
  clean = explain(x, y)
  chance = attacks.random_sign(KEY, explain, predict, x, y, eps=eps).score
  found = {'random_sign': float(jnp.mean(chance)), 'n': len(x), 'eps': eps}
  todo = [(name, n) for name in map_losses.OBJECTIVES for n in STEPS]
  for name, steps in (bar := tqdm.tqdm(todo)):
    bar.set_postfix_str(f'{name}, {steps} steps')
    most = RESTARTS[-1] if steps == DEFAULT['steps'] else DEFAULT['restarts']
    run = functools.partial(
      attacks.attack_attribution,
      KEY,
      explain,
      predict,
      eps=eps,
      objective=name,
      target=goal(name, clean),
      steps=steps,
      restarts=most,
    )
    each = jax.jit(lambda x, y, run=run: run(x, y).restart_score)(x, y)
    # Restart r is the same whatever comes after it.
    best = np.minimum.accumulate(np.asarray(each))
    for n in RESTARTS if most > DEFAULT['restarts'] else [most]:
      found.setdefault(name, []).append(
        {
          'steps': steps,
          'restarts': n,
          'topk': float(best[n - 1].mean()),
          'se': float(best[n - 1].std(ddof=1) / np.sqrt(len(x))),
        }
      )
  where = DOCS / pathlib.Path(__file__).name
  where.with_suffix('.json').write_text(json.dumps(found, indent=1) + '\n')
  draw(found, where.with_suffix('.png'))


def draw(found: dict, path: pathlib.Path) -> None:
  """One panel an objective; filled dots are the default setting."""
  figure, axes = plt.subplots(
    2, 6, figsize=(13, 4.6), sharex=True, sharey=True, layout='constrained'
  )
  names = [name for name in map_losses.OBJECTIVES if name in found]
  for name, axis in zip(names, axes.flat, strict=False):
    axis.axhline(found['random_sign'], color='0.5', linestyle=':', linewidth=1)
    for varied, other in (('steps', 'restarts'), ('restarts', 'steps')):
      line = [s for s in found[name] if s[other] == DEFAULT[other]]
      line.sort(key=lambda s: s[varied])
      axis.errorbar(
        [s['steps'] * s['restarts'] for s in line],
        [s['topk'] for s in line],
        [s['se'] for s in line],
        color=COLOURS[varied],
        marker='o',
        markersize=3,
        linewidth=1.2,
        label=f'more {varied}',
      )
    default = next(
      s for s in found[name] if all(s[key] == DEFAULT[key] for key in DEFAULT)
    )
    gradients = default['steps'] * default['restarts']
    axis.plot(gradients, default['topk'], 'ko', markersize=6)
    axis.set(title=name, xscale='log', ylim=(0, 1))
    axis.spines[['top', 'right']].set_visible(False)
  axes[0, 0].legend(frameon=False, fontsize=8)
  figure.supxlabel('attack gradients an image (steps × restarts)', fontsize=10)
  figure.supylabel('top-k intersection left', fontsize=10)
  figure.suptitle(
    f'Black: the default ({DEFAULT["steps"]} steps, {DEFAULT["restarts"]} '
    'restarts). Dotted: signs at random.',
    fontsize=10,
  )
  figure.savefig(path, dpi=120)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
