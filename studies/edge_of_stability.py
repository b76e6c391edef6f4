"""Which curvature does descent hold at 2/η? λ_max, or batch sharpness: figure.

  for lr in 0.1 0.15 0.2; do
    python -m implicit_attr.main --config configs/digits_edge.py \
      --config.optim.lr=$lr --workdir runs/edge/full_$lr
  done
  for arm in 16_0.02 16_0.04 8_0.02; do
    python -m implicit_attr.main --config configs/cifar_edge.py \
      --config.data.data_dir=… --config.data.batch_size=${arm%_*} \
      --config.optim.lr=${arm#*_} --workdir runs/edge/batch_$arm
  done
  python studies/edge_of_stability.py runs/edge

Left, full batches, digits (Cohen et al., arXiv 2103.00065): λ_max. Right, small
batches, 2,000 images of CIFAR-10 (Andreyev & Beneventano, arXiv 2412.20553):
batch sharpness (dots), and λ_max (lines), which stays below. Reads
metrics.jsonl only.
"""

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

COLOURS = ('#0072B2', '#E69F00', '#009E73')
LATE = {'full': 1500, 'batch': 12000}
"""Updates from which on the printed numbers are taken."""


def curve(folder: pathlib.Path, name: str) -> tuple[list[int], list[float]]:
  """(steps, values) of one metric where it was measured."""
  lines = [json.loads(s) for s in (folder / 'metrics.jsonl').open()]
  lines = [line for line in lines if name in line]
  return [line['step'] for line in lines], [line[name] for line in lines]


def late(steps: list[int], values: list[float], kind: str) -> str:
  found = [v for s, v in zip(steps, values, strict=True) if s >= LATE[kind]]
  return f'{statistics.mean(found):.2f} [{min(found):.2f}, {max(found):.2f}]'


def main(root: pathlib.Path) -> None:
  figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 3.6), layout='constrained'
  )
  for folder, colour in zip(sorted(root.glob('full_*')), COLOURS, strict=True):
    rate = float(folder.name.removeprefix('full_'))
    steps, values = curve(folder, 'param/lambda_max')
    left.plot(steps, values, color=colour, label=f'η = {rate:g}')
    left.axhline(2 / rate, color=colour, linestyle='--', linewidth=1)
    print(f'full batch, η {rate}: η λ_max', end=' ')
    print(late(steps, [rate * v for v in values], 'full'))
  left.set_title('Full batch: λ_max settles at 2/η (dashed)')
  left.set_ylabel('λ_max [loss / parameter²]')
  arms = sorted(root.glob('batch_*'))
  for folder, colour in zip(arms, COLOURS, strict=True):
    batch, rate = folder.name.removeprefix('batch_').split('_')
    for name, style in (('batch_sharpness', 'o'), ('lambda_max', '-')):
      steps, values = curve(folder, f'param/{name}')
      values = [float(rate) * v for v in values]
      label = f'batch {batch}, η = {rate}' if style == 'o' else None
      right.plot(steps, values, style, color=colour, markersize=4, label=label)
      print(f'batch {batch}, η {rate}: η {name}', late(steps, values, 'batch'))
  right.axhline(2, color='black', linestyle='--', linewidth=1)
  right.set_title('Small batches: batch sharpness (dots), not λ_max (lines)')
  right.set_ylabel('η × curvature')
  for axis in (left, right):
    axis.set_xlabel('updates')
    axis.set_ylim(bottom=0)
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(frameon=False)
  path = DOCS / 'edge_of_stability.png'
  figure.savefig(path, dpi=120)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
