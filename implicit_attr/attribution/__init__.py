"""Attribution maps: which pixels, or tokens, a network's answer rests on.

`METHODS[name](apply_fn, params, x, y, *, key=None, target='logit', **options)`
gives a signed map with the shape of x, for a batch, that can be differentiated
again in x to any order, so that an attack follows the true gradient. Row b of
a map depends on row b of `x` and `y` only. Reduction over channels, scaling
and the faithfulness of a map are functions of their own.
"""

from collections.abc import Callable

from implicit_attr.attribution.attention import Factored
from implicit_attr.attribution.attention_gradients import (
  attention_grad_cam,
  chefer,
  gradient_x_attention,
)
from implicit_attr.attribution.attention_maps import (
  alti,
  raw_attention,
  rollout,
  value_norm,
  value_rollout,
)
from implicit_attr.attribution.attention_outputs import (
  READOUTS,
  token_grid,
  token_pixels,
)
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
from implicit_attr.attribution.modified_backprop import (
  deconvnet,
  deeplift,
  guided_backprop,
  lrp_epsilon,
)
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
)
from implicit_attr.attribution.relevance import attn_lrp, chefer_lrp, cp_lrp
from implicit_attr.attribution.sanity import (
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

ATTENTION_METHODS: dict[str, Callable[..., Array]] = {
  'raw': raw_attention,
  'rollout': rollout,
  'value_norm': value_norm,
  'value_rollout': value_rollout,
  'alti': alti,
  'gradient_x_attention': gradient_x_attention,
  'attention_grad_cam': attention_grad_cam,
  'chefer': chefer,
  'chefer_lrp': chefer_lrp,
  'attn_lrp': attn_lrp,
  'cp_lrp': cp_lrp,
}
"""Name -> method, called as those of `METHODS` and with `readout`, 'cls' or
'mean'. Maps are [B, N], a number for each image token; `out` must tell of
attention, see `attention_outputs`."""

__all__ = [
  'ATTENTION_METHODS',
  'METHODS',
  'READOUTS',
  'RULES',
  'TARGETS',
  'Factored',
  'abs_sum',
  'alti',
  'attention_grad_cam',
  'attn_lrp',
  'blurred',
  'cam',
  'cam_pp',
  'chefer',
  'chefer_lrp',
  'cp_lrp',
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
  'gradient_x_attention',
  'gradient_x_input',
  'guided_backprop',
  'guided_grad_cam',
  'insertion_auc',
  'integrated_gradients',
  'l2',
  'lrp_epsilon',
  'lrp_gamma',
  'lrp_zplus',
  'mask_mass',
  'mask_rank',
  'max_abs',
  'occlusion',
  'parameter_randomisation',
  'pixel_flipping',
  'pointing_game',
  'random_map',
  'raw_attention',
  'replacement_curve',
  'rollout',
  'smoothgrad',
  'smoothgrad_squared',
  'sum_abs',
  'target',
  'token_grid',
  'token_pixels',
  'value_norm',
  'value_rollout',
  'vargrad',
]
