"""Are the spectrum and its two parts those of dense matrices?"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from implicit_attr import train
from implicit_attr.configs import digits_mlp
from implicit_attr.evaluation.spectrum import Spectrum
from implicit_attr.train import experiment


@pytest.fixture(scope='module')
def measured():
  """(numbers, arrays, dense H, dense G) of a small network."""
  config = digits_mlp.get_config('smoke')
  config.model.widths = (6,)
  config.evaluation.curvature = 100
  built = experiment.build(config.to_dict())
  state, spectrum = built.init(), Spectrum(built)
  numbers, arrays = spectrum(state)
  batch = built.probe_batch(128)
  flat, unravel = ravel_pytree(state.params)
  apply_fn = train.frozen(built.module, state.model_state)
  model = lambda t: apply_fn(unravel(t), batch['image'])[0]
  loss = lambda logits: jnp.mean(built.loss(logits, batch['label']))
  whole = jax.jit(jax.hessian(lambda t: loss(model(t))))(flat)
  jacobian = jax.jit(jax.jacobian(model))(flat).reshape(-1, len(flat))
  middle = jax.jit(jax.hessian(loss))(model(flat))
  part = jacobian.T @ middle.reshape(2 * jacobian.shape[:1]) @ jacobian
  assert spectrum(state)[0] == numbers  # and compiled once: `Program`
  return numbers, arrays, np.array(whole), np.array(part)


def test_the_spectrum_over_microbatches_is_that_of_the_dense_hessian(measured):
  numbers, arrays, whole, _ = measured
  assert numbers['examples'] == 128  # rounded up to microbatches of 64
  values = np.linalg.eigvalsh(whole)
  np.testing.assert_allclose(numbers['top'], values[::-1][:5], rtol=2e-3)
  np.testing.assert_allclose(numbers['bottom'][0], values[0], rtol=5e-2)
  error = abs(numbers['trace'] - np.trace(whole))
  assert error < 4 * numbers['trace_se']
  mass = np.trapezoid(arrays['density'], arrays['grid'])
  assert mass == pytest.approx(1, abs=0.05)
  json.dumps(numbers)


def test_both_parts_of_the_hessian_are_those_of_the_dense_ones(measured):
  numbers, _, whole, part = measured
  for name, dense in (('gauss_newton', part), ('residual', whole - part)):
    found, values = numbers[name], np.linalg.eigvalsh(dense)
    np.testing.assert_allclose(found['top'], values[::-1][:5], rtol=5e-3)
    assert abs(found['trace'] - np.trace(dense)) < 4 * found['trace_se'] + 1e-6


def test_the_traces_of_the_parts_add_up(measured):
  numbers = measured[0]
  parts = numbers['gauss_newton']['trace'] + numbers['residual']['trace']
  assert parts == pytest.approx(numbers['trace'], rel=1e-4)
