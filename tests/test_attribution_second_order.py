"""Is the gradient of an attack through a map the true one, for every method?

Central finite differences in float64, in every pixel, for every objective of
`attacks` around a clean map. Where a library detaches what is inside of a map,
as published code does, its attack follows another direction and fails here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, attribution
from implicit_attr.attacks import map_losses

H, W, C, CLASSES = 5, 5, 2, 4
LIMIT = 1e-5
STEP = 2e-6
OPTIONS = {
  **{n: {'samples': 2} for n in ('smoothgrad', 'smoothgrad_squared')},
  'vargrad': {'samples': 3},
  'expected_gradients': {'samples': 2},
  'integrated_gradients': {'steps': 3, 'chunk': 2},
  'deeplift': {'baseline': 0.2},
  'occlusion': {'window': 3, 'stride': 2},
}
RULED = (
  'guided_backprop', 'deconvnet', 'deeplift', 'lrp_epsilon', 'lrp_gamma',
  'lrp_zplus',
)  # fmt: skip
# Maps that do not change with x: deconvnet has only linear layers and
# rectifiers to look at here, and of relu the slope is constant.
CONSTANT = {
  'smooth': {'random', 'deconvnet'},
  'relu': {'guided_backprop', 'deconvnet'},
}


def smooth(z):
  return jax.nn.softplus(4 * z) / 4


def network(act, params, x):
  """Logits and the values at the rectifiers."""
  z = jax.lax.conv_general_dilated(
    x, params['k'], (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  features = act(z)
  hidden = features.reshape(x.shape[0], -1) @ params['w'] + params['b'][None]
  logits = act(hidden) @ params['v']
  return logits, {'features': features, 'inner': (z, hidden)}


ACTS = {'smooth': smooth, 'relu': jax.nn.relu}


@functools.cache
def case():
  """Parameters, a clean image and one that an attack has reached."""
  rng = np.random.default_rng(3)
  params = {
    'k': rng.normal(size=(3, 3, C, 3)) / 3,
    'w': rng.normal(size=(27, 8)) / 3,
    'b': rng.normal(size=8) / 3,
    'v': rng.normal(size=(8, CLASSES)) / 2,
  }
  clean, moved = rng.uniform(size=(1, H, W, C)), rng.normal(size=(1, H, W, C))
  arrays = params, clean, clean + 0.03 * moved
  return jax.tree.map(jnp.asarray, arrays)


def explain(name, act, x):
  apply_fn = functools.partial(network, ACTS[act])
  return attribution.METHODS[name](
    apply_fn, case()[0], x, jnp.full(len(x), 2),
    key=jax.random.key(0), **OPTIONS.get(name, {}),
  )  # fmt: skip


# The weights of 'border' are constants to gradients.
OBJECTIVES = [o for o in attacks.OBJECTIVES if o != 'border']


def losses_around(clean):
  """Every objective of an attack on the map `clean`."""
  rng = np.random.default_rng(4)
  target = {
    'target_region': jnp.asarray(rng.uniform(size=(1, H, W)) < 0.4),
    'target_map': jnp.asarray(rng.uniform(size=(1, H, W))),
  }
  return [
    map_losses.make(o, clean, k=6, key=jax.random.key(1), target=target.get(o))
    for o in OBJECTIVES
  ]


def neighbours(x):
  """x moved by STEP up in each of n entries, then down; [2 n, ...]."""
  moves = STEP * jnp.eye(x.size).reshape(x.size, *x.shape[1:])
  return jnp.concatenate([x + moves, x - moves])


def by_differences(loss, maps):
  """Central differences of the loss, from the maps of `neighbours`; [n]."""
  up, down = jnp.split(loss(maps), 2)
  return (up - down) / (2 * STEP)


CASES = [(name, 'smooth') for name in attribution.METHODS]
CASES += [(name, 'relu') for name in RULED]


@pytest.mark.parametrize(('name', 'act'), CASES)
def test_the_attack_gradient_is_that_of_finite_differences(x64, name, act):
  _, clean, x = case()
  # A row of a map depends on its own image only, so one call makes all maps.
  maps = jax.jit(functools.partial(explain, name, act))(
    jnp.concatenate([clean, x, neighbours(x)])
  )
  losses = losses_around(maps[:1])

  @jax.jit
  @jax.grad
  def slopes(x):
    rows = jnp.split(explain(name, act, x), len(losses))
    return sum(loss(a)[0] for loss, a in zip(losses, rows, strict=True))

  found = slopes(jnp.repeat(x, len(losses), axis=0)).reshape(len(losses), -1)
  assert found.dtype == jnp.float64
  for objective, loss, slope in zip(OBJECTIVES, losses, found, strict=True):
    wanted = by_differences(loss, maps[2:])
    size = np.abs(wanted).max()
    if name in CONSTANT[act]:
      assert size < 1e-9 and np.abs(slope).max() < 1e-12, objective
    else:
      assert size > 1e-3 * np.abs(loss(maps[1:2])), objective
      assert np.abs(slope - wanted).max() < LIMIT * size, objective


def test_the_point_is_away_from_the_kinks_of_relu(x64):
  params, _, x = case()
  for point in (x, jnp.full_like(x, OPTIONS['deeplift']['baseline'])):
    _, out = network(jax.nn.relu, params, point)
    # Each entry of x moves by STEP, and no weight is larger than 2.
    assert min(np.abs(z).min() for z in out['inner']) > 100 * STEP


def test_a_detached_map_would_not_pass(x64):
  """Gradient times input as Captum has it: the gradient is a constant."""
  params, clean, x = case()
  apply_fn = functools.partial(network, smooth)

  def explain(cut, x):
    y = jnp.full(len(x), 2)
    return x * cut(attribution.gradient(apply_fn, params, x, y))

  whole = functools.partial(explain, lambda g: g)
  detached = functools.partial(explain, jax.lax.stop_gradient)
  key = jax.random.key(1)
  loss = map_losses.make('cosine', whole(clean), k=6, key=key)
  wanted = by_differences(loss, whole(neighbours(x)))

  def gap(explain):
    found = jax.grad(lambda x: loss(explain(x))[0])(x)
    return np.abs(found.ravel() - wanted).max() / np.abs(wanted).max()

  assert gap(whole) < LIMIT and gap(detached) > 0.1
