"""How many products does a warm-started λ_max take over a real run?

  python -m benchmarks.warm_start configs/digits_mlp.py configs/digits_edge.py
  python -m benchmarks.warm_start --tol 0.01 configs/digits_edge.py
  python -m benchmarks.warm_start --each --order 2 configs/digits_mlp.py

Trains as the config says and measures λ_max every ten steps on the config's
probe set, each time from the last eigenvector, stopped on the residual (the
config's, or --tol). Beside it the same search from noise, and the converged
value: forty steps from noise. Prints products and the share of measurements
within 1e-3 of that value.

With --each at every step, on a quarter as many examples as are in a batch;
--order is the most products of a search; `tracking.py` says what it costs.
"""

import argparse
import importlib.util
import pathlib

import jax
import numpy as np

from implicit_attr import curvature, keys, numerics, train
from implicit_attr.train import advance, experiment

EVERY, CONVERGED, RIGHT = 10, 40, 1e-3


def measure(
  path: str, tol: float | None, order: int | None, each: bool
) -> None:
  spec = importlib.util.spec_from_file_location('config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  if each:
    config.track.examples = config.data.batch_size // 4
  built = experiment.build(config.to_dict())
  track, steps, every = built.settings.track, built.total, 1 if each else EVERY
  tol, order = tol or track.tol, order or track.order
  probe = built.mesh.split(built.probe_batch(track.examples))

  def find(params, model_state, start, order, tol):
    apply_fn = train.frozen(built.module, model_state)
    loss = lambda p: built.loss(
      apply_fn(p, probe['image'])[0], probe['label']
    ).mean()
    with numerics.exact():
      mvp = curvature.linearize_hvp(loss, params)
      found = curvature.eigenpairs(mvp, start, order=order, tol=tol)
    vector = jax.tree.map(lambda v: v[0], found.vectors)
    return found.values[0], found.products, vector

  quick = jax.jit(lambda *a: find(*a, order, tol))
  exact = jax.jit(lambda *a: find(*a, CONVERGED, None))
  noise = jax.jit(curvature.rademacher)
  step_fn = jax.jit(advance.make_train_step(built), donate_argnums=0)
  state, vector, rows = built.mesh.replicate(built.init()), None, []
  for step in range(steps):
    if step % every == 0:
      at = state.params, state.model_state
      cold = noise(keys.stream(0, 'cold', step), state.params)
      truth = exact(*at, cold)[0]
      value, products, vector = quick(*at, cold if vector is None else vector)
      from_noise = quick(*at, cold)
      rows.append([
        products, abs(value / truth - 1),
        from_noise[1], abs(from_noise[0] / truth - 1),
      ])  # fmt: skip
    batch = built.mesh.split(built.train_set.batch_at(step))
    state, _ = step_fn(state, batch, built.learning_rates[step], np.uint32(0))
  rows = np.array(jax.device_get(rows), np.float64)
  name = pathlib.Path(path).stem
  print(
    f'{name}: {len(rows)} measurements, {steps} steps, residual {tol:g}, '
    f'at most {order} products'
  )
  for name, count, off in (('warm', 0, 1), ('cold', 2, 3)):
    typical, worst = np.median(rows[:, off]), rows[:, off].max()
    print(
      f'  {name}: {rows[:, count].mean():.2f} products on average, at most '
      f'{rows[:, count].max():.0f}; within {RIGHT:g} of the converged value in '
      f'{100 * np.mean(rows[:, off] <= RIGHT):.1f} %, off by {typical:.0e} '
      f'(median), {worst:.0e} (most)',
      flush=True,
    )


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('paths', nargs='+')
  parser.add_argument('--tol', type=float)
  parser.add_argument('--order', type=int)
  parser.add_argument('--each', action='store_true')
  args = parser.parse_args()
  for path in args.paths:
    measure(path, args.tol, args.order, args.each)
