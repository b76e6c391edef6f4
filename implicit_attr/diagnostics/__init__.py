"""Diagnostics of what adversarial robustness changes inside of a network.

The quantities of Wen, Li & Jia (arXiv 2011.07478): margins, confidences and
gaps, singular values of every layer, features under perturbation; and of Kim,
Seo & Jeon (arXiv 1903.11626): images and gradients against the data.
"""

from implicit_attr.diagnostics.features import FeatureChange, feature_change
from implicit_attr.diagnostics.manifold import (
  image_alignment,
  nearest_distance,
)
from implicit_attr.diagnostics.operators import (
  Spread,
  circular_singular_values,
  convolution_singular_values,
  dense_singular_values,
  spread,
)
from implicit_attr.diagnostics.prediction import (
  Predictions,
  gaps,
  predictions,
)

__all__ = [
  'FeatureChange',
  'Predictions',
  'Spread',
  'circular_singular_values',
  'convolution_singular_values',
  'dense_singular_values',
  'feature_change',
  'gaps',
  'image_alignment',
  'nearest_distance',
  'predictions',
  'spread',
]
