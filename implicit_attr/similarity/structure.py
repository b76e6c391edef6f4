"""SSIM, mean structural similarity (Wang et al., IEEE TIP 13, 2004)."""

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
  use_sample_covariance=False. Equal maps give 1.

  NaN where a map has a NaN, and for two equal constant maps (zeros, single
  pixels) without a `data_range`: they span nothing.

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
  fits = window % 2 == 1 and 0 < window <= small
  errors.require('window', window, fits, allowed)
  kind, axes = jnp.result_type(a, b), (1, 2)
  rows, columns = (
    jnp.asarray(_band(n, window, sigma), kind) for n in a.shape[1:]
  )

  def mean(m):
    return jnp.einsum('ih,bhw,jw->bij', rows, m, columns, precision='highest')

  def moments(m):
    # About the map's own mean: E[m²] - E[m]² cancels far from 0. In units of
    # the span, so that squares neither underflow nor overflow.
    middle = jnp.mean(m, axes, keepdims=True)
    rest = (m - middle) / span
    variance = mean(jnp.square(rest)) - jnp.square(mean(rest))
    return mean(rest) + middle / span, jnp.maximum(variance, 0)

  if data_range is None:
    high = jnp.maximum(jnp.max(a, axes), jnp.max(b, axes))
    data_range = high - jnp.minimum(jnp.min(a, axes), jnp.min(b, axes))
  span = jnp.broadcast_to(jnp.asarray(data_range, kind), a.shape[:1])
  span = span[:, None, None]
  (mean_a, var_a), (mean_b, var_b), (shift, rest) = map(moments, (a, b, a - b))
  # (2 p q + c) / (p² + q² + c) as 1 - (p - q)² / (…): at most 1 when rounded.
  powers = jnp.square(mean_a) + jnp.square(mean_b) + 0.01**2
  luminance = 1 - jnp.square(shift) / powers
  structure = 1 - rest / (var_a + var_b + 0.03**2)
  return jnp.minimum(jnp.mean(luminance * structure, axes), 1)
