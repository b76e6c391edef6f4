"""Does the autoencoder give back what it was shown, and is its loss a bound?"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from implicit_attr.models.vae import VAE, negative_elbo

KEY = jax.random.key(0)


def test_loss_is_squared_error_and_divergence_of_the_code(x64):
  rng = np.random.default_rng(0)
  x, image = rng.uniform(size=(2, 3, 2, 2, 1))
  mean, log_var = rng.normal(size=(2, 3, 4))
  found = negative_elbo(
    jnp.asarray(x), tuple(map(jnp.asarray, (image, mean, log_var))), 0.5
  )
  std = np.exp(log_var / 2)
  error = ((x - image) ** 2).sum((1, 2, 3)) / 0.5
  # KL of two Gaussians, log ratio of the deviations first.
  kl = -np.log(std) + (std**2 + mean**2) / 2 - 0.5
  np.testing.assert_allclose(found, error + kl.sum(1), rtol=1e-9)


def test_training_brings_images_back_and_keeps_others_away():
  x = jax.random.uniform(KEY, (4, 4, 4, 1))
  vae, tx = VAE(shape=x.shape[1:], latent=2, hidden=16), optax.adam(1e-2)

  @jax.jit
  def fit(key):
    params = vae.init(key, x)['params']

    def step(carry, i):
      params, state = carry
      noise = jax.random.normal(jax.random.fold_in(key, i), (4, 2))

      def loss(params):
        found = vae.apply({'params': params}, x, noise)
        return jnp.mean(negative_elbo(x, found, 0.1))

      change, state = tx.update(jax.grad(loss)(params), state)
      return (optax.apply_updates(params, change), state), None

    carry = params, tx.init(params)
    params = jax.lax.scan(step, carry, jnp.arange(300))[0][0]
    apart = lambda z: jnp.mean((z - vae.apply({'params': params}, z)[0]) ** 2)
    return apart(x), apart(1 - x)

  near, far = fit(KEY)
  assert near < 0.02
  assert far > 5 * near


def test_pixels_are_in_the_box_and_without_noise_nothing_is_random():
  x = jnp.ones((2, 3, 2, 1))
  vae = VAE(shape=x.shape[1:], latent=2, hidden=4)
  params = vae.init(KEY, x)
  image, mean, log_var = vae.apply(params, x)
  assert image.shape == x.shape
  assert mean.shape == log_var.shape == (2, 2)
  assert ((image > 0) & (image < 1)).all()
  np.testing.assert_array_equal(image, vae.apply(params, x)[0])
  moved = vae.apply(params, x, jnp.ones((2, 2)))[0]
  assert not np.array_equal(image, moved)
