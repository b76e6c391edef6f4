"""What does adversarial training regularise? Wen, Li & Jia.

arXiv 2011.07478: margins and confidences, singular values of every layer,
features under perturbation and gaps, over the strength of adversarial training;
and the same numbers for the implicit and some explicit routes.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from companions_nets import (
  CNN,
  SEEDS,
  apply_of,
  correlation,
  digits,
  fit,
  interval,
  objective,
  say,
)
from matplotlib import pyplot as plt

from implicit_attr import attacks, diagnostics

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

STEPS = 440
RADIUS = 0.1
"""ℓ∞ radius of the perturbation under which features are looked at."""
STRENGTHS = (0.03, 0.06, 0.1, 0.15)
PLAIN = 'plain'
ARMS = {
  PLAIN: ('none', 0.0, {}, {}),
  'lr × 4': ('none', 0.0, {}, {'lr': 0.2}),
  **{
    f'PGD-AT ε={e}': ('pgd', e, {'steps': 5, 'step': 0.5}, {})
    for e in STRENGTHS
  },
  'TRADES ε=0.1': ('trades', 0.1, {'steps': 5, 'step': 0.5}, {}),
  'SCORPIO ε=0.1': ('scorpio', 0.1, {}, {}),
  'gradient penalty': ('gradient_penalty', 0.3, {}, {}),
  'alignment': ('gradient_alignment', 1.0, {'eps': 0.05}, {}),
}
INPUTS = {'first': ((8, 8), 1), 'conv_1': ((8, 8), 2)}
"""Size and stride of what each convolution sees."""
LAYERS = ('first', 'conv_1', 'logits')
RELATED = (
  'accuracy', 'margin', 'confidence', 'gap loss', 'gap error', 'std first',
  'std conv_1', 'std hidden', 'std logits', 'change first, attack',
  'change logits, attack',
)  # fmt: skip
"""What is correlated with the strength."""


@jax.jit
def spectra(params):
  """Layer -> singular values; for convolutions circular ones beside."""
  found = {}
  for name, layer in params.items():
    kernel = layer['kernel']
    if name not in INPUTS:
      found[name] = diagnostics.dense_singular_values(kernel)
      continue
    hw, stride = INPUTS[name]
    found[name] = diagnostics.convolution_singular_values(
      kernel, hw, jax.random.key(0), stride=stride
    )
    found[f'{name}, circular'] = diagnostics.circular_singular_values(
      kernel, hw, stride
    )
  return found


@functools.partial(jax.jit, static_argnums=0)
def behaviour(apply_fn, params, train_set, test_set):
  """(train and test predictions, feature change under PGD and under noise)."""
  both = [
    diagnostics.predictions(apply_fn, params, b['image'], b['label'])
    for b in (train_set, test_set)
  ]
  x, y = test_set['image'], test_set['label']
  predict = lambda x: apply_fn(params, x)[0]
  key = jax.random.key(0)
  found = attacks.pgd(key, predict, x, y, eps=RADIUS, steps=20)
  signs = jnp.clip(
    x + RADIUS * jax.random.rademacher(key, x.shape, x.dtype), 0, 1
  )
  change = [
    diagnostics.feature_change(apply_fn, params, x, z)
    for z in (found.x_adv, signs)
  ]
  return both, change, jnp.mean(~found.fooled)


def main(done: int, total: int) -> dict:
  train_set, test_set = digits('train'), digits('test')
  runs, table = {}, {}
  for name, (kind, strength, options, optim) in ARMS.items():
    run = jax.jit(fit(CNN, objective(kind, **options), steps=STEPS, **optim))
    runs[name] = rows = []
    for seed in SEEDS:
      params = run(strength, seed)
      (seen, new), (moved, noise), robust = behaviour(
        apply_of(CNN), params, train_set, test_set
      )
      row = {
        'accuracy': 1 - float(jnp.mean(new.error)),
        'robust': float(robust),
        'margin': float(jnp.mean(new.margin)),
        'margin std': float(jnp.std(new.margin)),
        'confidence': float(jnp.mean(new.confidence)),
      }
      gaps = diagnostics.gaps(seen, new)
      row |= {f'gap {k}': float(gaps[k]) for k in ('loss', 'error')}
      values = spectra(params)
      for layer, found in values.items():
        s = diagnostics.spread(found)
        row[f'std {layer}'] = float(s.std)
        row[f'std/mean {layer}'] = float(s.std / s.mean)
        row[f'top {layer}'] = float(s.high)
      for kind_of, change in (('attack', moved), ('noise', noise)):
        # An image that is an error already is not moved.
        ratio = jnp.nanmean(change.change / change.size[None], 1)
        relative = jnp.nanmean(change.relative, 1)
        for i, layer in enumerate(LAYERS):
          row[f'change {layer}, {kind_of}'] = float(ratio[i])
          row[f'relative {layer}, {kind_of}'] = float(relative[i])
      row['kept'] = {
        'margin': np.asarray(new.margin),
        'confidence': np.asarray(new.confidence),
        'spectra': {k: np.asarray(v) for k, v in values.items()},
      }
      rows.append(row)
    table[name] = {
      k: interval([r[k] for r in rows]) for k in rows[0] if k != 'kept'
    }
    done += 1
    say(done, total, name)
  draw(runs, table)
  eps = [0.0, *STRENGTHS]
  names = [PLAIN, *(f'PGD-AT ε={e}' for e in STRENGTHS)]
  pick = lambda key: [r[key] for n in names for r in runs[n]]
  levels = [e for e in eps for _ in SEEDS]
  keys = RELATED
  relations = {f'{k} ~ eps': correlation(pick(k), levels, levels) for k in keys}
  return {'arms': table, 'relations': relations}


def draw(runs: dict, table: dict) -> None:
  figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), layout='constrained')
  strengths = [PLAIN, *(f'PGD-AT ε={e}' for e in STRENGTHS)]
  colours = plt.get_cmap('viridis')(np.linspace(0, 0.85, len(strengths)))
  for name, colour in zip(strengths, colours, strict=True):
    for axis, key in zip(axes[0], ('margin', 'confidence'), strict=False):
      values = np.concatenate([r['kept'][key] for r in runs[name]])
      axis.hist(
        values, 40, density=True, histtype='step', color=colour, label=name
      )
    values = np.sort(runs[name][0]['kept']['spectra']['conv_1'])[::-1]
    axes[0, 2].plot(values, color=colour)
  axes[0, 0].set(title='margin on test [logits]', ylabel='density')
  axes[0, 0].legend(frameon=False, fontsize=7)
  axes[0, 1].set(title='confidence on test', yscale='log')
  axes[0, 2].set(title='singular values of conv_1', xlabel='index')
  place = np.arange(len(ARMS))
  for axis, keys, title in (
    (
      axes[1, 0],
      ('std first', 'std conv_1', 'std hidden', 'std logits'),
      'std of singular values over plain',
    ),
    (
      axes[1, 1],
      tuple(f'change {layer}, attack' for layer in LAYERS),
      '‖Δφ‖ / ‖Δx‖ under PGD over plain',
    ),
    (axes[1, 2], ('gap loss', 'gap error'), 'test less train'),
  ):
    for i, key in enumerate(keys):
      mean, half = np.array([table[name][key] for name in ARMS]).T
      unit = mean[0] if axis is not axes[1, 2] else 1
      axis.errorbar(
        place + 0.12 * i, mean / unit, half / unit, fmt='o', markersize=3,
        capsize=2, label=key.removeprefix('change ').removesuffix(', attack'),
      )  # fmt: skip
    axis.set_title(title)
    axis.set_xticks(place, list(ARMS), rotation=60, ha='right', fontsize=7)
    axis.axhline(
      0 if axis is axes[1, 2] else 1, color='0.5', linestyle=':', linewidth=1
    )
    axis.legend(frameon=False, fontsize=7)
  for axis in axes.flat:
    axis.spines[['top', 'right']].set_visible(False)
  figure.savefig(DOCS / f'{pathlib.Path(__file__).stem}.png', dpi=120)
