"""Published attacks on maps, to the letter, faults included.

`PROTOCOLS[name](key, network, x, y)` runs one with the settings its authors
released; every setting is a keyword, so that one can be changed at a time.
They are here to be compared with, not to be used: `attack_attribution` has
none of the faults that the docstrings name.

All radii and steps are in units of a pixel range of 0 to 1.
"""

from collections.abc import Callable

from implicit_attr.attacks.legacy.art import art_cifar
from implicit_attr.attacks.legacy.result import LegacyResult, Network, compare
from implicit_attr.attacks.legacy.targets import dombrowski, robust_aga
from implicit_attr.attacks.legacy.topk import ghorbani, rar_fmnist, rar_mnist

__all__ = [
  'PROTOCOLS',
  'LegacyResult',
  'Network',
  'art_cifar',
  'compare',
  'dombrowski',
  'ghorbani',
  'rar_fmnist',
  'rar_mnist',
  'robust_aga',
]

PROTOCOLS: dict[str, Callable[..., LegacyResult]] = {
  'ghorbani': ghorbani,
  'rar_mnist': rar_mnist,
  'rar_fmnist': rar_fmnist,
  'art_cifar': art_cifar,
  'dombrowski': dombrowski,
  'robust_aga': robust_aga,
}
"""Name -> function of (key, network, x, y, **changed settings)."""
