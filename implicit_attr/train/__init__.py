"""How do parameters move? A state, one pure step, a direction and a rate."""

from implicit_attr.train.optim import learning_rates, optimizer, stability_edge
from implicit_attr.train.state import State, frozen, init
from implicit_attr.train.step import make_sums, make_update

__all__ = [
  'State',
  'frozen',
  'init',
  'learning_rates',
  'make_sums',
  'make_update',
  'optimizer',
  'stability_edge',
]
