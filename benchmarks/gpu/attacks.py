"""The attack on maps, 256 images and 20 steps, beside two ways in PyTorch.

'loop' is double backward on the whole batch, 'func' torch.func.grad of one
image under vmap. Signs of gradients that are zero but for rounding are anyone's
guess, so what has to agree is how much of each map is left.
"""

import argparse
import functools
from collections.abc import Iterator

from benchmarks import attacks
from benchmarks.gpu import measure

ATTACKS = {  # method: networks
  'gradient': {
    'mlp': {'widths': (1024, 1024)},
    'resnet8': {'width': 64},
    'cnn': {'width': 64},
  },
  'integrated_gradients': {'mlp': {'widths': (1024, 1024)}, 'cnn': {}},
}
SMALL = {
  'gradient': {'mlp': {'widths': (16,)}},
  'integrated_gradients': {'cnn': {'width': 2, 'depth': 2, 'hidden': 8}},
}
ERROR = 0.02
"""Relative, of the share of the top-k sets that is left, over all images."""


def rows(small: bool) -> Iterator[list[dict]]:
  device = measure.torch_device()
  problems = {}
  for method, networks in (SMALL if small else ATTACKS).items():
    for network, options in networks.items():
      args = argparse.Namespace(
        network=network, options=options, method=method, chunk=None, size=32,
        images=4 if small else 256, steps=3 if small else 20,
        path=2 if small else 16,
      )  # fmt: skip
      problems[f'{method}, {network}'] = args, attacks.problem(args)
  ways = {
    (title, precision): ours(args, problem, precision)
    for precision in (('float32',) if small else ('float32', 'TF32'))
    for title, (args, problem) in problems.items()
  }
  for (title, precision), way in ways.items():
    group = {'ours': way}
    if device:
      from benchmarks import attacks_torch

      args, (params, x, y) = problems[title]
      start = attacks.start_of(x)
      theirs = attacks_torch.runs(args, params, x, y, start, device)
      for name, run in theirs.items():
        run = measure.ended(run, device, precision)
        group[name] = measure.Way(run, lambda output: float(output[1].mean()))
    yield measure.rows(title, precision, group, ERROR)


def ours(
  args: argparse.Namespace, problem: tuple, precision: str
) -> measure.Way:
  program = measure.Program(attacks.ours(args), *problem, precision=precision)
  run = functools.partial(program, *problem)
  return measure.Way(run, lambda result: result.score.mean(), program)
