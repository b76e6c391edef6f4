"""Networks as other people write them, for tests: of equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp


class CNN(eqx.Module):
  """Batch norm and dropout, on one image with channels first."""

  conv: eqx.nn.Conv2d
  norm: eqx.nn.BatchNorm
  drop: eqx.nn.Dropout
  head: eqx.nn.Linear
  offsets: jax.Array

  def __init__(self, num_classes, width=8, *, key):
    first, last = jax.random.split(key)
    self.conv = eqx.nn.Conv2d(1, width, 3, key=first)
    self.norm = eqx.nn.BatchNorm(width, axis_name='batch', mode='batch')
    self.drop = eqx.nn.Dropout(0.5)
    self.head = eqx.nn.Linear(width, num_classes, key=last)
    self.offsets = jnp.arange(width)

  def __call__(self, x, state, key):
    x, state = self.norm(self.conv(x), state)
    x = jax.nn.relu(x).mean((1, 2)) + 0 * self.offsets
    return self.head(self.drop(x, key=key)), state


class MLP(eqx.Module):
  """No state, no key, no mode."""

  layers: eqx.nn.MLP

  def __init__(self, num_classes, *, key):
    self.layers = eqx.nn.MLP(64, num_classes, 8, 1, key=key)

  def __call__(self, x):
    return self.layers(jnp.ravel(x))
