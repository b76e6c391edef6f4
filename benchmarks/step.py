"""What does a training step cost, beside PyTorch and inside a loop?

  python -m benchmarks.step          our CNN step and PyTorch's, interleaved
  python -m benchmarks.step --loops  top level against scan body, four ops

The first needs PyTorch. The second shows a fall back to slow convolutions: a
scan body must cost what the top level costs, give or take the load of the
machine. Ratios of one run mean something, times of two runs do not.
"""

import argparse
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import turns
from implicit_attr import models
from implicit_attr.runtime import programs

CLASSES = 10


def problem(args: argparse.Namespace) -> tuple:
  """The module, its parameters and one batch of random images."""
  module = models.build(
    'cnn',
    width=args.width,
    depth=args.depth,
    downsample=args.downsample,
    activation=args.activation,
  )
  rng = np.random.default_rng(0)
  x = rng.random((args.batch, args.size, args.size, 3), np.float32)
  y = rng.integers(CLASSES, size=args.batch)
  params = jax.jit(module.init)(jax.random.key(0), x[:1])['params']
  return module, params, x, y


def loss_fn(module, params, x, y) -> jax.Array:
  logits, _ = module.apply({'params': params}, x)
  return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def jax_step(module, params, x, y, lr=0.05) -> Callable[[], None]:
  """One SGD step with momentum, state donated, synchronised."""
  tx = optax.sgd(lr, momentum=0.9)

  def step(params, opt_state, x, y):
    grads = jax.grad(lambda p: loss_fn(module, p, x, y))(params)
    updates, opt_state = tx.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state

  step = jax.jit(step, donate_argnums=(0, 1))
  state = [jax.tree.map(jnp.copy, params), tx.init(params)]

  def run() -> None:
    state[:] = step(*state, x, y)
    jax.block_until_ready(state)

  return run


def torch_step(args, x, y, last: bool, lr=0.05) -> Callable[[], None]:
  """The same layers and step; padding is symmetric where ours is 'SAME'.

  `last` asks for the memory format channels_last.
  """
  import torch
  from torch import nn

  torch.set_num_threads(os.cpu_count())
  activation = {'relu': nn.ReLU, 'gelu': nn.GELU, 'tanh': nn.Tanh}
  activation = activation[args.activation]
  channels, size, layers = 3, args.size, []
  for i in range(args.depth):
    stride = 1
    if i:
      size = -(-size // 2)
      if args.downsample == 'avg_pool':
        layers.append(nn.AvgPool2d(2, ceil_mode=True))
      else:
        stride = 2
    width = args.width * 2**i
    layers += [nn.Conv2d(channels, width, 3, stride, 1), activation()]
    channels = width
  layers += [nn.Flatten(), nn.Linear(channels * size * size, 64)]
  net = nn.Sequential(*layers, activation(), nn.Linear(64, CLASSES))
  opt = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
  loss = nn.CrossEntropyLoss()
  x, y = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y)
  if last:
    x = x.contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)

  def run() -> None:
    opt.zero_grad()
    loss(net(x), y).backward()
    opt.step()

  return run


def loops(module, params, x, y, length: int) -> dict[str, Callable[[], None]]:
  """Four ops at the top level and as the body of a scan of `length`."""
  fun = lambda p, x: loss_fn(module, p, x, y)
  in_theta = jax.grad(fun)
  ops = {  # name: (op of (carry, params, x), the carry)
    'forward': (lambda c, p, x: jnp.full_like(c, fun(p, c)), x),
    'gradient in theta': (lambda c, p, x: in_theta(c, x), params),
    'gradient in x': (lambda c, p, x: jax.grad(fun, 1)(p, c), x),
    'Hessian product': (
      lambda c, p, x: jax.jvp(lambda p: in_theta(p, x), (p,), (c,))[1],
      params,
    ),
  }
  runs = {}
  for name, (op, carry) in ops.items():
    runs[name] = synchronised(jax.jit(op), carry, params, x)
    body = jax.jit(repeat(op, length))
    runs[f'{name}, scan'] = synchronised(body, carry, params, x)
  return runs


def synchronised(fun: Callable, *args) -> Callable[[], None]:
  return lambda: jax.block_until_ready(fun(*args))


def repeat(op: Callable, length: int) -> Callable:
  """`length` calls of `op` in a scan, each depending on the one before."""
  small = lambda a, b: a + 1e-6 * b

  def fun(carry, *args):
    body = lambda c, _: (jax.tree.map(small, c, op(c, *args)), None)
    return lax.scan(body, carry, length=length)[0]

  return fun


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--loops', action='store_true')
  parser.add_argument('--batch', type=int, default=128)
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--width', type=int, default=16)
  parser.add_argument('--depth', type=int, default=3)
  parser.add_argument('--downsample', default='stride')
  parser.add_argument('--activation', default='relu')
  parser.add_argument('--rounds', type=int, default=15)
  args = parser.parse_args()
  programs.keep_memory()  # as in a run; PyTorch gains and loses nothing
  length = 5
  module, params, x, y = problem(args)
  if args.loops:
    runs = loops(module, params, x, y, length)
  else:
    runs = {
      'jax': jax_step(module, params, x, y),
      'torch': torch_step(args, x, y, False),
      'torch, channels last': torch_step(args, x, y, True),
    }
  for run in runs.values():
    run()
  times = turns.interleave(runs, args.rounds)
  print(f'jax {jax.__version__}, {os.cpu_count()} cores, load', end=' ')
  print(*(f'{load:.1f}' for load in os.getloadavg()), vars(args))
  for name, (wall, cpu) in times.items():
    n = length if name.endswith('scan') else 1
    print(
      f'{name:24s} wall {np.median(wall) / n * 1e3:7.1f} ms (least '
      f'{wall.min() / n * 1e3:7.1f}), CPU {np.median(cpu) / n * 1e3:7.1f} ms'
    )
  if args.loops:
    return
  ours = times.pop('jax')
  for name, theirs in times.items():
    wall, cpu = np.median(ours / theirs, 1)
    print(f'jax / {name}: wall {wall:.2f}, CPU {cpu:.2f}')


if __name__ == '__main__':
  main()
