"""How alike are two attribution maps, and how steady is one?

Comparisons take maps `[B, ...]` (spatial ones `[B, H, W]`) and return one
number an example, `[B]`; all run under jit and are deterministic. Correlations
are NaN where they are not defined (a constant map, or for the cosine a zero
one), so that such examples can be counted and not be mistaken for agreement.
"""

from implicit_attr.similarity.alignment import cosine, mse, pearson
from implicit_attr.similarity.locality import (
  dilate,
  diverse_top_mask,
  lens_precision,
  lens_recall,
  mass_centre,
  mass_centre_shift,
  topk_div,
)
from implicit_attr.similarity.maps import magnitude, mass
from implicit_attr.similarity.ranking import kendall_tau, spearman
from implicit_attr.similarity.stability import (
  RelativeStability,
  Sensitivity,
  jacobian_norm,
  local_lipschitz,
  neighbour_lipschitz,
  relative_change,
  relative_stability,
  sensitivity,
)
from implicit_attr.similarity.structure import ssim
from implicit_attr.similarity.topk import top_mask, topk_intersection

__all__ = [
  'RelativeStability',
  'Sensitivity',
  'cosine',
  'dilate',
  'diverse_top_mask',
  'jacobian_norm',
  'kendall_tau',
  'lens_precision',
  'lens_recall',
  'local_lipschitz',
  'magnitude',
  'mass',
  'mass_centre',
  'mass_centre_shift',
  'mse',
  'neighbour_lipschitz',
  'pearson',
  'relative_change',
  'relative_stability',
  'sensitivity',
  'spearman',
  'ssim',
  'top_mask',
  'topk_div',
  'topk_intersection',
]
