"""Updates a second of whole runs and of their bare steps."""

from collections.abc import Iterator

from benchmarks import loop


def rows(small: bool) -> Iterator[list[dict]]:
  """A row a network, of the numbers of `loop.measure` instead of times."""
  if small:
    loop.CPU['digits_mlp'] = 200  # updates of the run
  for name in ('digits_mlp',) if small else loop.GPU:
    numbers = loop.measure(name, None, 0.3 if small else 1.5)
    row = {'group': name, 'precision': 'float32', 'name': 'ours'}
    yield [row | {'numbers': numbers}]
