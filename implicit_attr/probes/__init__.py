"""Probes: what is measured while a network trains, without changing it.

A probe sees the parameters before the update of its step, in evaluation mode,
on a fixed set of examples. It returns a flat dict: scalars go to
metrics.jsonl, arrays [n] (one number per example) to probes/<step>.npz.
"""

from implicit_attr.probes.alignment import alignment
from implicit_attr.probes.attention import attention_diagnostics, rank_radius
from implicit_attr.probes.confounders import confounders, has_first_layer
from implicit_attr.probes.input import gradient_norms, input_curvature
from implicit_attr.probes.parameter import batch_sharpness, parameter_curvature

__all__ = [
  'alignment',
  'attention_diagnostics',
  'batch_sharpness',
  'confounders',
  'gradient_norms',
  'has_first_layer',
  'input_curvature',
  'parameter_curvature',
  'rank_radius',
]
