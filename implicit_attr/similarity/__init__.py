"""Similarity of two attribution maps, and stability of one.

Comparisons take maps `[B, ...]` (spatial ones `[B, H, W]`) and return one
number an example, `[B]`; all run under jit and are deterministic. Integers and
booleans are taken as float32. A NaN in a map gives NaN, and so does whatever
is not defined: ranks, sets and correlations of a constant map, the cosine and
the centre of a zero one. Such examples can be counted and are not mistaken for
agreement; each docstring says which they are.
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
  local_lipschitz,
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
  'kendall_tau',
  'lens_precision',
  'lens_recall',
  'local_lipschitz',
  'magnitude',
  'mass',
  'mass_centre',
  'mass_centre_shift',
  'mse',
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
