"""Curvature and ε50 over the learning rate, regime by regime: docs/study.md.

  python studies/regimes.py runs/interpolation runs/mnist10k …

A folder is a sweep (configs/sweeps: interpolation, recipe, transformers), or
holds several, of other activations for example, to be drawn in one row. Of the
first state that came to the sweep's training loss, or the last where there is
none such (`cooled`): λ_max of the training loss, ‖H_x‖ and ‖H_x‖/‖g_x‖ of the
predicted logit, and ε50, written to docs/study.png. Prints a table of means
over seeds, what goes with ε50 over networks, the gain of each attention kernel
over softmax and over itself with row sums, what a smaller batch changes at
equal η/B, and the verdict and estimate of every primary cell, with the links of
a chain.
"""

import collections
import itertools
import pathlib
import sys

import matplotlib
import numpy as np
from scipy import stats

from implicit_attr import claims

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
COLOURS = ('#440154', '#21918c', '#d1b100', '#3b528b', '#5ec962')
CELL = ('factor', 'attention', 'map', 'features')
FORM = {'loss': 'cross_entropy', 'activation': 'gelu'}
"""Of most networks; where another loss or activation is, a line names it."""
SHOWN = {
  'train_lambda_max': 'λ_max of the training loss',
  'input_lambda': '‖H_x‖ of the logit',
  'normalized_curvature': '‖H_x‖/‖g_x‖',
  'log2_eps50': 'ε50, in 1/255',
}


def value(record: dict, name: str) -> float:
  found = record.get(name, np.nan)
  return 255 * 2.0**found if name == 'log2_eps50' else found


def line(record: dict) -> str:
  """What is varied beside the rate."""
  if record['attention']:
    return record['attention']
  form = {'batch_size': f'batch {record["batch_size"]}'}
  form |= {key: record[key] for key in FORM if record[key] != FORM[key]}
  return ', '.join(form.values())


def hue(record: dict) -> tuple:
  """What has one colour, whatever the batch."""
  return record['attention'], record['activation'], record['loss']


def table(records: list[dict]) -> None:
  """One line a setting: means over its seeds."""
  setting = lambda r: (r['map'], r['other'], r['batch_size'], r['lr'])
  measures = 'accuracy | loss | λ_max | ‖H_x‖ | ‖H_x‖/‖g_x‖ | ε50 | above'
  print(f'map, batch or kernel, rate, seeds | {measures}')
  for _, alike in itertools.groupby(sorted(records, key=setting), setting):
    alike = list(alike)
    mean = lambda name, alike=alike: np.mean([value(r, name) for r in alike])
    first = alike[0]
    print(
      first['map'], line(first), f'{first["lr"]:g}', len(alike), '|',
      f'{mean("accuracy"):.3f} | {mean("train_loss"):.2g} |',
      f'{mean("train_lambda_max"):.3g} |',
      f'{mean("input_lambda"):.3g} | {mean("normalized_curvature"):.2f} |',
      f'{mean("log2_eps50"):.1f} |',
      f'{mean("censored_above"):.2f}',
    )  # fmt: skip


def beside_others(records: list[dict]) -> None:
  """Of each map and kernel, log2 ε50 less that under softmax, and without the
  sum over a row less that with it; mean over rates of a seed."""
  found = {
    tuple(r[key] for key in ('map', 'attention', 'seed', 'lr')): r['log2_eps50']
    for r in records
  }
  gains = collections.defaultdict(lambda: collections.defaultdict(list))
  for (name, kernel, seed, lr), value in found.items():
    for other in {'softmax', kernel.replace('_none', '_sum')} - {kernel}:
      if kernel and (name, other, seed, lr) in found:
        gain = value - found[name, other, seed, lr]
        gains[name, kernel, other][seed].append(gain)
  for (name, kernel, other), seeds in sorted(gains.items()):
    gain = np.array([np.mean(values) for values in seeds.values()])
    print(f'{name}, {kernel} less {other}: {interval(gain)}')


def at_equal_noise(records: list[dict]) -> None:
  """log2 ε50 of gradient maps where batches are smaller, less that where they
  are larger at the same η/B; mean over rates of a seed."""
  found = collections.defaultdict(dict)
  for r in records:
    if r['map'] == 'gradient':
      place = r['seed'], round(r['lr'] / r['batch_size'], 9)
      found[place][r['batch_size']] = r['log2_eps50']
  gains = collections.defaultdict(list)
  for (seed, *_), sizes in found.items():
    if len(sizes) > 1:
      gains[seed].append(sizes[min(sizes)] - sizes[max(sizes)])
  if gains:
    gain = np.array([np.mean(values) for values in gains.values()])
    print(f'at equal η/B, smaller batch less larger: {interval(gain)}')


def beside_radius(records: list[dict]) -> None:
  """Rank correlation of ε50 with each curvature, over rates and seeds."""
  gradient = [r for r in records if r['map'] == 'gradient']
  column = lambda name: np.array([value(r, name) for r in gradient])
  radius, found = column('log2_eps50'), []
  for name, title in list(SHOWN.items())[:3]:
    if np.ptp(curvature := column(name)) > 0:  # of a rectifier's logit it is 0
      rho = stats.spearmanr(curvature, radius).statistic
      found.append(f'{title} {rho:+.2f}')
  print(f'ε50 over {len(gradient)} networks with', ', '.join(found))


def interval(gain: np.ndarray) -> str:
  """Mean and half of the 95 % t interval over seeds."""
  width = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
  return f'{gain.mean():+.3f} ± {width:.3f}'


def draw(regimes: dict[str, list[dict]], path: pathlib.Path) -> None:
  figure, axes = plt.subplots(
    len(regimes), 4, figsize=(12, 2.5 * len(regimes)), squeeze=False,
    layout='constrained',
  )  # fmt: skip
  for row, (name, records) in zip(axes, regimes.items(), strict=True):
    lines = sorted({(hue(r), -r['batch_size'], line(r)) for r in records})
    hues = sorted({first for first, *_ in lines})
    largest = max(r['batch_size'] for r in records)
    for axis, (key, title) in zip(row, SHOWN.items(), strict=True):
      for first, size, label in lines:
        mine = [r for r in records if line(r) == label and value(r, key) > 0]
        if not mine:  # the input curvature of a network with rectifiers
          continue
        rates = sorted({r['lr'] for r in mine})
        each = {
          lr: [value(r, key) for r in mine if r['lr'] == lr] for lr in rates
        }
        centre = [np.exp(np.mean(np.log(each[lr]))) for lr in rates]
        colour = COLOURS[hues.index(first)]
        style = '-' if -size == largest else '--'
        axis.plot(rates, centre, style, color=colour, label=label)
        for lr in rates:
          axis.plot([lr] * len(each[lr]), each[lr], 'o', color=colour, ms=2)
      axis.set(xscale='log', yscale='log')
      axis.set_xticks(rates, [f'{lr:g}' for lr in rates])
      axis.minorticks_off()
      ticks = axis.get_yticks()
      low, high = axis.get_ylim()
      if high / low < 100:  # else hardly a power of ten is in it
        ticks = np.geomspace(low, high, 4)
        axis.set_yticks(ticks, [f'{t:.3g}' for t in ticks])
        axis.set_ylim(low, high)
      axis.spines[['top', 'right']].set_visible(False)
      axis.set_title(f'{name}: {title}', fontsize=9)
    row[0].legend(frameon=False, fontsize=8)
  figure.supxlabel(
    'learning rate; a dot a network, lines geometric means', fontsize=9
  )
  figure.savefig(path, dpi=120)


def verdicts(records: list[dict], rule: str) -> None:
  """The primary cells of every claim, with the links of a chain."""
  for verdict in claims.judge(records):
    for cell in verdict.cells:
      fields = cell.fields
      if fields.get('measure') == 'log2_eps50' and fields['rule'] == rule:
        e = cell.estimate
        print(
          verdict.claim.name,
          *(fields[key] for key in CELL if fields.get(key)),
          f'{cell.verdict}: {e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]',
        )  # fmt: skip
        if verdict.claim.test == 'chain':
          for name, e in cell.beside.items():
            print(f'  {name}: {e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]')


def main(folders: list[pathlib.Path]) -> None:
  drawn = {}
  for folder in folders:
    records, problems = claims.read(folder)
    for problem in problems:
      print(folder, problem)
    known = [r for r in records if np.isfinite(r.get('log2_eps50', np.nan))]
    rule = 'train_loss'
    if not any(r['rule'] == rule for r in known):
      rule = 'last'
    reached = [r for r in known if r['rule'] == rule]
    print(f'\n{folder.name}, {len({r["run"] for r in records})} runs, {rule}')
    table(reached)
    beside_others(reached)
    gradient = [r for r in reached if r['map'] == 'gradient']
    known = [r for r in gradient if np.isfinite(r['train_lambda_max'])]
    if len({r['lr'] for r in known}) > 1:
      drawn[folder.name] = known
    form = lambda r: tuple(r[key] for key in FORM)
    for some in sorted({form(r) for r in reached}):
      print(*some)
      beside_radius([r for r in reached if form(r) == some])
      at_equal_noise([r for r in reached if form(r) == some])
      verdicts([r for r in records if form(r) == some], rule)
  if drawn:
    draw(drawn, DOCS / 'study.png')


if __name__ == '__main__':
  main([pathlib.Path(folder) for folder in sys.argv[1:]])
