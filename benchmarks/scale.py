"""What does a step, a Hessian product or a checkpoint cost on more devices?

  python -m benchmarks.scale devices     # 1 to 8 virtual devices, weak scaling
  python -m benchmarks.scale checkpoint  # saves of 10 and 200 MB
  python -m benchmarks.scale paper       # ViT-B/16 at 224², from its programs

`devices` reads flops and messages from the compiled programs, which do not
depend on the machine, and prints times as ratios within the run. `paper` only
lowers and compiles: nothing of that size is run. docs/scale.md quotes what they
print.
"""

import dataclasses
import math
import pathlib
import re
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import curvature, losses, models, train
from implicit_attr.configs import digits_cnn
from implicit_attr.runs import checkpoint
from implicit_attr.runtime import dist
from implicit_attr.train import experiment
from implicit_attr.train import step as train_step

PER_DEVICE, STEPS = 32, 10
_BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'pred': 1, 'f64': 8}


def messages(compiled) -> tuple[int, int]:
  """(number, bytes per device) of the sums between devices in a program."""
  count = size = 0
  for line in compiled.as_text().splitlines():
    match = re.search(r'= (.*?) all-reduce(-start)?\(', line)
    if match:
      count += 1
      for kind, dims in re.findall(r'(\w+)\[([\d,]*)\]', match[1]):
        shape = [int(d) for d in dims.split(',') if d]
        size += _BYTES[kind] * math.prod(shape)
  return count, size


def seconds(fun) -> float:
  """Median time of a call, after one that does not count."""
  jax.block_until_ready(fun())
  spent = []
  for _ in range(STEPS):
    began = time.perf_counter()
    jax.block_until_ready(fun())
    spent.append(time.perf_counter() - began)
  return statistics.median(spent)


def devices() -> None:
  """Weak scaling: as many examples per device on each line."""
  print('devices  program  MFLOP/device  all-reduces  MB/device  time ratio')
  first = {}
  for n in (1, 2, 4, 8):
    config = digits_cnn.get_config()
    config.data.batch_size = PER_DEVICE * n
    built = experiment.build(config.to_dict())
    mesh = dist.Mesh(
      'jit', jax.sharding.Mesh(np.array(jax.devices()[:n]), ('data',))
    )
    built = dataclasses.replace(built, mesh=mesh)
    state = mesh.replicate(built.init())
    batch = mesh.split(built.train_set.batch_at(0))
    sums = train_step.make_sums(built.module, built.make_loss_fn)
    update = train_step.make_update(built.tx)

    def step(state, batch):
      found = sums(state.params, {}, batch, jax.random.key(0))
      return update(state, found, jnp.float32(0.1))

    def product(state, batch):
      apply_fn = train.frozen(built.module, {})
      logits = lambda p: apply_fn(p, batch['image'])[0]
      fun = lambda p: jnp.mean(built.loss(logits(p), batch['label']))
      return curvature.hvp(fun, state.params, state.params)

    for name, fun in (('step', step), ('HVP', product)):
      compiled = (
        jax.jit(fun, out_shardings=mesh.whole).lower(state, batch).compile()
      )
      spent = seconds(lambda: compiled(state, batch))
      first.setdefault(name, spent)
      count, size = messages(compiled)
      flops = compiled.cost_analysis()['flops']
      print(
        f'{n:7}  {name:7}  {flops / 1e6:12.1f}  {count:11}  {size / 1e6:9.3f}  '
        f'{spent / first[name]:10.2f}'
      )
  size = sum(p.nbytes for p in jax.tree.leaves(state.params))
  print(f'parameters: {size / 1e6:.3f} MB')


def checkpoints() -> None:
  """Seconds of a whole save and restore: the numbers, the hash, the disk."""
  for megabytes in (10, 200):
    draw = np.random.default_rng(0)
    parts = [
      draw.standard_normal(megabytes * 1024 * 256 // 10, np.float32)
      for _ in range(10)
    ]
    state = dict(zip('abcdefghij', parts, strict=True))
    with tempfile.TemporaryDirectory() as folder:
      kept = checkpoint.Checkpoints(pathlib.Path(folder), keep=1)
      spent = []
      for step in range(4):
        began = time.perf_counter()
        kept.save(step, state, {})
        spent.append(time.perf_counter() - began)
      began = time.perf_counter()
      kept.restore(3, state)
      restored = time.perf_counter() - began
      began = time.perf_counter()
      checkpoint.fingerprint(state)
      hashed = time.perf_counter() - began
      kept.close()
    print(
      f'{megabytes} MB: save {statistics.median(spent[1:]):.2f} s, of which '
      f'hash {hashed:.2f} s; restore {restored:.2f} s'
    )


def paper() -> None:
  """Flops of ViT-B/16 on one image of 224², and the bytes of its state."""
  module = models.build(
    'vit', num_classes=1000, patch=16, width=768, depth=12, heads=12,
    mlp_ratio=4, readout='cls',
  )  # fmt: skip
  x = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
  y = jax.ShapeDtypeStruct((1,), np.int32)
  params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
  count = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
  loss = losses.make('cross_entropy')

  def fun(params, x, y):
    return jnp.mean(loss(train.frozen(module, {})(params, x)[0], y))

  programs = {
    'forward': fun,
    'gradient': jax.grad(fun),
    'HVP': lambda p, x, y: curvature.hvp(lambda p: fun(p, x, y), p, p),
    'input gradient': jax.grad(fun, argnums=1),
    'input HVP': lambda p, x, y: curvature.hvp(lambda x: fun(p, x, y), x, x),
  }
  print(f'{count / 1e6:.1f} M parameters, {4 * count / 1e6:.0f} MB in float32')
  for name, program in programs.items():
    flops = jax.jit(program).lower(params, x, y).cost_analysis()['flops']
    print(f'{name}: {flops / 1e9:.1f} GFLOP an image')
  memory = {}
  for n in (2, 4):  # what one more image needs, from the two
    batch = (
      jax.ShapeDtypeStruct((n, 224, 224, 3), np.float32),
      jax.ShapeDtypeStruct((n,), np.int32),
    )
    for name in ('gradient', 'HVP'):
      compiled = jax.jit(programs[name]).lower(params, *batch).compile()
      memory[name, n] = compiled.memory_analysis().temp_size_in_bytes
  for name in ('gradient', 'HVP'):
    more = (memory[name, 4] - memory[name, 2]) / 2
    print(f'{name}: {more / 1e6:.0f} MB more for each image (XLA on CPUs)')


if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', 8)
  {'devices': devices, 'checkpoint': checkpoints, 'paper': paper}[sys.argv[1]]()
