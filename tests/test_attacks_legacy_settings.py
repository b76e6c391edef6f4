"""Are settings and counts of the legacy protocols the published ones?"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution, errors
from implicit_attr.attacks import legacy

SIDE, CLASSES, B = 4, 3, 5
KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(SIDE * SIDE, CLASSES)), jnp.float32)
X = jnp.asarray(RNG.uniform(size=(B, SIDE, SIDE, 1)), jnp.float32)


def apply_fn(params, x, beta=None):
  """Logits whose gradient depends on x; smooth, so its own surrogate."""
  return jnp.sin(3 * x.reshape(x.shape[0], -1) @ params), {}


NET = legacy.Network(apply_fn, W, attribution.METHODS)
Y = NET.label(X)


def test_wrong_predictions_are_skipped_by_three_and_counted_by_two():
  y = Y.at[0].set((Y[0] + 1) % CLASSES)
  small = {
    'ghorbani': {'k': 4}, 'rar_mnist': {'k': 4, 'k_report': 4, 'points': 2},
    'art_cifar': {'k': 4, 'points': 2}, 'robust_aga': {'frame': 1},
    'dombrowski': {},
  }  # fmt: skip
  for name, options in small.items():
    result = legacy.PROTOCOLS[name](KEY, NET, X, y, steps=2, **options)
    skips = name in ('ghorbani', 'rar_mnist', 'art_cifar')
    assert bool(result.counted[0]) != skips, name
    assert int(result.n) + int(result.dropped) == B
    kept = result.topk[np.asarray(result.counted)].mean()
    np.testing.assert_allclose(result.mean('topk'), kept)


PUBLISHED = {
  'ghorbani': {
    'eps': 8 / 255, 'step_size': 0.5 / 255, 'steps': 300, 'k': 1000,
    'beta': 1.0,
  },
  'rar_mnist': {
    'eps': 0.3, 'step_size': 0.01, 'steps': 100, 'k': 200, 'k_report': 100,
    'points': 100, 'attempts': 3, 'beta': 1.0,
  },
  'rar_fmnist': {'eps': 0.1, 'k': 100},
  'art_cifar': {
    'eps': 8 / 255, 'step_size': 1 / 255, 'steps': 50, 'k': 100, 'points': 100,
    'beta': 50.0,
  },
  'dombrowski': {
    'lr': 2e-4, 'steps': 1500, 'gammas': (1e11, 1e6), 'betas': (10.0, 100.0),
    'beta_growth': True, 'unit': 0.225, 'method': 'gradient', 'k': 0.1,
    'target_x': None,
  },
  'robust_aga': {
    'eps': 4 / 255, 'steps': 100, 'gamma': 0.5, 'beta': 20.0, 'frame': 5,
    'unit': 0.2, 'method': 'gradient', 'k': 0.1,
  },
}  # fmt: skip


@pytest.mark.parametrize('name', PUBLISHED)
def test_the_settings_are_the_published_ones(name):
  assert legacy.PROTOCOLS.keys() == PUBLISHED.keys()
  found = {
    key: p.default
    for key, p in inspect.signature(legacy.PROTOCOLS[name]).parameters.items()
    if p.kind is p.KEYWORD_ONLY
  }
  assert found == PUBLISHED[name]


def test_bad_input_ends_with_one_line_that_names_it():
  for name, protocol in legacy.PROTOCOLS.items():
    with pytest.raises(errors.InputError, match="^x='in"):
      protocol(KEY, NET, X + 2, Y)
    with pytest.raises(errors.InputError, match='^y=9'):
      protocol(KEY, NET, X, Y * 0 + 9)
    if name in ('ghorbani', 'rar_mnist', 'rar_fmnist', 'art_cifar'):
      with pytest.raises(errors.InputError, match='^k=.*<= 16'):
        protocol(KEY, NET, X, Y)
  with pytest.raises(errors.InputError, match='^frame=5'):
    legacy.robust_aga(KEY, NET, X, Y)
