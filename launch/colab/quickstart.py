# %% [markdown]
# # Train, measure, attack, report
#
# A small network learns 8×8 digits by plain SGD. Meanwhile the curvature of
# its loss is measured, in the parameters and in the pixels. Then an adversary
# moves every pixel by at most a tenth of its range, so that the label stays and
# the explanation does not.
#
# `SMALL = True` makes it seconds instead of minutes; its numbers mean nothing.

# %%
import pathlib

from PIL import Image

from implicit_attr import report
from implicit_attr.configs import digits_mlp
from implicit_attr.run import build, train

SMALL = False
LR = 0.05

# %% [markdown]
# A config is nested numbers and names; a section is the keyword arguments of
# one function. Everything can be changed here, or on the command line as
# `--config.optim.lr=0.1`.

# %%
config = digits_mlp.get_config('smoke' if SMALL else None)
config.optim.lr = LR
config.evaluation.eps = 0.1
name = f'quickstart_lr={LR}' + '_small' * SMALL
workdir = pathlib.Path('runs', name)
print(config)

# %% [markdown]
# Train, attack, report: what `python -m implicit_attr.main` does. A run that
# was cut off goes on where it was; a finished one is not trained again.

# %%
train(build([config.to_dict()]), [workdir])
print(report.write(workdir), 'is the whole report, one page to open or send')

# %% [markdown]
# ## How much of a map survives?
#
# *Top-k kept* is the share of the ten percent strongest pixels that are still
# the strongest after the change; 1 is an unchanged map. Compare an attack with
# the random signs below it, which have the same size and no aim. Brackets are
# 95 % intervals over images.

# %%
run = report.load(workdir)
print(report.as_text(run.evaluations['last']))

# %% [markdown]
# Both images of a row get the same label. Do they get the same reason?

# %%
Image.open(workdir / 'figures' / 'maps_gradient.png')

# %% [markdown]
# ## Curvature
#
# λ_max is the largest eigenvalue of the Hessian of the loss in the parameters.
# Dashed: where a step of this size stops being stable on a quadratic.

# %%
Image.open(workdir / 'figures' / 'sharpness.png')

# %% [markdown]
# And the curvature in the pixels, divided by the length of the gradient: how
# far the direction of a gradient map turns for a small change of the image.

# %%
Image.open(workdir / 'figures' / 'input_normalized_curvature.png')

# %% [markdown]
# ## Your turn
#
# Set `LR = 0.2` at the top and run all cells again. Every learning rate has its
# folder, and this cell shows them beside each other. Two seeds (`config.seed`)
# of one learning rate differ as well, so a difference of two runs says little.
# For another network take `digits_cnn` or `digits_vit`, and another folder.

# %%
for folder in sorted(pathlib.Path('runs').glob('quickstart_lr=*')):
  print(folder.name)
  print(report.as_text(report.load(folder).evaluations['last']), end='\n\n')
