"""A small smooth network on CIFAR-10, a prepared set.

  python -m implicit_attr.main --config configs/cifar_cnn.py \
    --config.data.name=cifar10_jpeg --config.data.data_dir=…

Seen, on CIFAR-10 re-encoded as JPEG (10,000 test images, seed 0): 73.5 % test
accuracy; 23 minutes of training on two busy cores of an AMD EPYC, of which
tracking took 7.2 %.
"""

from implicit_attr.configs import common


def get_config(arg=None):
  found = common.parse(arg)
  config = common.base()
  config.data.update({'name': 'cifar10', 'batch_size': 128})
  config.data.augment = ('crop', 'flip')
  config.model.update({'width': 16, 'depth': 3, 'activation': 'gelu'})
  config.model.update({'mean': 0.473, 'std': 0.251})
  config.optim.update({'lr': 0.05, 'momentum': 0.9, 'schedule': 'cosine'})
  config.train.duration = '10 epochs'
  config.train.milestones.update({'train_loss': 0.8, 'test_accuracy': 0.7})
  config.evaluation.eps = 4 / 255
  config.evaluation.radii = tuple(2.0**i / 255 for i in range(-2, 5))
  return common.smoke(config) if found['smoke'] else config
