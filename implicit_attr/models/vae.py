"""A small variational autoencoder of images (arXiv 1312.6114)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from implicit_attr.models import initial
from implicit_attr.types import Array


class VAE(nn.Module):
  """One hidden layer each way around a Gaussian code (arXiv 1312.6114).

  Decodes to pixels in 0 to 1. A model of the image manifold: what it cannot
  give back is far from the images it was trained on.
  """

  shape: tuple[int, ...]
  latent: int = 16
  hidden: int = 128

  init = initial.init

  def setup(self):
    size = 1
    for n in self.shape:
      size *= n
    dense = lambda n: nn.Dense(n, kernel_init=initial.scaled(1.0))
    self.inside, self.code = dense(self.hidden), dense(2 * self.latent)
    self.back, self.pixels = dense(self.hidden), dense(size)

  def __call__(self, x: Array, noise: Array | None = None) -> tuple:
    """x [B, ...] -> (reconstruction [B, ...], code mean, code log variance).

    The code is its mean, plus `noise` [B, latent] standard deviations.
    """
    hidden = nn.gelu(self.inside(x.reshape(x.shape[0], -1)))
    mean, log_var = jnp.split(self.code(hidden), 2, -1)
    code = mean if noise is None else mean + jnp.exp(log_var / 2) * noise
    pixels = jax.nn.sigmoid(self.pixels(nn.gelu(self.back(code))))
    return pixels.reshape(x.shape), mean, log_var


def negative_elbo(
  x: Array, output: tuple[Array, Array, Array], sigma: float
) -> Array:
  """‖x - x̂‖² / 2σ² + KL(code ‖ N(0, 1)) in nats, [B], up to a constant."""
  image, mean, log_var = output
  axes = tuple(range(1, x.ndim))
  error = jnp.sum(jnp.square(x - image), axes) / (2 * sigma**2)
  kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, -1)
  return error + kl
