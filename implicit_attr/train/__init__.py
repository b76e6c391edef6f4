"""Training: a state, a pure step, an optimiser, and the loop around them."""

from implicit_attr.train.optim import learning_rates, optimizer, stability_edge
from implicit_attr.train.state import State, frozen, init
from implicit_attr.train.step import make_advance, make_sums, make_update

__all__ = [
  'State',
  'frozen',
  'init',
  'learning_rates',
  'make_advance',
  'make_sums',
  'make_update',
  'optimizer',
  'stability_edge',
]
