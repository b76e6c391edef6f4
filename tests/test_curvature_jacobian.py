"""Are Jacobians of logits what they should be, at any scale and margin?"""

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature

B, SHAPE, N, CLASSES = 5, (3, 3, 2), 18, 4


def normal():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.normal(size=(B, *SHAPE)))


def logits(x):
  """A fixed network with one hidden layer, x [B, 3, 3, 2] -> [B, 4]."""
  generator = np.random.default_rng(1)
  hidden = jnp.tanh(x.reshape(-1, N) @ generator.normal(size=(N, 6)))
  return hidden @ generator.normal(size=(6, CLASSES))


def test_jacobian_norms_equal_the_dense_ones(x64):
  x = normal()

  @jax.jit
  def measure(x):
    gram = curvature.jacobian_gram(logits, x)
    single = lambda flat: logits(flat.reshape(1, *SHAPE))[0]
    return (
      curvature.jacobian_norms(gram),
      curvature.gauss_newton_eigenvalues(gram, logits(x)),
      jax.vmap(jax.jacobian(single))(x.reshape(B, N)),
      jax.nn.softmax(logits(x)),
    )

  (operator, frobenius), eigenvalues, jacobian, p = measure(x)
  jacobian, p = np.asarray(jacobian), np.asarray(p)
  np.testing.assert_allclose(operator, np.linalg.norm(jacobian, 2, (1, 2)))
  np.testing.assert_allclose(frobenius, np.linalg.norm(jacobian, axis=(1, 2)))
  for b in range(B):
    middle = np.diag(p[b]) - np.outer(p[b], p[b])
    dense = np.linalg.eigvalsh(jacobian[b].T @ middle @ jacobian[b])
    np.testing.assert_allclose(
      eigenvalues[b], [dense[-1], dense.sum()], rtol=1e-9
    )
