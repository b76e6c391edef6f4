"""A small convolutional network on scikit-learn's digits, by plain SGD."""

from configs import common


def get_config(arg=None):
  found = common.parse(arg)
  config = common.base()
  config.model.update({'width': 16, 'depth': 2, 'hidden': 64})
  config.model.downsample = 'stride'
  config.train.duration = '300 epochs'
  return common.smoke(config) if found['smoke'] else config
