"""How do time and memory of attention grow with the length of the sequence?

  python -m benchmarks.attention --lengths 64 128 256 512 1024 2048 4096
  python -m benchmarks.attention --torch

Forward, forward with backward, and a Hessian-vector product in q, k and v, of
our kernels beside `jax.nn.dot_product_attention` and, with --torch, PyTorch's
scaled_dot_product_attention and a plain linear attention in PyTorch. All run in
turn on the same numbers, so that the load of the machine slows all of them;
the time is the least of all turns, on the wall's clock or, where others use the
machine too, that of the process (all its threads together). Memory is what XLA
sets aside for intermediates. The exponent is the slope of the last half of the
lengths, in logarithms. An entry whose call takes over --patience seconds, or
that would set aside more than --memory GiB, is not run at longer sequences.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr.models import attention
from implicit_attr.runtime import programs

CLOCKS = {'wall': time.perf_counter, 'process': time.process_time}


def passes(attend: Callable) -> dict[str, Callable]:
  """Functions of (q, k, v) and a direction: what training and probes do.

  The direction is an argument of its own: where it is known to be q, k and v,
  XLA leaves out work that is there twice.
  """

  def total(qkv):
    return jnp.sum(jnp.square(attend(*qkv)))

  def hvp(qkv, direction):
    return jax.jvp(jax.grad(total), (qkv,), (direction,))[1]

  return {
    'forward': lambda qkv, _: attend(*qkv),
    'backward': lambda qkv, _: jax.value_and_grad(total)(qkv),
    'hvp': hvp,
  }


def draw(size: int, args: argparse.Namespace) -> np.ndarray:
  """q, k and v of one example, [3, 1, L, H, Dh]."""
  rng = np.random.default_rng(0)
  shape = (3, 1, size, args.heads, args.width)
  return rng.normal(size=shape).astype(np.float32)


def of_jax(size: int, args: argparse.Namespace) -> dict[tuple[str, str], tuple]:
  """(entry, pass) -> (call, MiB of intermediates)."""
  qkv = tuple(jnp.asarray(draw(size, args)))
  kernels = {
    name: functools.partial(attention.attend, name) for name in args.kernels
  }
  found = {}
  for name, attend in (
    kernels | {'jax.nn': jax.nn.dot_product_attention}
  ).items():
    for kind, fun in passes(attend).items():
      if (name, kind) in args.stopped:
        continue
      program = jax.jit(fun).lower(qkv, qkv).compile()
      memory = program.memory_analysis().temp_size_in_bytes / 2**20
      call = lambda program=program: jax.block_until_ready(program(qkv, qkv))
      found[name, kind] = call, memory
  return found


def of_torch(
  qkv: np.ndarray, device: str = 'cpu', dtype: str = 'float32'
) -> dict[tuple[str, str], Callable]:
  """(entry, pass) -> call, of PyTorch's own attention and a linear one.

  Its fused kernels have no second derivative: a Hessian product goes through
  the one it calls MATH.
  """
  import torch
  from torch.nn import attention as kernels
  from torch.nn import functional

  heads_first = torch.tensor(qkv, device=device).transpose(2, 3).contiguous()
  heads_first = heads_first.to(getattr(torch, dtype))
  qkv = [n.clone().requires_grad_() for n in heads_first]

  def linear(q, k, v):
    q, k = functional.elu(q) + 1, functional.elu(k) + 1
    total = q @ k.sum(-2)[..., None]
    return q @ (k.transpose(-1, -2) @ v) / (total + 1e-6)

  calls = {}
  for name, attend in (
    ('torch sdpa', functional.scaled_dot_product_attention),
    ('torch linear', linear),
  ):

    def forward(attend=attend):
      with torch.no_grad():
        return attend(*qkv)

    def backward(attend=attend):
      return torch.autograd.grad(attend(*qkv).square().sum(), qkv)

    def hvp(attend=attend):
      with kernels.sdpa_kernel(kernels.SDPBackend.MATH):
        total = attend(*qkv).square().sum()
        slopes = torch.autograd.grad(total, qkv, create_graph=True)
        return torch.autograd.grad(slopes, qkv, [n.detach() for n in qkv])

    passes = {'forward': forward, 'backward': backward, 'hvp': hvp}
    calls |= {(name, kind): call for kind, call in passes.items()}
  return calls


def measure(args: argparse.Namespace) -> dict[tuple[str, str], dict]:
  """(entry, pass) -> {length: (milliseconds, MiB)}."""
  rows: dict[tuple[str, str], dict] = {}
  for size in args.lengths:
    entries = of_jax(size, args)
    if args.torch:
      for key, call in of_torch(draw(size, args)).items():
        if key not in args.stopped:
          entries[key] = call, float('nan')
    best = dict.fromkeys(entries, float('inf'))
    for key, (call, memory) in entries.items():
      if memory > 1024 * args.memory:
        args.stopped.add(key)
        del best[key]
      else:
        call()
    for _ in range(args.turns):
      for key in best:
        # Short calls several times, so that the clock's own cost is nothing.
        count = 1 + int(min(0.02 / best[key], 100))
        began = CLOCKS[args.clock]()
        for _ in range(count):
          entries[key][0]()
        spent = (CLOCKS[args.clock]() - began) / count
        best[key] = min(best[key], spent)
    for key, seconds in best.items():
      rows.setdefault(key, {})[size] = 1e3 * seconds, entries[key][1]
      if seconds > args.patience:
        args.stopped.add(key)
  return rows


def exponent(points: dict[int, float]) -> float:
  """The slope of log value against log length, over the last half."""
  last = list(points.items())[len(points) // 2 - 1 :]
  if len(last) < 2 or not all(v > 0 for _, v in last):
    return float('nan')
  return float(np.polyfit(*np.log(last).T, 1)[0])


def table(rows: dict, lengths: list[int], column: int, title: str) -> None:
  print(f'\n{title}')
  print(f'{"":32}' + ''.join(f'{n:>10}' for n in lengths) + f'{"exponent":>10}')
  for (name, kind), found in rows.items():
    values = {n: found[n][column] for n in found}
    if np.isnan(list(values.values())).any():
      continue
    cells = ''.join(f'{values.get(n, np.nan):>10.3g}' for n in lengths)
    print(f'{name + ", " + kind:32}{cells}{exponent(values):>10.2f}')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--lengths', type=int, nargs='+', default=[2**i for i in range(6, 13)])
  add('--kernels', nargs='+', default=['softmax', 'linear', 'elu1_none'])
  add('--heads', type=int, default=4)
  add('--width', type=int, default=64, help='of a head')
  add('--turns', type=int, default=7)
  add('--patience', type=float, default=5.0)
  add('--memory', type=float, default=8.0)
  add('--clock', choices=CLOCKS, default='wall')
  add('--torch', action='store_true')
  args = parser.parse_args()
  args.stopped = set()
  if args.torch:
    import torch

    torch.set_num_threads(os.cpu_count())
  programs.keep_memory()  # as in a run
  device = jax.devices()[0]
  print(f'jax {jax.__version__}, {device.device_kind}, {os.cpu_count()} cores')
  print(f'{args.heads} heads of {args.width}; clock: {args.clock}')
  rows = measure(args)
  table(rows, args.lengths, 0, 'milliseconds of a call')
  table(rows, args.lengths, 1, 'MiB of intermediates')


if __name__ == '__main__':
  main()
