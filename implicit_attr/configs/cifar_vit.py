"""ViT-Tiny with 4x4 patches on CIFAR-10, a prepared set; for a GPU.

  python -m implicit_attr.main --config configs/cifar_vit.py:attention=linear \
    --config.data.data_dir=…

`attention` is a name in `models.KERNELS`. Not run whole: no GPU was at hand.
Its `:smoke` cuts the depth to 1, on planted images.
"""

from implicit_attr.configs import common


def get_config(arg=None):
  found = common.parse(arg, attention='softmax')
  config = common.base()
  config.data.update({'name': 'cifar10', 'batch_size': 128})
  config.data.augment = ('crop', 'flip')
  config.model.update({'name': 'vit', 'size': 'cifar', 'readout': 'cls'})
  config.model.depth = 12
  config.model.attention = found['attention']
  config.model.update({'mean': 0.473, 'std': 0.251})
  config.optim.update({'lr': 0.05, 'momentum': 0.9, 'schedule': 'cosine'})
  config.optim.warmup = '10%'
  config.train.duration = '100 epochs'
  config.train.milestones.update({'train_loss': 0.5, 'test_accuracy': 0.7})
  config.evaluation.attributions = ('gradient', 'raw', 'rollout', 'chefer')
  config.evaluation.eps = 8 / 255
  config.evaluation.radii = tuple(2.0**i / 255 for i in range(-2, 5))
  if found['smoke']:
    common.smoke(config)
    config.model.depth = 1
  return config
