"""A small vision transformer on digits; `:attention=linear` and others."""

from configs import common


def get_config(arg=None):
  found = common.parse(arg, attention='softmax')
  config = common.base()
  config.model.update({'name': 'vit', 'size': 'digits', 'readout': 'cls'})
  config.model.attention = found['attention']
  config.model.update({'mean': 0.3, 'std': 0.38})
  config.optim.update({'lr': 0.05, 'momentum': 0.9, 'warmup': '5%'})
  config.train.duration = '100 epochs'
  config.track.update({'every': '20%', 'examples': 32})
  return common.smoke(config) if found['smoke'] else config
