"""What does every explicit route regularise, beside what it was made for?

  python studies/regularised.py runs/explicit

The numbers of Wen, Li & Jia (arXiv 2011.07478; see companions.md) for every
finished run of configs/sweeps/explicit.py:small, plain SGD included. Writes
regularised.md beside this file.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
from companions_wen import RADIUS, behaviour, spectra
from frontier import IMPLICIT, arms, restored

from implicit_attr import diagnostics, train
from implicit_attr.train import experiment

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

WEIGHTS = ('first', 'conv_1', 'hidden', 'logits')
COLUMNS = (
  'clean', 'PGD', 'margin', 'confidence', 'loss gap',
  *(f'std {name}' for name in WEIGHTS), 'change first', 'change logits',
)  # fmt: skip


def measure(row: dict, apply_fn) -> list[float]:
  """The numbers of `COLUMNS` for one run, over both whole sets."""
  built = experiment.build(row['config'])
  params = jax.tree.map(jnp.asarray, restored(built, row['workdir']).params)
  both = [
    jax.tree.map(jnp.asarray, s.examples(range(len(s))))
    for s in (built.train_set, built.test_set)
  ]
  (seen, new), (moved, _), robust = behaviour(apply_fn, params, *both)
  ratio = jnp.nanmean(moved.change / moved.size[None], 1)
  values = spectra(params)
  spread = [float(diagnostics.spread(values[name]).std) for name in WEIGHTS]
  return [
    1 - float(jnp.mean(new.error)), float(robust), float(jnp.mean(new.margin)),
    float(jnp.mean(new.confidence)),
    float(diagnostics.gaps(seen, new)['loss']), *spread, float(ratio[0]),
    float(ratio[-1]),
  ]  # fmt: skip


def main(root: str) -> None:
  rows = arms(pathlib.Path(root))
  first = experiment.build(rows[0]['config'])
  apply_fn = train.frozen(first.module, {})  # that of every run
  rows.sort(key=lambda row: row['method'] != IMPLICIT)
  lines = [
    f'| | {" | ".join(COLUMNS)} |',
    '|---' * (len(COLUMNS) + 1) + '|',
  ]
  for done, row in enumerate(rows, 1):
    cells = [f'{value:.3g}' for value in measure(row, apply_fn)]
    name = f'{row["method"]}, {row["level"]}'
    lines.append(f'| {name} | {" | ".join(cells)} |')
    print(f'{done}/{len(rows)} {lines[-1]}', flush=True)
  lines += [
    '',
    f'{len(rows)} runs, one seed each, all images; PGD of 20 steps and the '
    f'change of features ‖Δφ‖ / ‖Δx‖ under it at ε = {RADIUS:g} in ℓ∞; *std* '
    'is that of the singular values of a layer, convolutions as operators '
    'with their zero padding.',
  ]
  path = DOCS / f'{pathlib.Path(__file__).stem}.md'
  before, _, rest = path.read_text().partition('<!-- table -->\n')
  after = rest.partition('<!-- end -->')[2]
  text = '\n'.join(['<!-- table -->', *lines, '<!-- end -->'])
  path.write_text(before + text + after)


if __name__ == '__main__':
  main(sys.argv[1])
