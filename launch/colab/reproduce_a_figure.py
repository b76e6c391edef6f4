# %% [markdown]
# # The edge of stability
#
# Full-batch descent with step size η is stable on a quadratic only while its
# curvature is below 2/η. Cohen et al.
# ([arXiv 2103.00065](https://arxiv.org/abs/2103.00065)) saw that training does
# not stay away from that edge: the curvature λ_max of the loss climbs to 2/η
# and hovers there. So the learning rate chooses the curvature. It is the first
# arrow of the argument that this code tests, and the left half of
# `docs/edge_of_stability.png`.

# %%
import pathlib

from matplotlib import pyplot as plt

from implicit_attr import report
from implicit_attr.configs import digits_edge
from implicit_attr.runtime import programs
from implicit_attr.train import experiment, loop
from implicit_attr.train.lanes import Lanes

SMALL = False
RATES = (0.2,) if SMALL else (0.1, 0.15, 0.2)
MOMENTUM = 0.0

# %% [markdown]
# ## One run a learning rate
#
# 500 digits, a tanh network, squared error, all examples in every step. λ_max
# is measured 100 times a run, by Lanczos started from the last eigenvector; the
# dense measurements of other runs are left out.

# %%
folders = {}
for rate in RATES:
  config = digits_edge.get_config('smoke' if SMALL else None)
  config.optim.update({'lr': rate, 'momentum': MOMENTUM})
  config.track.every = 'never'
  config.track.cheap_every = '2 steps' if SMALL else '1%'
  programs.set_effort(config.compile)
  name = f'edge_lr={rate}_momentum={MOMENTUM}' + '_small' * SMALL
  folders[rate] = pathlib.Path('runs', name)
  built = experiment.build(config.to_dict())
  loop.train(Lanes.of([built]), [folders[rate]])

# %% [markdown]
# ## The figure
#
# `param/edge` is where the step size stops being stable: 2/η, and with momentum
# β, 2 (1 + β)/η.

# %%
for rate, folder in folders.items():
  steps, values, edge = report.load(folder).series(
    'param/lambda_max', 'param/edge'
  )
  (line,) = plt.plot(steps, values, label=f'η = {rate}')
  plt.plot(steps, edge, '--', color=line.get_color())
  print(
    f'η = {rate}: λ_max over the edge at the end {values[-1] / edge[-1]:.2f}'
  )
plt.xlabel('updates')
plt.ylabel('λ_max [loss / parameter²]')
plt.ylim(bottom=0)
plt.legend()
plt.show()

# %% [markdown]
# ## Your turn
#
# Set `MOMENTUM = 0.9` at the top: the edge moves to 3.8/η. Does λ_max follow
# it? Or add `config.loss.name = 'cross_entropy'` to the loop, and a word to
# `name`: late in training λ_max may leave the edge again, downwards. Why could
# that be? (As the network gets sure, the softmax gets flat, and the loss with
# it.)
