"""Full-batch descent on squared error: λ_max climbs to 2/η and stays there.

  python -m implicit_attr.main --config configs/digits_edge.py

Seen for η = 0.1, 0.15, 0.2: η λ_max in [1.99, 2.06], [2.00, 2.11] and [2.00,
2.11] from update 1500 on.
Measures λ_max 100 times, a quarter to a half of the training time. Feeds
docs/edge_of_stability.png.
"""

from implicit_attr.configs import common


def get_config(arg=None):
  found = common.parse(arg)
  config = common.base()
  config.model.update({'name': 'mlp', 'widths': (64, 64)})
  config.model.activation = 'tanh'
  config.loss.name = 'squared_error'
  config.data.update({'subset': 500, 'batch_size': 500})
  config.optim.lr = 0.1
  config.train.update({'duration': '3000 steps', 'eval_every': '2%'})
  config.train.milestones.update({'train_loss': 0.02, 'test_accuracy': 0.9})
  config.track.update({'every': '5%', 'cheap_every': '1%', 'examples': 500})
  return common.smoke(config) if found['smoke'] else config
