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
  flipping_area,
  insertion_auc,
  mask_mass,
  mask_rank,
  pixel_flipping,
  pointing_game,
  replacement_curve,
)
from implicit_attr.attribution.gradients import gradient, gradient_x_input
from implicit_attr.attribution.lrp import lrp_gamma, lrp_zplus
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
from implicit_attr.attribution.perturbation import (
  infidelity,
  noisy_baselines,
  per_unit,
  random_subsets,
  sensitivity_n,
  squares,
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
from implicit_attr.attribution.sanity import (
  collapsed,
  entropy,
  gini,
  parameter_randomisation,
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
  'lrp_gamma': lrp_gamma,
  'lrp_zplus': lrp_zplus,
  'grad_cam': grad_cam,
  'grad_cam_pp': grad_cam_pp,
  'guided_grad_cam': guided_grad_cam,
  'occlusion': occlusion,
  'random': random_map,
  'edges': edges,
}
"""Name -> method. None of them knows what kind of network it explains; the
four after expected_gradients need rectifiers in it, the two after those linear
layers, grad_cam… a feature map."""

__all__ = [
  'METHODS',
  'RULES',
  'TARGETS',
  'abs_sum',
  'blurred',
  'cam',
  'cam_pp',
  'collapsed',
  'deconvnet',
  'deeplift',
  'deletion_auc',
  'edges',
  'enlarge',
  'entropy',
  'expected_gradients',
  'feature_gradient',
  'flipping_area',
  'gini',
  'grad_cam',
  'grad_cam_pp',
  'gradient',
  'gradient_x_input',
  'guided_backprop',
  'guided_grad_cam',
  'infidelity',
  'insertion_auc',
  'integrated_gradients',
  'l2',
  'lrp_epsilon',
  'lrp_gamma',
  'lrp_zplus',
  'mask_mass',
  'mask_rank',
  'max_abs',
  'noisy_baselines',
  'occlusion',
  'parameter_randomisation',
  'per_unit',
  'pixel_flipping',
  'pointing_game',
  'random_map',
  'random_subsets',
  'replacement_curve',
  'sensitivity_n',
  'smoothgrad',
  'smoothgrad_squared',
  'squares',
  'sum_abs',
  'target',
  'unit_max',
  'unit_mean',
  'unit_sum',
  'vargrad',
]
