"""Rows of a table: work that has ended, in turn, beside peers and floors.

A row counts when its first call agreed with the value that is wanted, to an
error that is said. JAX and PyTorch share one process and one device, so that
they take turns; neither takes memory that it does not need.
"""

import concurrent.futures
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from benchmarks import turns

FLOPS, BYTES = 60e12, 3.0e12
"""An H100's float32 operations and bytes of memory a second, in practice."""
ROUNDS, PATIENCE = 5, 3.0
"""Timed calls of each; a call that takes that many seconds is not repeated."""
MATMUL = {'float32': 'highest', 'TF32': 'tensorfloat32', 'bfloat16': 'default'}
"""jax_default_matmul_precision; operands of bfloat16 are cast by the parts."""
_POOL = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'compile')


class Way(NamedTuple):
  """One way to do a job.

  Attributes:
    run: () -> output; returns when the work has ended.
    value: output -> numbers that have to agree.
    program: the JAX program, if it is one.
    trips: output -> turns of the program's outermost `while`.
    per: what a time is divided by.
  """

  run: Callable[[], Any]
  value: Callable[[Any], Any]
  program: 'Program | None' = None
  trips: Callable[[Any], int] = lambda output: 1
  per: int = 1


class Program:
  """A jitted function that compiles on another thread, with its cost."""

  def __init__(
    self, fun: Callable, *args: Any, precision: str = 'float32', **options: Any
  ):
    with jax.default_matmul_precision(MATMUL[precision]):
      traced = jax.jit(fun, **options).trace(*args)
      lowered = traced.lower()
    jaxpr = traced.jaxpr.jaxpr
    self._jaxpr = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]
    self._compiled = _POOL.submit(lowered.compile)

  def __call__(self, *args: Any) -> Any:
    return jax.block_until_ready(self._compiled.result()(*args))

  @functools.cached_property
  def peak(self) -> float:
    """Bytes beyond the arguments, of XLA."""
    memory = self._compiled.result().memory_analysis()
    size = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return size - memory.alias_size_in_bytes

  def cost(self, way: Way, output: Any) -> dict[str, float]:
    """'flops', 'bytes', 'peak_xla', and the floors of the first two, in ms.

    XLA counts a loop's body once, and on a GPU nothing inside the calls of
    libraries. So operations are those of products and convolutions in what is
    compiled, times the turns of their loops; the bytes are XLA's, times the
    same factor.
    """
    xla = self._compiled.result().cost_analysis() or {}
    flops = operations(self._jaxpr, int(way.trips(output))) / way.per
    once = operations(self._jaxpr, 1, once=True)
    moved = xla.get('bytes accessed', math.nan) * flops / max(once, 1)
    return {
      'flops': flops,
      'bytes': moved,
      'peak_xla': self.peak,
      'xla_flops': xla.get('flops', math.nan),
      'floor_flops_ms': 1e3 * flops / FLOPS,
      'floor_bytes_ms': 1e3 * moved / BYTES,
    }


def operations(jaxpr: Any, trips: int = 1, once: bool = False) -> float:
  """Multiplications and additions of the products and convolutions of a jaxpr.

  Args:
    trips: turns of an outermost `while`; one inside another loop makes one.
    once: counts the body of every loop once, as XLA does.
  """
  total = 0.0
  for eqn in jaxpr.eqns:
    name, inner = eqn.primitive.name, list(_inner(eqn.params))
    if name == 'scan':
      length = eqn.params['unroll'] if once else eqn.params['length']
      total += length * operations(inner[0], 1, once)
    elif name == 'while':
      body = eqn.params['body_jaxpr'].jaxpr
      total += (1 if once else trips) * operations(body, 1, once)
    elif name == 'cond':
      total += max(operations(branch, trips, once) for branch in inner)
    elif inner:
      total += sum(operations(j, trips, once) for j in inner)
    else:
      total += _own(eqn)
  return total


def _inner(params: dict) -> Iterator[Any]:
  """The jaxprs in an equation's parameters."""
  for value in params.values():
    for one in value if isinstance(value, tuple) else (value,):
      one = getattr(one, 'jaxpr', one)
      if hasattr(one, 'eqns'):
        yield one


def _own(eqn: Any) -> float:
  """Two for each number of the output and each that is summed over for it."""
  name = eqn.primitive.name
  shapes = [v.aval.shape for v in eqn.invars]
  if name == 'dot_general':
    (summed, _), _ = eqn.params['dimension_numbers']
    sums = math.prod(shapes[0][i] for i in summed)
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * sums
  if name == 'conv_general_dilated':
    spec = eqn.params['dimension_numbers'].rhs_spec
    taps = math.prod(shapes[1]) / shapes[1][spec[0]]
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * taps
  if name.startswith('implicit_attr_conv_'):
    # Image, kernel and output are one trilinear form, whichever is asked for:
    # the pixels of the output side times the numbers of the kernel.
    out = eqn.outvars[0].aval.shape
    kernel = {'kernel': out}.get(name.split('_')[-1], shapes[1])
    pixels = {'output': out, 'image': shapes[0], 'kernel': shapes[1]}
    return 2.0 * math.prod(pixels[name.split('_')[-1]][:3]) * math.prod(kernel)
  return 0.0


def rows(
  group: str,
  precision: str,
  ways: dict[str, Way],
  error: float,
  wanted: np.ndarray | None = None,
) -> list[dict]:
  """One row for each way; without `wanted` they must give what the first does.

  A row has 'group', 'precision' and 'name'; 'error', the largest over the
  largest number wanted; where that is at most `error`, the times 'ms'; in bytes
  'peak', or 'peak_at_most', where the device knows; what `Program.cost` says;
  or 'failed', one line.
  """
  table, values, runs = {}, {}, {}
  # Peaks only ever rise, so the smallest comes first.
  for name in sorted(ways, key=lambda name: _size(ways[name])):
    way = ways[name]
    row = table[name] = {'group': group, 'precision': precision, 'name': name}
    try:
      output, peak = _watched(way)
      values[name] = np.asarray(way.value(output), np.float64)
      cost = way.program.cost(way, output) if way.program else {}
    except Exception as e:  # of one library: the others are still to be seen
      row['failed'] = f'{type(e).__name__}: {e}'.splitlines()[0][:90]
      continue
    row |= peak | cost
    runs[name] = way.run
  if wanted is None:
    wanted = values.get(next(iter(ways)), np.nan)
  for name, value in values.items():
    off = np.max(np.abs(value - wanted)) / np.max(np.abs(wanted))
    table[name]['error'] = float(off)
    if not off <= error:
      del runs[name]
  times = turns.interleave(runs, ROUNDS, PATIENCE)
  for name, (wall, _) in times.items():
    table[name]['ms'] = (1e3 * wall / ways[name].per).tolist()
  return [table[name] for name in ways]


def _size(way: Way) -> float:
  try:
    return way.program.peak if way.program else 0
  except Exception:  # it does not compile, and says so when it is called
    return 0


def _watched(way: Way) -> tuple[Any, dict[str, float]]:
  """(the output of one call, by how much it raised the device's memory)."""
  if way.program is None:
    torch = sys.modules.get('torch')
    if not torch or not torch.cuda.is_initialized():
      return way.run(), {}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    output = way.run()
    return output, {'peak': torch.cuda.max_memory_allocated() - before}
  stats = lambda: jax.local_devices()[0].memory_stats() or {}
  before = stats()
  output = way.run()
  after = stats()
  if 'peak_bytes_in_use' not in after:
    return output, {}
  rise = after['peak_bytes_in_use'] - before['bytes_in_use']
  raised = after['peak_bytes_in_use'] > before['peak_bytes_in_use']
  return output, {'peak' if raised else 'peak_at_most': rise}


def precisions(small: bool) -> tuple[str, ...]:
  """Those of a GPU; a CPU has no TF32."""
  return ('float32', 'bfloat16') if small else tuple(MATMUL)


def torch_device() -> str | None:
  """Where PyTorch works: on the device of JAX, or not at all."""
  try:
    import torch
  except ImportError:
    return None
  if jax.default_backend() != 'gpu':
    return 'cpu'
  return 'cuda' if torch.cuda.is_available() else None


def ended(run: Callable, device: str, precision: str) -> Callable[[], Any]:
  """`run` in PyTorch at that precision, returning when its work has ended."""
  import torch

  torch.backends.cudnn.benchmark = True

  def work():
    exact = precision == 'float32'
    torch.set_float32_matmul_precision('highest' if exact else 'high')
    torch.backends.cudnn.allow_tf32 = not exact
    output = run()
    if device == 'cuda':
      torch.cuda.synchronize()
    return output

  return work
