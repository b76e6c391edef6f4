"""Compiled programs, begun side by side before they are needed.

XLA compiles one program on about one core and without Python's lock. A run
needs half a dozen of them, so they are begun together and waited for one by
one.
"""

import concurrent.futures
import ctypes
import os
from collections.abc import Callable
from typing import Any

import jax

from implicit_attr import errors

EFFORTS = ('full', 'quick')

_POOL = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'compile')


def set_effort(effort: str) -> None:
  """'quick' has XLA optimise little, in this process from now on.

  For runs of a few steps, which are all compilation: a ResNet-8's cost 59
  instead of 94 seconds of CPU (AMD EPYC); its steps take three times as long.

  Raises:
    InputError: an unknown effort.
  """
  errors.choose('compile', effort, EFFORTS)
  jax.config.update('jax_disable_most_optimizations', effort == 'quick')


def keep_memory() -> None:
  """Has the C library keep what is freed, for the rest of this process.

  XLA on CPUs asks for its buffers anew in every call. Large ones come from the
  kernel, page by page and zeroed: a CNN's step of 48 to 62 ms had 15500 page
  faults and took 64 to 70 ms without this (medians of three processes each,
  AMD EPYC in a virtual machine). Call it before JAX begins its threads, which
  else have heaps of their own that are given back. Does nothing where the C
  library is not glibc.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return
  mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads
  mallopt(-4, 0)  # M_MMAP_MAX: nothing straight from the kernel
  mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing back to it


class Program:
  """A jitted function that is compiled once, for one set of shapes.

  `prepare` begins to compile on another thread and returns at once; a call
  prepares if nobody has, and waits.
  """

  def __init__(self, fun: Callable, **options: Any):
    self._jitted = jax.jit(fun, **options)
    self._compiled: concurrent.futures.Future | None = None

  def prepare(self, *args: Any) -> None:
    """Begins to compile for arguments of these shapes, types and layouts."""
    if self._compiled is None:
      # Of this thread, maybe for a while only; jax declares no options.
      wide = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
      self._compiled = _POOL.submit(self._compile, wide, *args)

  def _compile(self, wide: bool, *args: Any) -> Any:
    with jax.enable_x64(wide):
      return self._jitted.lower(*args).compile()

  def wait(self) -> None:
    """Returns when what was prepared is compiled; raises what that raised."""
    assert self._compiled is not None
    self._compiled.result()

  def __call__(self, *args: Any) -> Any:
    self.prepare(*args)
    assert self._compiled is not None
    return self._compiled.result()(*args)
