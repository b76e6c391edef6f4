"""Is each target the number that its name says, and safe to differentiate?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution


def test_targets_are_what_their_names_say():
  logits = np.array([[1.0, 3.0, -2.0], [0.5, 0.5, 4.0]])
  y = np.array([1, 0])
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  wanted = {
    'logit': [3.0, 0.5],
    'margin': [2.0, -3.5],
    'log_prob': np.log(p[[0, 1], y]),
    'prob': p[[0, 1], y],
    'loss': -np.log(p[[0, 1], y]),
  }
  assert set(wanted) == set(attribution.TARGETS)
  for name, value in wanted.items():
    found = attribution.target(name, jnp.asarray(logits), jnp.asarray(y))
    np.testing.assert_allclose(found, value, rtol=1e-6)


@pytest.mark.parametrize('name', ['log_prob', 'prob', 'loss'])
def test_targets_stay_finite_for_extreme_logits(name):
  logits = jnp.array([[1e4, -1e4, 0.0]])
  fun = lambda z: attribution.target(name, z, jnp.array([1])).sum()
  value, slope = jax.value_and_grad(fun)(logits)
  assert np.isfinite(value) and np.all(np.isfinite(slope))
