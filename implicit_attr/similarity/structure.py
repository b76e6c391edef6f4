"""Do two maps show the same local structure?"""

import jax.numpy as jnp
import numpy as np

from implicit_attr import errors
from implicit_attr.similarity.maps import planes
from implicit_attr.types import Array


def _band(n: int, window: int, sigma: float) -> np.ndarray:
  """Gaussian means over every window that lies inside n pixels."""
  offset = np.arange(window) - window // 2
  weight = np.exp(-0.5 * np.square(offset / sigma))
  weight /= weight.sum()
  band = np.zeros((n - window + 1, n))
  for row in range(len(band)):
    band[row, row : row + window] = weight
  return band


def ssim(
  a: Array,
  b: Array,
  *,
  data_range: float | Array | None = None,
  window: int = 11,
  sigma: float = 1.5,
) -> Array:
  """Mean structural similarity of maps [B, H, W] -> [B], at most 1.

  Wang et al. (IEEE TIP 13, 2004): Gaussian windows, K1 = 0.01, K2 = 0.03,
  population covariances, averaged over the windows that lie inside the map;
  equal to scikit-image with gaussian_weights=True,
  use_sample_covariance=False.

  Args:
    a: maps; as they are, so normalise (`mass`) first to compare shapes alone.
    b: maps.
    data_range: the span of values that the constants K1, K2 refer to, one
      number or [B]. None takes the joint span of the two maps, example by
      example, which makes the result independent of a common scale.
    window: odd side of the window; no larger than the map.
    sigma: its standard deviation in pixels.

  Raises:
    InputError: a window even or larger than the map.
  """
  a, b = planes(a, b)
  small = min(a.shape[1:])
  allowed = f'odd and at most {small}, the smaller side of the map'
  errors.require('window', window, window % 2 and 0 < window <= small, allowed)
  kind = jnp.result_type(a, b, jnp.float32)
  a, b = a.astype(kind), b.astype(kind)
  rows, columns = (
    jnp.asarray(_band(n, window, sigma), kind) for n in a.shape[1:]
  )

  def mean(m):
    return jnp.einsum('ih,bhw,jw->bij', rows, m, columns, precision='highest')

  if data_range is None:
    axes = (1, 2)
    high = jnp.maximum(jnp.max(a, axes), jnp.max(b, axes))
    data_range = high - jnp.minimum(jnp.min(a, axes), jnp.min(b, axes))
  span = jnp.broadcast_to(jnp.asarray(data_range, kind), a.shape[:1])
  c1, c2 = (jnp.square(k * span)[:, None, None] for k in (0.01, 0.03))
  mean_a, mean_b = mean(a), mean(b)
  var_a = mean(jnp.square(a)) - jnp.square(mean_a)
  var_b = mean(jnp.square(b)) - jnp.square(mean_b)
  cov = mean(a * b) - mean_a * mean_b
  score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
  score /= (jnp.square(mean_a) + jnp.square(mean_b) + c1) * (var_a + var_b + c2)
  return jnp.mean(score, (1, 2))
