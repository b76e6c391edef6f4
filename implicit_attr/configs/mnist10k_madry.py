"""The MNIST network of Madry et al. on 8,000 of MNIST's test images.

  python -m implicit_attr.main --config configs/mnist10k_madry.py \
    --config.data.data_dir=…

3.3 million parameters. The default is smooth (gelu, average pooling), so that
attacks follow the very map; `:network=published` is theirs, ReLU with
max-pooling, and is attacked through a softplus surrogate. Its `:smoke` takes
digits. For the published methods see configs/sweeps/explicit.py:madry.
"""

from implicit_attr.configs import common

NETWORKS = {
  'smooth': {'activation': 'gelu', 'pool': 'avg'},
  'published': {'activation': 'relu', 'pool': 'max'},
}


def get_config(arg=None):
  found = common.parse(arg, network='smooth')
  if found['network'] not in NETWORKS:
    allowed = ', '.join(NETWORKS)
    raise ValueError(f'network={found["network"]!r}; allowed: {allowed}')
  config = common.base()
  config.data.name = 'mnist10k'
  config.model.update({'name': 'madry', 'width': 32, 'hidden': 1024})
  config.model.update(NETWORKS[found['network']])
  config.optim.lr = 0.1
  config.train.duration = '20 epochs'
  config.track.update({'every': '20%', 'examples': 32})
  return common.smoke(config) if found['smoke'] else config
