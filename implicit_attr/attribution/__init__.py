"""Which pixels does a network's answer rest on?

`METHODS[name](apply_fn, params, x, y, *, key=None, target='logit', **options)`
gives a signed map with the shape of x, for a batch, that can be differentiated
again in x to any order, so that an attack follows the true gradient. Row b of
a map depends on row b of `x` and `y` only. Reduction over channels, scaling
and the faithfulness of a map are functions of their own.
"""

from collections.abc import Callable

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
}
"""Name -> method. None of them knows what kind of network it explains."""

__all__ = [
  'METHODS',
  'RULES',
  'TARGETS',
  'abs_sum',
  'blurred',
  'deletion_auc',
  'expected_gradients',
  'gradient',
  'gradient_x_input',
  'insertion_auc',
  'integrated_gradients',
  'l2',
  'mask_mass',
  'mask_rank',
  'max_abs',
  'pointing_game',
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
