"""Which pixels does a network's answer rest on?

`METHODS[name](apply_fn, params, x, y, *, key=None, target='logit', **options)`
gives a signed map with the shape of x, for a batch, that can be differentiated
again in x to any order, so that an attack follows the true gradient. Row b of
a map depends on row b of `x` and `y` only. Reduction over channels, scaling
and the faithfulness of a map are functions of their own.
"""

from collections.abc import Callable

from implicit_attr.attribution.cam import (
  cam,
  cam_pp,
  enlarge,
  feature_gradient,
  grad_cam,
  grad_cam_pp,
  guided_grad_cam,
)
from implicit_attr.attribution.controls import edges, occlusion, random_map
from implicit_attr.attribution.faithfulness import (
  blurred,
  deletion_auc,
  insertion_auc,
  mask_mass,
  mask_rank,
  pointing_game,
  replacement_curve,
)
from implicit_attr.attribution.gradients import gradient, gradient_x_input
from implicit_attr.attribution.noise import (
  smoothgrad,
  smoothgrad_squared,
  vargrad,
)
from implicit_attr.attribution.path import (
  RULES,
  expected_gradients,
  integrated_gradients,
)
from implicit_attr.attribution.reduce import (
  abs_sum,
  l2,
  max_abs,
  sum_abs,
  unit_max,
  unit_mean,
  unit_sum,
)
from implicit_attr.attribution.rules import (
  deconvnet,
  deeplift,
  guided_backprop,
  lrp_epsilon,
)
from implicit_attr.attribution.targets import TARGETS, target
from implicit_attr.types import Array

METHODS: dict[str, Callable[..., Array]] = {
  'gradient': gradient,
  'gradient_x_input': gradient_x_input,
  'smoothgrad': smoothgrad,
  'smoothgrad_squared': smoothgrad_squared,
  'vargrad': vargrad,
  'integrated_gradients': integrated_gradients,
  'expected_gradients': expected_gradients,
  'guided_backprop': guided_backprop,
  'deconvnet': deconvnet,
  'deeplift': deeplift,
  'lrp_epsilon': lrp_epsilon,
  'grad_cam': grad_cam,
  'grad_cam_pp': grad_cam_pp,
  'guided_grad_cam': guided_grad_cam,
  'occlusion': occlusion,
  'random': random_map,
  'edges': edges,
}
"""Name -> method. None of them knows what kind of network it explains; the
four after expected_gradients need rectifiers in it, grad_cam… a feature map."""

__all__ = [
  'METHODS',
  'RULES',
  'TARGETS',
  'abs_sum',
  'blurred',
  'cam',
  'cam_pp',
  'deconvnet',
  'deeplift',
  'deletion_auc',
  'edges',
  'enlarge',
  'expected_gradients',
  'feature_gradient',
  'grad_cam',
  'grad_cam_pp',
  'gradient',
  'gradient_x_input',
  'guided_backprop',
  'guided_grad_cam',
  'insertion_auc',
  'integrated_gradients',
  'l2',
  'lrp_epsilon',
  'mask_mass',
  'mask_rank',
  'max_abs',
  'occlusion',
  'pointing_game',
  'random_map',
  'replacement_curve',
  'smoothgrad',
  'smoothgrad_squared',
  'sum_abs',
  'target',
  'unit_max',
  'unit_mean',
  'unit_sum',
  'vargrad',
]
