"""Which matrices, as products on a tree, are solvers tested on?"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

SIZE = 40


def symmetric(values, seed=0):
  """A float64 matrix with these eigenvalues and random eigenvectors."""
  values = np.asarray(values, float)
  normal = np.random.default_rng(seed).normal(size=(values.size,) * 2)
  q = np.linalg.qr(normal)[0]
  return (q * values) @ q.T


def tree_product(matrix):
  """`matrix` as a product on the tree {'a': [4, 5], 'b': [n - 20]}."""
  matrix = jnp.asarray(matrix)
  like = {'a': jnp.zeros((4, 5)), 'b': jnp.zeros(matrix.shape[0] - 20)}
  unravel = ravel_pytree(like)[1]
  mvp = lambda v: unravel(matrix @ ravel_pytree(v)[0])
  return mvp, like


def noise(like, seed=1):
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.array(generator.normal(size=leaf.shape)), like
  )


def rows(vectors):
  """Leaves [k, ...] -> a matrix [k, n]."""
  return np.asarray(jax.vmap(lambda v: ravel_pytree(v)[0])(vectors))


SPECTRA = {
  'decaying': 10.0 * 0.8 ** np.arange(SIZE),
  'negative dominates': np.r_[-9, -5, np.linspace(-1, 2, SIZE - 2)],
  'all negative': -1.0 - np.arange(SIZE) ** 1.3,
  'indefinite': np.linspace(-7, 7.5, SIZE),
}
