"""Small batches on squared error: batch sharpness settles at 2/η, λ_max below.

  python -m implicit_attr.main --config configs/cifar_edge.py \
    --config.data.name=cifar10_jpeg --config.data.data_dir=…

Feeds docs/edge_of_stability.png. Seen, on 2,000 images of CIFAR-10 re-encoded
as JPEG, over the second half of the updates: η × batch sharpness 1.95 [1.70,
2.10] and η λ_max 1.54 for batches of 16 at η = 0.04; 1.70 [1.40, 2.15] and 1.60
at η = 0.02; 1.64 [1.48, 1.92], still rising, and 0.94 for batches of 8 at η =
0.02. Six to ten minutes each on two busy cores of an AMD EPYC.
"""

from implicit_attr.configs import common


def get_config(arg=None):
  found = common.parse(arg)
  config = common.base()
  config.model.update({'name': 'mlp', 'widths': (128, 128)})
  config.model.update({'activation': 'tanh', 'mean': 0.473, 'std': 0.251})
  config.loss.name = 'squared_error'
  config.data.update({'name': 'cifar10', 'subset': 2000, 'batch_size': 16})
  config.optim.lr = 0.02
  config.train.update({'duration': '24000 steps', 'eval_every': '2%'})
  config.train.milestones.update({'train_loss': 0.02, 'test_accuracy': 0.9})
  # 128 batches: single ones differ by as much as their mean.
  config.track.update({'every': '4%', 'examples': 2000})
  config.track.sharpness_batches = 128
  config.evaluation.attributions = ('gradient',)
  config.evaluation.checkpoints = ('last',)
  if found['smoke']:
    common.smoke(config)
    config.data.subset = None  # of fewer images
  return config
