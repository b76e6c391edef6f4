"""ResNet-8 with group normalisation on CIFAR-10, a prepared set.

  python -m implicit_attr.main --config configs/cifar_resnet8.py \
    --config.data.data_dir=…

Its `:smoke` is on planted images and without norm. A step of 128 images takes
0.27 s on two cores of an AMD EPYC, so that the whole run would take three
hours; it was not made.
"""

from implicit_attr.configs import common


def get_config(arg=None):
  found = common.parse(arg)
  config = common.base()
  config.data.update({'name': 'cifar10', 'batch_size': 128})
  config.data.augment = ('crop', 'flip')
  config.model.update({'name': 'resnet8', 'width': 16, 'norm': 'group'})
  config.model.update({'mean': 0.473, 'std': 0.251})
  config.optim.update({'lr': 0.1, 'momentum': 0.9, 'schedule': 'cosine'})
  config.optim.warmup = '5%'
  config.train.duration = '30 epochs'
  config.train.milestones.update({'train_loss': 0.5, 'test_accuracy': 0.8})
  config.evaluation.eps = 8 / 255
  config.evaluation.radii = tuple(2.0**i / 255 for i in range(-2, 5))
  if found['smoke']:
    common.smoke(config)
    config.model.norm = 'none'  # compiling is dear here
  return config
