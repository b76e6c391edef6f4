# %% [markdown]
# # What is in the folder of a run?
#
# Everything a run found is in plain files: JSON lines, JSON and npz. This
# notebook reads them with `report.load`, which never fails on a file that is
# missing or cut short, and looks at numbers that the report does not show.
#
# Point `WORKDIR` at a run of yours. If there is none, the run of the quickstart
# is made.

# %%
import pathlib

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from implicit_attr import report
from implicit_attr.configs import digits_mlp
from implicit_attr.run import build, train

SMALL = False
WORKDIR = pathlib.Path('runs', 'quickstart_lr=0.05' + '_small' * SMALL)

# %%
if not (WORKDIR / 'evaluation').is_dir():
  config = digits_mlp.get_config('smoke' if SMALL else None)
  config.evaluation.eps = 0.1
  train(build([config.to_dict()]), [WORKDIR])
  report.write(WORKDIR)

# %% [markdown]
# ## What was run, and how did it end?

# %%
run = report.load(WORKDIR)
print('ended:', run.status)
print('learning rate:', run.setting('optim.lr'))
print('not there or not readable:', run.problems or 'nothing')
for event in run.events:
  print(event)

# %% [markdown]
# ## Anything over time
#
# `run.series` gives a logged value wherever there is one.

# %%
print('logged:', *sorted({name for line in run.lines for name in line}))

# %%
KEYS = ('param/lambda_max', 'param/trace')
figure, axes = plt.subplots(1, len(KEYS), figsize=(9, 3), layout='constrained')
for axis, key in zip(axes, KEYS, strict=True):
  steps, values = run.series(key)
  axis.plot(steps, values, 'o-')
  axis.set(title=key, xlabel='updates')
plt.show()

# %% [markdown]
# ## Single examples
#
# The npz of an evaluation has the score of every attacked test image, so that
# two runs can be compared image by image. Wrongly labelled ones do not count.

# %%
examples = run.evaluations['last'].examples
right = examples['correct/gradient']
for attack in ('border', 'random_sign'):
  kept = examples[f'score/gradient/{attack}/topk'][right]
  plt.hist(kept, np.linspace(0, 1, 21), alpha=0.6, label=attack)
plt.xlabel('share of the top-k set of the gradient map that is kept')
plt.ylabel('images')
plt.legend()
plt.show()

# %% [markdown]
# Curvature in the pixels was measured for each of the tracked training images.

# %%
last = sorted((WORKDIR / 'probes').glob('*.npz'))[-1]
with np.load(last) as probe:
  print(last.name, {name: probe[name].shape for name in probe.files})
  plt.plot(probe['input/grad_norm'], probe['input/lambda_max'], '.')
plt.xlabel('length of the gradient of the logit, per pixel')
plt.ylabel('norm of its Hessian, per pixel²')
plt.show()

# %% [markdown]
# ## The figures of the report
#
# are PNGs beside it. Here: parameter curvature against normalised input
# curvature, over the run.

# %%
print(*sorted(path.stem for path in (WORKDIR / 'figures').glob('*.png')))
Image.open(WORKDIR / 'figures' / 'relation_normalised.png')

# %% [markdown]
# ## Your turn
#
# Which images does the attack hurt most? This prints the worst. Change
# `METRIC` to 'kendall' or 'cosine': are they the same images?

# %%
METRIC = 'topk'
scores = examples[f'score/gradient/border/{METRIC}'].copy()
scores[~right] = np.inf
for place in np.argsort(scores)[:5]:
  print(f'image {place}: {METRIC} {scores[place]:.2f}')
