"""Attention from 1,024 to 16,384 tokens: softmax and linear, three passes.

Forward, with backward, and a Hessian product in q, k and v: 4 heads of 64, one
example. Beside PyTorch's scaled_dot_product_attention, whose fused kernels have
no second derivative (its Hessian product is of the kernel that has), and a
linear attention in PyTorch.
"""

import argparse
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import attention as entries
from benchmarks.gpu import measure
from implicit_attr.models import attention

LENGTHS, SMALL = (1024, 4096, 16384), (16,)
ERROR = {'float32': 1e-3, 'TF32': 1e-2, 'bfloat16': 5e-2}
PEERS = {'softmax': 'torch sdpa', 'linear': 'torch linear'}


def rows(small: bool) -> Iterator[list[dict]]:
  device = measure.torch_device()
  size = argparse.Namespace(heads=2 if small else 4, width=8 if small else 64)
  for length in SMALL if small else LENGTHS:
    qkv = entries.draw(length, size)
    jax_ways = {
      precision: ours(qkv, precision) for precision in measure.precisions(small)
    }
    for precision, ways in jax_ways.items():
      theirs = {}
      if device:
        dtype = 'bfloat16' if precision == 'bfloat16' else 'float32'
        theirs = entries.of_torch(qkv, device, dtype)
      for (kernel, kind), way in ways.items():
        group = {'ours': way}
        peer = PEERS[kernel], kind
        if peer in theirs:
          run = measure.ended(theirs[peer], device, precision)
          group[peer[0]] = measure.Way(run, norms)
        title = f'{kernel}, {length}, {kind}'
        yield measure.rows(title, precision, group, ERROR[precision])


def ours(qkv: np.ndarray, precision: str) -> dict[tuple, measure.Way]:
  """(kernel, pass) -> its program."""
  dtype = jnp.bfloat16 if precision == 'bfloat16' else jnp.float32
  qkv = tuple(jnp.asarray(qkv, dtype))
  ways = {}
  for kernel in PEERS:
    attend = functools.partial(attention.attend, kernel)
    for kind, fun in entries.passes(attend).items():
      program = measure.Program(fun, qkv, qkv, precision=precision)
      run = functools.partial(program, qkv, qkv)
      ways[kernel, kind] = measure.Way(run, norms, program)
  return ways


def norms(output: Any) -> list[float]:
  """The norm of each array, which does not see where the heads are."""
  if isinstance(output, tuple) and output[0].ndim == 0:
    output = output[1]  # the gradients, after their value
  arrays = output if isinstance(output, tuple | list) else (output,)
  host = [a if isinstance(a, jax.Array) else a.float().cpu() for a in arrays]
  return [float(np.linalg.norm(np.asarray(a, np.float32))) for a in host]
