"""Curvatures of four networks, beside the libraries that also give them.

The jobs of benchmarks/curvature.py on networks that fill a GPU, with settings
that were searched beforehand. 'shared' is eleven products through one
linearisation, per product. Second derivatives do not survive TF32 well enough
for an eigenvalue, so that gradient and product have a column of it alone.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import curvature, curvature_jax
from benchmarks.gpu import measure
from benchmarks.gpu.step import VIT

NETWORKS = {  # name: (options, images)
  'mlp': ({'widths': (1024, 1024)}, 256),
  'cnn': ({'width': 64}, 256),
  'vit': (VIT, 128),
  'resnet8': ({'width': 64}, 128),
}
SMALL = {'mlp': ({'widths': (16,)}, 16)}
IMAGES = 256
"""Whose input λ is found."""
# Searched once on a CPU at reduced width (MLP 256-256, CNN 12, ViT 48 × 6,
# ResNet-8 8; 64 to 128 images, 32 for the input), from three starts. Right to
# 1e-3 were, the cheapest, in that order,
#   λ_max: residuals .03, .03, .02, .03 (8, 7, 10 and 7 products), 8, 14, 6, 10
#   Lanczos steps, 6, 10, 6, 10 vectors of ARPACK;
#   input λ: residuals .05, .03, .02, .03 and 8, 8, 14, 6 Lanczos steps.
# Power iteration needed a change below 3e-4; on the ResNet-8 it ended at the
# eigenvalue of largest magnitude, which is negative there. Used is the next
# stricter setting, for all alike, as the networks here are wider.
LAMBDA_MAX = {  # our residual, Lanczos steps, ARPACK's vectors
  'mlp': (0.02, 10, 8),
  'cnn': (0.02, 17, 13),
  'vit': (0.015, 8, 8),
  'resnet8': (0.02, 12, 13),
}
POWER = 1e-4
INPUT = {  # our residual, Lanczos steps
  'mlp': (0.03, 10),
  'cnn': (0.02, 10),
  'vit': (0.015, 17),
  'resnet8': (0.02, 8),
}
ERROR = {'float32': 1e-3, 'TF32': 3e-2}
KEY = jax.random.key(0)


def rows(small: bool) -> Iterator[list[dict]]:
  device = measure.torch_device()
  for network, (options, images) in (SMALL if small else NETWORKS).items():
    few = 8 if small else IMAGES
    losses, at = curvature.problem(network, max(images, few), options)
    batch = at[0], *(a[:images] for a in at[1:])
    many = at[0], *(a[:few] for a in at[1:])
    jobs = of_jax(network, losses, batch, many, small)
    peers = of_torch(network, options, batch, many, device) if device else {}
    for (job, precision), ways in jobs.items():
      for name, (run, value) in peers.get(job, {}).items():
        run = measure.ended(run, device, precision)
        per = curvature.MANY if job == 'shared' else 1
        ways[name] = measure.Way(run, value, per=per)
      wanted, error = None, ERROR[precision]
      if job in ('lambda_max', 'input'):  # the same search, to its end
        wanted = np.asarray(ways.pop('converged').run()[0])
        ways = {
          name: way._replace(value=shares(way.value, wanted))
          for name, way in ways.items()
        }
        wanted = np.ones_like(wanted)
      elif job == 'trace':  # an estimate: four standard errors of a difference
        mean, stderr = ways['ours'].run()
        error = float(4 * 2**0.5 * stderr / abs(mean))
      yield measure.rows(f'{network}, {job}', precision, ways, error, wanted)


def of_jax(
  network: str, losses: Callable, batch: tuple, many: tuple, small: bool
) -> dict[tuple[str, str], dict[str, measure.Way]]:
  """(job, precision) -> {library: way}; all of them begin to compile."""
  params, mean = batch[0], lambda *a: losses(*a).mean()
  first = lambda output: output[0]
  products = lambda output: int(output[1])

  def own(job, setting, value, given=batch, precision='float32', **options):
    given = KEY, np.float32(setting), *given
    if job == 'product':
      given = *given, params
    program = measure.Program(
      curvature.ours(job, losses)[0], *given, precision=precision
    )
    run = functools.partial(program, *given)
    return measure.Way(run, value, program, **options)

  def search(job, tol, given):
    way = own(job, tol, first, given, trips=products)
    to_its_end = functools.partial(way.program, KEY, np.float32(0), *given)
    return {'ours': way, 'converged': way._replace(run=to_its_end)}

  def other(fun):
    program = measure.Program(fun, KEY, *batch)
    return measure.Way(
      functools.partial(program, KEY, *batch), np.asarray, program
    )

  jobs = {
    (job, precision): {'ours': own(job, 0, inner, precision=precision)}
    for job in ('gradient', 'product')
    for precision in (('float32',) if small else ('float32', 'TF32'))
    for inner in [functools.partial(against, params)]
  }
  jobs['shared', 'float32'] = {
    'ours': own(
      'shared', curvature.MANY, optax.tree.norm,
      trips=lambda _: curvature.MANY, per=curvature.MANY,
    )
  }  # fmt: skip
  tol, steps, _ = LAMBDA_MAX[network]
  tops = search('lambda_max', tol, batch)
  if not small:
    tops['ours, coarse'] = own('coarse', tol, first, trips=products)
  for name, make in curvature_jax.lambda_max(mean).items():
    tops[name] = other(make(steps))
  jobs['lambda_max', 'float32'] = tops
  jobs['trace', 'float32'] = {'ours': own('trace', 0, first)} | {
    name: other(fun)
    for name, fun in curvature_jax.trace(mean, curvature.DRAWS).items()
  }
  jobs['input', 'float32'] = search('input', INPUT[network][0], many)
  return jobs


def of_torch(
  network: str, options: dict, batch: tuple, many: tuple, device: str
) -> dict[str, dict[str, tuple[Callable, Callable]]]:
  """job -> {library: (run, value)}, with the settings of this page."""
  from benchmarks import curvature_peers as peers
  from benchmarks import torch_twin

  twin = torch_twin.Twin(network, batch[0], options, device)
  on = lambda given: torch_twin.Torch(
    twin, *torch_twin.data(network, *given[1:], device)
  )
  t, point = on(batch), torch_twin.flat(twin.parameters()).cpu().numpy()

  _, steps, vectors = LAMBDA_MAX[network]
  settings = {'PyHessian': POWER, 'eigenthings': steps}
  settings |= {'curvlinops': vectors, 'torch.func': vectors}
  inner = lambda v: against(point, v.cpu().numpy())

  def fixed(entries, value, setting=None):
    of = lambda name: setting[name] if isinstance(setting, dict) else setting
    return {
      name: (functools.partial(entry.run, of(name), 0), value)
      for name, entry in entries.items()
    }

  return {
    'gradient': fixed(peers.gradient(t), inner),
    'product': fixed(peers.product(t), inner),
    'shared': fixed(peers.shared(t), lambda v: float(v.norm()), curvature.MANY),
    'lambda_max': fixed(peers.lambda_max(t), float, settings),
    'trace': fixed(peers.trace(t, curvature.DRAWS), float),
    'input': fixed(
      peers.input_lambda(on(many), len(many[1])), np.asarray, INPUT[network][1]
    ),
  }


def shares(value: Callable, wanted: np.ndarray) -> Callable:
  """`value` over what is wanted, so that each example's has to be right."""
  return lambda output: np.asarray(value(output)) / wanted


def against(point: Any, v: Any) -> list[float]:
  """The norm of v and its product with the parameters, in any layout."""
  both = optax.tree.norm(v), optax.tree.vdot(point, v)
  return [float(a) for a in both]
