"""A training step: spans of updates on resident images, beside PyTorch's.

Both keep stored pixels and what was drawn on the device, and crop, flip and
update there, plain SGD on the mean loss of a batch. Ours makes a span in one
compiled program, as a run does. PyTorch's makes as many calls as it has
updates: eager, and with what comes before the optimiser under torch.compile;
images channels last, attention by its own kernels, bfloat16 by autocast.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import measure
from implicit_attr import data, losses, models, objectives, train
from implicit_attr.data.source import Stored

VIT = {'patch': 4, 'width': 192, 'depth': 6, 'heads': 3, 'mlp_ratio': 4}
TINY = {'patch': 8, 'width': 16, 'depth': 1, 'heads': 2, 'mlp_ratio': 2}
NETWORKS = {
  'resnet8': {'width': 16, 'norm': 'batch'},
  'resnet18': {'width': 64, 'norm': 'batch'},
  'vit': VIT,
}
SMALL = {'resnet8': {'width': 4, 'norm': 'batch'}, 'vit': TINY}
RATE = 0.05
ERROR = {'float32': 1e-3, 'TF32': 1e-2, 'bfloat16': 5e-2}
"""Of the losses of the first updates, to which PyTorch's agree."""
FIRST = 3


def rows(small: bool) -> Iterator[list[dict]]:
  """Groups of rows: first of eager PyTorch, then of what it compiles."""
  batch, span, block, examples = (
    (8, 4, 3, 64) if small else (128, 100, 20, 8192)
  )
  device = measure.torch_device()
  source = noise(batch, examples)
  table, draws = source.table(), source.draws(0, span)
  problems = {}
  for name, options in (SMALL if small else NETWORKS).items():
    module, state = start(name, options)
    problems[name] = module, state, options
  jax_ways = {
    (name, precision): ours(module, state, table, draws, precision)
    for name, (module, state, _) in problems.items()
    for precision in measure.precisions(small)
  }
  # What takes long to compile comes last, so that it takes nothing else along.
  for compiled in (False, True) if device == 'cuda' else (False,):
    for (name, precision), way in jax_ways.items():
      _, state, options = problems[name]
      ways = {'ours': way}
      if device:
        run = theirs(
          name, options, state, table, draws, block, precision, device, compiled
        )
        title = 'torch.compile' if compiled else 'PyTorch'
        run = measure.ended(run, device, precision)
        ways[title] = measure.Way(run, first_losses, per=block)
      group = f'{name}, compiled' if compiled else name
      yield measure.rows(group, precision, ways, ERROR[precision])


def noise(batch: int, examples: int) -> data.Source:
  """Random images with random labels, cropped and flipped."""
  rng = np.random.default_rng(0)
  shape = (32, 32, 3)
  images = rng.integers(0, 256, (examples, *shape), np.uint8)
  labels = rng.integers(0, 10, examples)
  fetch = lambda at: {'image': images[at], 'label': labels[at]}
  stored = Stored('noise', 10, shape, examples, 255, fetch)
  return data.Source(stored, batch_size=batch, augment=('crop', 'flip'))


def start(name: str, options: dict) -> tuple[Any, train.State]:
  """The module and its state at step 0, with logits that are not almost 0."""
  module = models.build(name, **options)
  tx = train.optimizer('sgd')
  draw = jax.jit(lambda key, x: train.init(module, tx, key, x))
  state = draw(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  state.params['logits']['kernel'] *= 10
  return module, state


def ours(
  module: Any, state: train.State, table: dict, draws: dict, precision: str
) -> measure.Way:
  """All updates of `draws` in one program, which donates its state."""
  loss_fn = objectives.make('none', losses.make('cross_entropy'))
  if precision == 'bfloat16':
    loss_fn = narrow(loss_fn)
  sums = train.make_sums(module, loss_fn)
  update = train.make_update(train.optimizer('sgd'))
  length = len(draws['index'])

  def span(state, draws, n, table):
    def step(state, draw):
      batch = data.assemble(table, draw)
      new = sums(state.params, state.model_state, batch, jax.random.key(0))
      state = update(state, new, jnp.float32(RATE))
      return state, new['loss'] / new['n']

    return train.make_advance(step)(state, draws, n)

  rest = jax.device_put((draws, np.int32(length), table))
  box = [jax.tree.map(jnp.copy, state)]
  program = measure.Program(
    span, *box, *rest, precision=precision, donate_argnums=0
  )

  def run():
    box[0], losses = program(*box, *rest)
    return losses

  return measure.Way(run, first_losses, program, lambda _: length, length)


def narrow(make_loss_fn: Callable) -> Callable:
  """The same objective of a network that works in bfloat16."""
  cast = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)

  def make(apply_fn):
    def narrowed(params, x):
      logits, out = apply_fn(cast(params), cast(x))
      return logits.astype(jnp.float32), out

    return make_loss_fn(narrowed)

  return make


def theirs(
  name: str,
  options: dict,
  state: train.State,
  table: dict,
  draws: dict,
  count: int,
  precision: str,
  device: str,
  compiled: bool,
) -> Callable[[], Any]:
  """The first `count` updates of `draws`, in PyTorch."""
  import torch
  from torch.nn import functional as F

  from benchmarks import torch_twin

  twin = torch_twin.Twin(name, state.params, options, device, fused=True)
  twin = twin.to(memory_format=torch.channels_last)
  tx = torch.optim.SGD(twin.parameters(), RATE, fused=True)
  put = lambda a: torch.tensor(np.ascontiguousarray(a[:count]), device=device)
  index, label = put(draws['index']).long(), put(draws['label']).long()
  flip, corner = put(draws['flip']), put(draws['crop'])
  images, pad = table['image'], table['image'].shape[1] // 8
  mirrored = torch_twin.mirrored(name)
  if mirrored:  # see Twin; a window of the mirrored image lies elsewhere
    images, corner = images[:, ::-1, ::-1], 2 * pad - corner
  images = torch.tensor(images.copy(), device=device)
  side = torch.arange(images.shape[1], device=device)
  each = torch.arange(index.shape[1], device=device)[:, None, None]

  narrowed = contextlib.nullcontext
  if precision == 'bfloat16':
    narrowed = functools.partial(torch.autocast, device, torch.bfloat16)

  def loss_of(index, label, corner, flip):
    x = F.pad(images[index], (0, 0, pad, pad, pad, pad))
    down = corner[:, :1] + side
    across = corner[:, 1:] + torch.where(flip[:, None], side.flip(0), side)
    x = x[each, down[:, :, None], across[:, None, :]].float() / 255
    if mirrored:
      x = x.permute(0, 3, 1, 2)  # channels last, as it was stored
    with narrowed():
      logits = twin(x)
    return F.cross_entropy(logits.float(), label)

  if compiled:
    torch.compiler.reset()  # it remembers a few variants of a function only
    loss_of = torch.compile(loss_of)

  def run():
    seen = []
    for draw in zip(index, label, corner, flip, strict=True):
      tx.zero_grad()
      loss = loss_of(*draw)
      loss.backward()
      tx.step()
      seen.append(loss.detach())
    return torch.stack(seen)

  return run


def first_losses(losses: Any) -> np.ndarray:
  """Of a first call; PyTorch's come from its device."""
  losses = losses[:FIRST]
  return np.asarray(losses if isinstance(losses, jax.Array) else losses.cpu())
