"""Where does curvature settle while descending? Draws edge_of_stability.png.

  python -m implicit_attr.main --config configs/digits_edge.py \
    --config.optim.lr=0.1 --workdir runs/edge/full_0.1   # and 0.15, 0.2
  python -m implicit_attr.main --config configs/digits_edge.py \
    --config.optim.lr=0.05 --config.data.batch_size=10 \
    --config.train.duration='40000 steps' --config.track.sharpness_batches=64 \
    --workdir runs/edge/small_0.05
  python docs/edge_of_stability.py runs/edge

Reads metrics.jsonl only.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

COLOURS = ('#0072B2', '#E69F00', '#009E73')


def series(folder: pathlib.Path, key: str) -> tuple[list, list]:
  lines = [json.loads(s) for s in (folder / 'metrics.jsonl').open()]
  found = [(line['step'], line[key]) for line in lines if line.get(key)]
  return tuple(zip(*found, strict=True))


def main(root: pathlib.Path) -> None:
  figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3.4), layout='constrained'
  )
  for folder, colour in zip(sorted(root.glob('full_*')), COLOURS, strict=True):
    rate = float(folder.name.removeprefix('full_'))
    steps, values = series(folder, 'param/lambda_max')
    left.plot(steps, values, color=colour, label=f'λ_max, η = {rate:g}')
    left.axhline(2 / rate, color=colour, linestyle='--', linewidth=1)
    late = [rate * v for s, v in zip(steps, values, strict=True) if s >= 1500]
    print(f'full batch, lr {rate}: η λ_max in [{min(late):.2f}, {max(late):.2f}]')
  left.set_title('Full batch: λ_max settles at 2/η (dashed)', fontsize=10)
  (folder,) = root.glob('small_*')
  rate = float(folder.name.removeprefix('small_'))
  for key, name, colour in (
    ('param/batch_sharpness', 'batch sharpness', COLOURS[1]),
    ('param/lambda_max', 'λ_max', COLOURS[0]),
  ):
    steps, values = series(folder, key)
    right.plot(steps, values, color=colour, label=name)
    late = [v for s, v in zip(steps, values, strict=True) if s >= steps[-1] / 2]
    mean = rate * sum(late) / len(late)
    print(f'batches of 10, lr {rate}: η {name} {mean:.2f} over the second half')
  right.axhline(2 / rate, color='black', linestyle='--', linewidth=1)
  right.set_title(f'Batches of 10, η = {rate:g}; 2/η dashed', fontsize=10)
  for axis in (left, right):
    axis.set_xlabel('updates')
    axis.set_ylabel('curvature [loss / parameter²]')
    axis.set_ylim(bottom=0)
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
  path = pathlib.Path(__file__).parent / 'edge_of_stability.png'
  figure.savefig(path, dpi=140)
  print(path.name)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
