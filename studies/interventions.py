"""What changes in a trained ViT if one thing of its attention does: a figure.

  python studies/interventions.py runs/attention

Takes seed 0 of the larger learning rate of every kernel in a tree of
configs/sweeps/attention.py:digits. Left: W_Q and W_K times τ; how much of the
top 4 of 17 tokens of the class row of each head of the first block a random
step of 0.06 leaves (softmax does not see τ, until weights underflow and tie;
elu + 1 does). Middle: test accuracy with another
kernel at the same weights. Right: the same rows with and without their
normaliser. Writes interventions.png beside this file.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from implicit_attr import similarity
from implicit_attr.evaluation import evaluate
from implicit_attr.models import interventions
from implicit_attr.runs import records
from implicit_attr.train import experiment, frozen

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

COLOURS = {'softmax': '#0072B2', 'elu1_sum': '#D55E00', 'elu1_none': '#009E73'}
TAUS = (0.1, 0.3, 1.0, 2.0, 4.0)
EPS = 0.06
TOP = 4


def rows(apply_fn, params, x):
  """The class token's row of every head of the first block, [B H, L]."""
  found = apply_fn(params, x)[1]['attention'][0][:, :, 0]
  return found.reshape(-1, found.shape[-1])


def left_of_top(apply_fn, params, x, moved) -> float:
  a, b = (rows(apply_fn, params, z) for z in (x, moved))
  return float(similarity.topk_intersection(a, b, TOP).mean())


def main(root: pathlib.Path) -> None:
  figure, (left, middle, right) = plt.subplots(
    1, 3, figsize=(11, 3.4), layout='constrained'
  )
  trained = {}
  for kernel in COLOURS:
    folders = sorted(root.glob(f'digits-{kernel}/lr=*/seed_0'))
    built = experiment.build(records.continued(folders[-1], None))
    trained[kernel] = built, evaluate.find(built, folders[-1], 'last')
  built = trained['softmax'][0]
  batch = built.test_batch(len(built.test_set))
  x, y = jnp.asarray(batch['image']), batch['label']
  sign = jax.random.rademacher(jax.random.key(0), x.shape, x.dtype)
  moved = jnp.clip(x + EPS * sign, 0, 1)

  accuracies = np.zeros((len(COLOURS), len(COLOURS)))
  for i, (kernel, (built, state)) in enumerate(trained.items()):
    fun = jax.jit(frozen(built.module, state.model_state))
    kept = [
      left_of_top(fun, interventions.scale_scores(state.params, t), x, moved)
      for t in TAUS
    ]
    print(kernel, 'top 4 left:', dict(zip(TAUS, kept, strict=True)))
    left.plot(TAUS, kept, 'o-', color=COLOURS[kernel], label=kernel)
    for j, other in enumerate(COLOURS):
      swapped = interventions.swap_kernel(built.module, other)
      fun = jax.jit(frozen(swapped, state.model_state))
      logits = fun(state.params, x)[0]
      accuracies[i, j] = np.mean(np.argmax(logits, -1) == y)
  left.set(
    xscale='log', xlabel='τ', ylabel=f'top {TOP} left', ylim=(0, 1.02),
    title='W_Q and W_K times τ',
  )  # fmt: skip
  left.legend(frameon=False)

  middle.imshow(accuracies, cmap='cividis', vmin=0, vmax=1)
  for (i, j), value in np.ndenumerate(accuracies):
    dark = value < 0.6
    middle.text(
      j, i, f'{100 * value:.1f}', ha='center', va='center',
      color='white' if dark else 'black',
    )  # fmt: skip
  places, names = range(len(COLOURS)), list(COLOURS)
  middle.set_xticks(places, names)
  middle.set_yticks(places, names)
  middle.set(xlabel='read with', ylabel='trained with')
  middle.set_title('accuracy [%] at the same weights')
  print('accuracy', names, accuracies.round(3).tolist())

  built, state = trained['elu1_sum']
  free = interventions.without_normalizer(built.module)
  for module, label, colour in (
    (built.module, 'over its sum', COLOURS['elu1_sum']),
    (free, 'without', COLOURS['elu1_none']),
  ):
    fun = jax.jit(frozen(module, state.model_state))
    a = np.asarray(fun(state.params, x)[1]['attention'][0])
    sums = a.sum(-1).ravel()
    shown = sums / sums.mean()
    kept = left_of_top(fun, state.params, x, moved)
    print('elu1', label, 'row sums, sd over mean', shown.std(), 'top 4', kept)
    right.hist(
      shown, bins=np.linspace(0.4, 1.6, 61), color=colour, alpha=0.7,
      label=f'{label}: top {TOP} left {kept:.3f}',
    )  # fmt: skip
  right.set(
    yscale='log', xlabel='row sum over its mean', ylabel='rows',
    title='elu + 1 and its normaliser',
  )  # fmt: skip
  right.set_ylim(top=1e6)  # room for the legend
  right.legend(frameon=False)
  figure.savefig(DOCS / f'{pathlib.Path(__file__).stem}.png', dpi=120)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
