"""Are attacks on attention maps as strong as those on gradients? The figure.

  python studies/attention_strength.py runs/attention

Takes seed 0 of the larger learning rate of the softmax and elu + 1 / sum arms
of a tree of configs/sweeps/attention.py:digits. All maps have 16 numbers, one a
patch (the gradient's are the sums of |g| over each), and the top 4 of them are
attacked, so that one share means the same for all. Each number of steps is an
attack of its own, one start, the label kept. 'raw, by scores' follows the
gradient of the scores before the normaliser and is judged by the map after it.
Writes attention_strength.png and .json beside this file.
"""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import tqdm

from implicit_attr import attacks, attribution
from implicit_attr.evaluation import evaluate
from implicit_attr.runs import records
from implicit_attr.train import experiment, frozen

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

KERNELS = {'softmax': 'softmax', 'elu1_sum': 'elu + 1 over its sum'}
COLOURS = {
  'gradient': '#000000',
  'raw': '#0072B2',
  'raw, by scores': '#56B4E9',
  'rollout': '#D55E00',
  'chefer': '#009E73',
}
STEPS, RESTARTS, EXAMPLES, EPS, TOP = (5, 20, 50, 200), 1, 64, 0.03, 0.25
KEY = jax.random.key(0)


def patches(a: jax.Array, side: int) -> jax.Array:
  """Sums of |a| [B, H, W, C] over squares, [B, H W / side²]."""
  b, h, w, c = a.shape
  cut = jnp.abs(a).reshape(b, h // side, side, w // side, side, c)
  return cut.sum((2, 4, 5)).reshape(b, -1)


def explanations(apply_fn, params, patch: int) -> dict:
  """{name: (explain, surrogate or None)}."""

  def method(name, **options):
    method = attribution.ATTENTION_METHODS[name]
    return lambda x, y: method(apply_fn, params, x, y, **options)

  def gradient(x, y):
    return patches(
      attribution.METHODS['gradient'](apply_fn, params, x, y), patch
    )

  scores = method('raw', scores=True)
  found = {name: (method(name), None) for name in ('raw', 'rollout', 'chefer')}
  found['gradient'] = gradient, None
  found['raw, by scores'] = method('raw'), lambda x, y, beta: scores(x, y)
  return {name: found[name] for name in COLOURS}


def curves(folder: pathlib.Path, bar: tqdm.tqdm) -> dict:
  """{map: {'random': mean, 'topk': mean by steps, 'se': its error}}."""
  built = experiment.build(records.continued(folder, None))
  state = evaluate.find(built, folder, 'last')
  apply_fn = frozen(built.module, state.model_state)
  predict = lambda x: apply_fn(state.params, x)[0]
  batch = built.test_batch(2 * EXAMPLES)
  x, y = jnp.asarray(batch['image']), jnp.asarray(batch['label'])
  right = np.flatnonzero(jnp.argmax(predict(x), -1) == y)[:EXAMPLES]
  x, y, found = x[right], y[right], {}
  made = explanations(apply_fn, state.params, built.module.patch)
  for name, (explain, surrogate) in made.items():
    run = functools.partial(
      attacks.attack_attribution,
      KEY,
      explain,
      predict,
      eps=EPS,
      k=TOP,
      objective='topk',
      rule='sign',
      restarts=RESTARTS,
      surrogate=surrogate,
    )
    chance = jax.jit(
      lambda x, y, explain=explain: (
        attacks.random_sign(KEY, explain, predict, x, y, eps=EPS, k=TOP).score
      )
    )(x, y)
    line = {'random': float(jnp.mean(chance)), 'topk': [], 'se': []}
    for steps in STEPS:
      score = np.asarray(
        jax.jit(
          lambda x, y, steps=steps, run=run: run(x, y, steps=steps).score
        )(x, y)
      )
      line['topk'].append(float(score.mean()))
      line['se'].append(float(score.std(ddof=1) / np.sqrt(len(score))))
      bar.update()
    found[name] = line
  return found


def draw(found: dict, path: pathlib.Path) -> None:
  figure, axes = plt.subplots(
    1, len(KERNELS), figsize=(8.5, 3.4), sharey=True, layout='constrained'
  )
  for axis, (kernel, title) in zip(axes, KERNELS.items(), strict=True):
    for name, colour in COLOURS.items():
      line = found[kernel][name]
      axis.errorbar(
        STEPS, line['topk'], line['se'],
        color=colour, marker='o', markersize=3, label=name,
      )  # fmt: skip
      axis.axhline(line['random'], color=colour, linestyle=':', linewidth=0.8)
    axis.set(title=title, xscale='log', ylim=(0, 1), xlabel='attack steps')
    axis.set_xticks(STEPS, STEPS)
    axis.minorticks_off()
    axis.spines[['top', 'right']].set_visible(False)
  axes[0].set_ylabel('top 4 of 16 patches left')
  axes[-1].legend(
    frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1, 1)
  )
  figure.savefig(path, dpi=120)


def main(root: pathlib.Path) -> None:
  where = DOCS / pathlib.Path(__file__).name
  total = len(KERNELS) * len(COLOURS) * len(STEPS)
  found = {'steps': STEPS, 'eps': EPS, 'restarts': RESTARTS}
  with tqdm.tqdm(total=total, unit='attack') as bar:
    for kernel in KERNELS:
      folder = sorted(root.glob(f'digits-{kernel}/lr=*/seed_0'))[-1]
      found[kernel] = curves(folder, bar)
  where.with_suffix('.json').write_text(json.dumps(found, indent=1) + '\n')
  draw(found, where.with_suffix('.png'))


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
