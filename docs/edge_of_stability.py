"""Where does λ_max settle under full-batch descent? At 2/η: draws the figure.

  for lr in 0.1 0.15 0.2; do
    python -m implicit_attr.main --config configs/digits_edge.py \
      --config.optim.lr=$lr --workdir runs/edge/full_$lr
  done
  python docs/edge_of_stability.py runs/edge

Reads metrics.jsonl only. Seen on two cores of an Intel Xeon at 2.5 GHz, from
update 1500 on: η λ_max in [1.96, 2.07], [1.95, 2.07] and [1.94, 2.10].
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

COLOURS = ('#0072B2', '#E69F00', '#009E73')


def main(root: pathlib.Path) -> None:
  figure, axis = plt.subplots(figsize=(6, 3.6), layout='constrained')
  for folder, colour in zip(sorted(root.glob('full_*')), COLOURS, strict=True):
    rate = float(folder.name.removeprefix('full_'))
    lines = [json.loads(s) for s in (folder / 'metrics.jsonl').open()]
    lines = [line for line in lines if 'param/lambda_max' in line]
    steps = [line['step'] for line in lines]
    values = [line['param/lambda_max'] for line in lines]
    axis.plot(steps, values, color=colour, label=f'η = {rate:g}')
    axis.axhline(2 / rate, color=colour, linestyle='--', linewidth=1)
    late = [rate * v for s, v in zip(steps, values, strict=True) if s >= 1500]
    print(f'lr {rate}: η λ_max in [{min(late):.2f}, {max(late):.2f}]')
  axis.set_title('λ_max of full-batch descent settles at 2/η (dashed)')
  axis.set_xlabel('updates')
  axis.set_ylabel('λ_max [loss / parameter²]')
  axis.set_ylim(bottom=0)
  axis.spines[['top', 'right']].set_visible(False)
  axis.legend(frameon=False)
  path = pathlib.Path(__file__).parent / 'edge_of_stability.png'
  figure.savefig(path, dpi=120)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
