"""What does a curvature cost, here and in the libraries that also give it?

  python benchmarks/curvature.py --network cnn --jobs product lambda_max
  python benchmarks/curvature.py --network mlp --memory
  python benchmarks/curvature.py --loops   ten Lanczos steps, our convolution
                                           and JAX's own

Needs PyTorch, PyHessian, hessian-eigenthings, curvlinops-for-pytorch, matfree
and traceax. All work on the same weights and the same batch, one call of each
in turn, so that the load of the machine slows all of them. Compilation is left
out. An eigenvalue is right at a relative error of 1e-3 for each of the starts
that are timed: every entry has a list of settings, cheapest first, and gets
the first that is right. JAX's libraries get our network and one linearisation,
the best that their user can do. Ratios of one run mean something, times of two
runs do not.
"""

import argparse
import ctypes
import functools
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature, models
from implicit_attr.models import conv

NETWORKS = {  # name: (module, its options, examples)
  'cnn': ('cnn', {}, 256),
  'mlp': ('mlp', {}, 256),
  'resnet8': ('resnet8', {'width': 8}, 128),
  'vit': ('vit', {'patch': 4, 'width': 64, 'depth': 2, 'heads': 4}, 64),
}
JOBS = ('gradient', 'product', 'shared', 'lambda_max', 'trace', 'input')
RIGHT, DRAWS, IMAGES, MANY = 1e-3, 30, 64, 11
STEPS = (6, 8, 10, 12, 14, 17, 20, 25, 30, 40)


class Entry(NamedTuple):
  """One library at one job: run(setting, seed) -> number, array or None."""

  run: Callable[[Any, int], Any]
  settings: Sequence = (None,)


class Problem(NamedTuple):
  """The same network twice; `args` = (params, x, y) are JAX's."""

  loss: Callable
  args: tuple
  twin: Any
  tx: Any
  ty: Any


def problem(network: str, scale: int = 1) -> Problem:
  """A few SGD steps from the start, so that there is a spectrum to see."""
  name, options, batch = NETWORKS[network]
  batch //= scale
  module = models.build(name, **options)
  rng = np.random.default_rng(0)
  y = rng.integers(10, size=batch)
  x = 0.5 + 0.2 * rng.normal(size=(10, 32, 32, 3))[y]
  x = np.clip(x + 0.2 * rng.normal(size=x.shape), 0, 1).astype(np.float32)
  params = jax.jit(module.init)(jax.random.key(0), x[:1])['params']

  def losses(params, x, y):
    logits, _ = module.apply({'params': params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)

  @jax.jit
  def descend(params, x, y):
    grad = jax.grad(lambda p: losses(p, x, y).mean())
    step = lambda _, p: jax.tree.map(lambda p, g: p - 0.02 * g, p, grad(p))
    return jax.lax.fori_loop(0, 30, step, params)

  params = descend(params, x, y)
  # 'SAME' pads below and to the right where PyTorch pads all around. On
  # mirrored images and kernels the two are equal, at no cost.
  import torch
  import torch_twin

  torch.set_num_threads(os.cpu_count())
  twin = torch_twin.Twin(name, params, options)
  tx, ty = torch_twin.images(name, x), torch.tensor(y)
  ours = float(losses(params, x, y).mean())
  theirs = float(torch.nn.functional.cross_entropy(twin(tx), ty))
  print(f'{network}: {ravel_pytree(params)[0].size} parameters, {batch} images,'
        f' loss {ours:.6f}, PyTorch {theirs:.6f}')
  assert abs(ours - theirs) <= 1e-5 * abs(ours)
  return Problem(losses, (params, jnp.asarray(x), jnp.asarray(y)), twin, tx, ty)
