"""How badly can an adversary inside a small ball change a map or a label?

`legacy` holds the protocols of published code, to compare with.
"""

from implicit_attr.attacks import legacy
from implicit_attr.attacks.attribution import attack_attribution
from implicit_attr.attacks.autopgd import apgd
from implicit_attr.attacks.balls import NORMS
from implicit_attr.attacks.baselines import (
  identity,
  random_sign,
  random_sign_walk,
  uniform_noise,
)
from implicit_attr.attacks.black_box import attack_black_box, square
from implicit_attr.attacks.map_losses import OBJECTIVES
from implicit_attr.attacks.measures import MEASURES
from implicit_attr.attacks.prediction import PredictionResult, fgsm, pgd
from implicit_attr.attacks.result import AttackResult, warn_stalled
from implicit_attr.attacks.sensitivity import WorstCase, worst_sensitivity

__all__ = [
  'MEASURES',
  'NORMS',
  'OBJECTIVES',
  'AttackResult',
  'PredictionResult',
  'WorstCase',
  'apgd',
  'attack_attribution',
  'attack_black_box',
  'fgsm',
  'identity',
  'legacy',
  'pgd',
  'random_sign',
  'random_sign_walk',
  'square',
  'uniform_noise',
  'warn_stalled',
  'worst_sensitivity',
]
