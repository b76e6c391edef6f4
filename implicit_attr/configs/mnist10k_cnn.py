"""A convolutional network on 8,000 of MNIST's test images, a prepared set.

  python -m implicit_attr.main --config configs/mnist10k_cnn.py \
    --config.data.data_dir=…

Seen: 97.9 % test accuracy (2,000 images, seed 0); 8 minutes of training on
two busy cores of an AMD EPYC. Its `:smoke` takes digits, which
every machine has.
"""

from implicit_attr.configs import common


def get_config(arg=None):
  found = common.parse(arg)
  config = common.base()
  config.data.name = 'mnist10k'
  config.model.update({'width': 16, 'depth': 3, 'hidden': 64})
  config.model.downsample = 'stride'
  config.optim.lr = 0.1
  config.train.duration = '40 epochs'
  config.track.update({'every': '20%', 'examples': 32})
  return common.smoke(config) if found['smoke'] else config
