"""A vision transformer on planted patterns, where the truth is a mask.

  python -m implicit_attr.main --config configs/planted_vit.py:attention=linear

`attention` is a name in `models.KERNELS`.
"""

from implicit_attr.configs import common


def get_config(arg=None):
  found = common.parse(arg, attention='softmax')
  config = common.base()
  config.data.update({'name': 'planted', 'difficulty': 'easy'})
  config.data.examples = 8000
  config.model.update({'name': 'vit', 'size': 'digits', 'readout': 'cls'})
  config.model.update({'patch': 4, 'attention': found['attention']})
  config.model.update({'mean': 0.5, 'std': 0.2})
  config.optim.update({'lr': 0.05, 'momentum': 0.9, 'warmup': '5%'})
  config.train.duration = '20 epochs'
  config.track.update({'every': '20%', 'examples': 32})
  config.evaluation.attributions = ('gradient', 'raw', 'rollout', 'chefer')
  if found['smoke']:
    common.smoke(config)
    config.model.depth = 1  # compiling is dear here
  return config
