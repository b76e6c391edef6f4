"""The keys every config has, their defaults, and what `:argument` means.

A section is the keyword arguments of one function; the comment names it. Any
single value is changed on the command line, `--config.optim.lr=0.1`; the
argument after the colon is for what changes several values at once.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def base() -> ml_collections.ConfigDict:
  """A fresh config: plain SGD on digits, tracked, attacked, reported."""
  return ml_collections.ConfigDict({
    'seed': 0,
    'parallel': 'jit',  # or 'pmap'; see implicit_attr/runtime/dist.py
    'compile': 'full',  # or 'quick': XLA optimises little, steps are slower
    'model': {  # models.build
      'name': 'cnn',  # or 'package.module:MyNet', its options below
      'activation': 'gelu',
      'beta': 10.0,  # of softplus and centred_softplus
      'mean': 0.0,  # of the pixels; the network standardises inside
      'std': 1.0,
    },
    'data': {  # data.load
      'name': 'digits',  # or 'npz:…', 'folder:…', 'package.module:function'
      'batch_size': 64,
      'data_dir': placeholder(str),  # a TFDS data_dir; TFDS's own if unset
      'label_noise': 0.0,  # share of training labels replaced
      'subset': placeholder(int),  # training examples kept; all if unset
      'augment': (),  # any of 'crop', 'flip'
    },
    'optim': {  # train.optimizer and train.learning_rates
      'name': 'sgd',
      'lr': 0.05,
      'momentum': 0.0,
      'nesterov': False,
      'weight_decay': 0.0,
      'schedule': 'constant',
      'warmup': 'never',
      'average': 0.0,  # decay of average weights, which are then measured
    },
    'loss': {'name': 'cross_entropy', 'label_smoothing': 0.0},  # losses.make
    'objective': {  # objectives.make
      'name': 'none',
      'weight': placeholder(float),  # the published one if unset
      'options': {},  # keyword arguments of the objective
    },
    'train': {  # loop.train
      'duration': '100 epochs',
      'log_every': '1%',
      'eval_every': '2%',
      # The first state at which each is reached is kept.
      'milestones': {'train_loss': 0.01, 'test_accuracy': 0.97},
      'stop_at': 'never',  # or a milestone: the run ends there
      # Any of 'tensorboard', 'wandb', 'mlflow', 'trackio', beside the record.
      'log_to': (),
      # Stored pixels beyond this are streamed, not kept on the device.
      'resident_bytes': 2 << 30,
      'precision': 'float32',  # or 'bfloat16', of the training passes alone
    },
    'track': {  # tracking.Tracker
      'every': '12.5%',  # all probes; also at milestones
      'cheap_every': 'never',  # λ_max from the last vector, gradient norms
      'examples': 64,
      'order': 20,  # at most this many products for λ_max
      # Residual / λ_max at which it stops: λ_max to 1e-3, at 2/η too, where
      # eigenvalues crowd and 0.01 left it off by up to 5 %.
      'tol': 0.002,
      'draws': 4,  # Rademacher probes of the trace
      'input_order': 8,  # at most this many for an example's input Hessian
      'input_tol': 0.03,
      'sharpness_batches': 4,
      # Training examples, at most all, for λ_max at milestones and the end.
      'whole': 0,
    },
    'evaluation': {  # evaluation.evaluate
      'attributions': (
        'gradient', 'gradient_x_input', 'integrated_gradients', 'smoothgrad',
      ),
      'options': {  # keyword arguments of each attribution
        'integrated_gradients': {'steps': 8},
        'smoothgrad': {'samples': 8, 'sigma': 0.1},
      },
      'target': 'logit',
      'attacks': ('border',),
      'eps': 0.03,  # in pixel units, of the range 0 to 1
      'radii': tuple(2.0**i / 255 for i in range(7)),  # for ε50; (): eps only
      'norm': 'linf',
      'steps': 30,
      'restarts': 4,
      'k': 0.1,  # share of the pixels in a top-k set
      'similarities': (),  # further columns: 'ssim', 'lens_recall'
      'examples': 128,
      'batch_size': 64,
      'checkpoints': ('last', 'train_loss', 'test_accuracy'),
      'curvature': 0,  # training examples for the Hessian spectrum; 0: none
      'certificates': False,  # radii that are proved, where a theorem applies
      'sanity': False,  # maps of random weights and labels; trains once more
    },
    'checkpoint': {'every': '20%', 'keep': 2},
  })  # fmt: skip


def smoke(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The same run cut to seconds: a few steps, a few examples, one map.

  Data that a machine may not have gives way to data made here: the images get
  small, the network stays the one of the config, save where a config says so.
  """
  name = config.data.name
  own = name.startswith(('npz:', 'folder:'))
  own |= name.partition(':')[2].isidentifier()  # a function, no version
  if name not in ('digits', 'planted') and not own:
    grey = name.startswith('mnist')
    config.data.name = 'digits' if grey else 'planted'
    config.data.data_dir = None
  if config.data.name == 'planted':
    config.data.update({'difficulty': 'easy', 'examples': 64})
  config.compile = 'quick'
  config.data.batch_size = 16
  config.train.update({'duration': '20 steps', 'log_every': '5 steps'})
  config.train.eval_every = '10 steps'
  config.train.milestones.update({'train_loss': 0.0, 'test_accuracy': 1.0})
  config.track.update({'every': '10 steps', 'cheap_every': 'never'})
  config.track.update({'examples': 8, 'order': 4})
  config.track.update({'draws': 2, 'input_order': 3, 'sharpness_batches': 2})
  config.evaluation.attributions = ('gradient',)
  config.evaluation.update({'steps': 3, 'restarts': 1, 'examples': 8})
  config.evaluation.radii = ()
  config.evaluation.update({'batch_size': 8, 'checkpoints': ('last',)})
  config.checkpoint.every = '10 steps'
  return config


def parse(arg: str | None, **known: str) -> dict[str, str]:
  """'smoke,attention=linear' -> {'smoke': True, 'attention': 'linear'}.

  Args:
    arg: what followed the colon of --config, or None.
    **known: the other arguments of this config, with their defaults.

  Raises:
    ValueError: an argument this config does not take.
  """
  found = {'smoke': False, **known}
  for part in filter(None, (arg or '').split(',')):
    name, _, value = part.partition('=')
    if name not in found or (name == 'smoke') == bool(value):
      allowed = ', '.join(['smoke', *(f'{name}=…' for name in known)])
      raise ValueError(f'config argument {part!r}; allowed: {allowed}')
    found[name] = value or True
  return found
