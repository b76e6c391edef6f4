"""Attacks on attribution maps and on predictions, inside small balls.

`legacy` holds the protocols of published code, to compare with.
"""

from implicit_attr.attacks import legacy
from implicit_attr.attacks.attribution import Surrogate, attack_attribution
from implicit_attr.attacks.autopgd import apgd
from implicit_attr.attacks.balls import NORMS
from implicit_attr.attacks.baselines import (
  random_sign,
  random_sign_walk,
)
from implicit_attr.attacks.black_box import attack_black_box, square
from implicit_attr.attacks.map_losses import OBJECTIVES
from implicit_attr.attacks.measures import MEASURES
from implicit_attr.attacks.prediction import PredictionResult, fgsm, pgd
from implicit_attr.attacks.radius import RadiusResult, half_radius
from implicit_attr.attacks.result import AttackResult, warn_stalled
from implicit_attr.attacks.sensitivity import WorstCase, worst_sensitivity

__all__ = [
  'MEASURES',
  'NORMS',
  'OBJECTIVES',
  'AttackResult',
  'PredictionResult',
  'RadiusResult',
  'Surrogate',
  'WorstCase',
  'apgd',
  'attack_attribution',
  'attack_black_box',
  'fgsm',
  'half_radius',
  'legacy',
  'pgd',
  'random_sign',
  'random_sign_walk',
  'square',
  'warn_stalled',
  'worst_sensitivity',
]
