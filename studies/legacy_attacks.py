"""How much lower does one network score under our attack than under old ones?

  python -m implicit_attr.main --config configs/mnist10k_cnn.py \
    --config.data.data_dir=… --config.model.activation=relu \
    --config.model.width=8 --config.train.duration='20 epochs' \
    --workdir runs/legacy
  python studies/legacy_attacks.py runs/legacy

Writes legacy_attacks.md beside this file. Every protocol runs with the settings
its authors released, and once more at one radius for all; ours attacks the very
map that the protocol reports, at the same radius, with the default settings.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from implicit_attr import attacks, attribution, train
from implicit_attr.attacks import legacy
from implicit_attr.evaluation import evaluate
from implicit_attr.runs import records
from implicit_attr.train import experiment
from implicit_attr.types import Array, Explain

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

COMMON = 0.1
KEY = jax.random.key(0)
GRADIENT = ('gradient', 'logit', {})
PATH = ('integrated_gradients', 'logit', {'rule': 'right', 'steps': 100})
LOSS = ('integrated_gradients', 'loss', {'rule': 'trapezoid', 'steps': 101})
SHORT = {'rule': 'gauss_legendre', 'steps': 16}
"""What ours follows and selects by; it is reported on the protocol's rule."""


@dataclasses.dataclass(frozen=True)
class Row:
  """One protocol: what it reports, by which k, and changes that MNIST needs."""

  name: str
  spec: tuple = GRADIENT
  k: int = 100
  changes: dict = dataclasses.field(default_factory=dict)
  radii: tuple = ()  # the published one and COMMON; () where there is no ball


ROWS = (
  # 1000 of 227² pixels is more than there are here; 100 is their CIFAR-10's.
  Row('ghorbani', changes={'k': 100}, radii=(8 / 255, COMMON)),
  # One attempt of three: the others are the same, as a test shows.
  # At COMMON it is all but rar_fmnist, which differs in k only.
  Row('rar_mnist', PATH, changes={'attempts': 1}, radii=(0.3,)),
  Row('rar_fmnist', PATH, changes={'attempts': 1}, radii=(COMMON,)),
  Row('art_cifar', LOSS, radii=(8 / 255, COMMON)),
  Row('dombrowski', changes={'k': 100}),
  Row('robust_aga', changes={'k': 100}, radii=(4 / 255, COMMON)),
)


def load(workdir: pathlib.Path, n: int) -> tuple[legacy.Network, Array, Array]:
  """The trained network, and n test images with their true labels."""
  built = experiment.build(records.read_config(workdir)['config'])
  state = evaluate.find(built, workdir, 'last')
  assert state is not None, f'{workdir} has no checkpoint'
  net = legacy.Network(
    train.frozen(built.module, state.model_state),
    state.params,
    attribution.METHODS,
    built.smooth_apply_fn(state.model_state),
  )
  batch = built.test_batch(n)
  return net, jnp.asarray(batch['image']), jnp.asarray(batch['label'])


def short(row: Row) -> tuple:
  method, target, options = row.spec
  return method, target, SHORT if options else {}


def ours(
  net: legacy.Network, row: Row, x: Array, y: Array, eps: float, select: str
) -> attacks.AttackResult:
  """Our attack on the map that the protocol reports."""
  run = functools.partial(
    attacks.attack_attribution,
    explain=net.explain(*short(row)),
    predict=net.predict,
    surrogate=lambda x, y, beta: net.explain(*short(row), beta)(x, y),
    k=row.k,
    select=select,
    objective=OBJECTIVE[select],
    rule='sign',
    steps=50,
    restarts=3,
  )
  return jax.jit(lambda x, y, eps: run(KEY, x=x, y=y, eps=eps))(x, y, eps)


OBJECTIVE = {'topk': 'topk', 'kendall': 'diffkendall'}


def scored(
  net: legacy.Network, row: Row, x: Array, y: Array, x_adv: Array
) -> tuple[Array, Array]:
  """(top-k, tau) of the reported map, as the protocol takes them."""
  explain: Explain = net.explain(*row.spec)
  last = row.spec is not GRADIENT
  both = jax.jit(
    lambda x, z: legacy.compare(explain(x, y), explain(z, y), row.k, last=last)
  )
  return both(x, x_adv)


def measure(
  net: legacy.Network, row: Row, x: Array, y: Array, eps: float | None
) -> dict:
  """One line of the table."""
  begin = time.perf_counter()
  changes = dict(row.changes) if eps is None else {**row.changes, 'eps': eps}
  protocol = functools.partial(legacy.PROTOCOLS[row.name], KEY, net, **changes)
  found = jax.block_until_ready(jax.jit(protocol)(x, y))
  theirs = time.perf_counter() - begin
  size = jnp.max(jnp.abs(found.x_adv - x), (1, 2, 3))
  if eps is None:
    eps = float(jnp.mean(size))
  right = np.asarray(net.label(x) == y)
  line = {
    'name': row.name, 'eps': eps, 'n': int(found.n),
    'dropped': int(found.dropped),
    'kept': float(jnp.mean(found.kept, where=found.counted)),
    'topk': float(found.mean('topk')), 'kendall': float(found.mean('kendall')),
    'theirs_s': theirs,
  }  # fmt: skip
  if not np.all(found.counted[right]):  # failures count as robust
    line['honest'] = {
      key: float(np.where(found.failed, 1, getattr(found, key))[right].mean())
      for key in ('topk', 'kendall')
    }
  begin = time.perf_counter()
  for i, select in enumerate(('topk', 'kendall')):
    attacked = ours(net, row, x, y, eps, select)
    value = np.asarray(scored(net, row, x, y, attacked.x_adv)[i])
    line[f'ours_{select}'] = float(value[right].mean())
  line['ours_s'] = time.perf_counter() - begin
  return line


def noise(net: legacy.Network, x: Array, y: Array) -> Iterator[str]:
  """The same radius without any gradient, on the map of the first row."""
  right = np.asarray(net.label(x) == y)
  explain = net.explain(*GRADIENT)
  options = {'eps': COMMON, 'k': 100}
  walk = {'steps': 300, 'step_size': 0.5 / 255}
  runs: dict[str, Callable] = {
    'one draw of random signs': attacks.random_sign,
    'the walk released as "random", best of 300': functools.partial(
      attacks.random_sign_walk, **walk
    ),
  }
  for name, fun in runs.items():
    result = fun(KEY, explain, net.predict, x, y, **options)
    topk, tau = scored(net, ROWS[0], x, y, result.x_adv)
    yield f'- {name}: top-k {topk[right].mean():.3f}, τ {tau[right].mean():.3f}'


def table(lines: list[dict]) -> Iterator[str]:
  yield '| protocol | ε | n (left out) | label kept | top-k | ours | τ | ours |'
  yield '|---|---|---|---|---|---|---|---|'
  for line in lines:
    yield (
      f'| `{line["name"]}` | {line["eps"]:.3f} | {line["n"]} '
      f'({line["dropped"]}) | {line["kept"]:.2f} | {line["topk"]:.3f} | '
      f'**{line["ours_topk"]:.3f}** | {line["kendall"]:.3f} | '
      f'**{line["ours_kendall"]:.3f}** |'
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('workdir', type=pathlib.Path)
  parser.add_argument('--examples', type=int, default=16)
  parser.add_argument('--only', nargs='*', help='protocols; all if not given')
  args = parser.parse_args()
  begin = time.perf_counter()
  net, x, y = load(args.workdir, args.examples)
  lines = []
  for row in ROWS:
    for eps in row.radii or (None,):
      if not args.only or row.name in args.only:
        lines.append(measure(net, row, x, y, eps))
        print(lines[-1], flush=True)
  blind = list(noise(net, x, y))
  print(*blind, sep='\n')
  if args.only:
    return
  where = DOCS / f'{pathlib.Path(__file__).stem}.md'
  before, _, after = where.read_text().partition('<!-- table -->\n')
  _, _, after = after.partition('<!-- end -->\n')
  minutes = (time.perf_counter() - begin) / 60
  text = [
    *table(lines), '', f'{args.examples} test images, {os.cpu_count()} cores '
    f'({platform.machine()}), jax {jax.__version__}, {minutes:.0f} min.',
    '', f'Without any gradient, ε = {COMMON}, gradient map:', '', *blind, '',
  ]  # fmt: skip
  where.write_text(
    before + '<!-- table -->\n' + '\n'.join(text) + '<!-- end -->\n' + after
  )
  print(where.read_text())


if __name__ == '__main__':
  main()
