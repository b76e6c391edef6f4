"""Are networks that nobody here wrote audited, and measured, as they come?"""

import inspect
import pathlib
import subprocess
import sys

import equinox as eqx
import haiku as hk
import jax
import numpy as np
import optax
import public_networks
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from implicit_attr import curvature
from implicit_attr.audit import audit

KEY = jax.random.key(0)


def linen(model, x):
  variables = model.init(KEY, x[:1])
  params = variables.pop('params')
  return lambda p, x: model.apply({'params': p, **variables}, x), params


def of_nnx(model, x):
  model.eval()
  graph, params, rest = nnx.split(model, nnx.Param, ...)
  return lambda p, x: nnx.merge(graph, p, rest)(x), params


def equinox(model, x):
  params, static = eqx.partition(model, eqx.is_inexact_array)
  return lambda p, x: jax.vmap(eqx.combine(p, static))(x), params


def equinox_with_state(kind, x, *args):
  model, state = eqx.nn.make_with_state(kind)(*args)
  keys = jax.random.split(KEY, len(x))
  train = jax.vmap(model, (0, None, 0), (0, None), axis_name='batch')
  state = train(x, state, keys)[1]
  params, static = eqx.partition(
    eqx.nn.inference_mode(model), eqx.is_inexact_array
  )
  one = lambda p, x: eqx.combine(p, static)(x, state)[0]
  return jax.vmap(one, (None, 0)), params


def haiku(net, x):
  net = hk.without_apply_rng(hk.transform_with_state(net))
  params, state = net.init(KEY, x[:1], True)
  return lambda p, x: net.apply(p, state, x, False)[0], params


def linen_cnn(x):
  return linen(public_networks.LinenCNN(10, (4, 8, 16)), x)


def linen_resnet(x):
  return linen(public_networks.LinenResNet((1,), 10, 4), x)


def linen_vit(x):
  return linen(public_networks.LinenViT(), x)


def linen_mixer(x):
  return linen(public_networks.LinenMixer(), x)


def nnx_cnn(x):
  model = public_networks.NnxCNN(nnx.Rngs(0), x.shape[1], (4, 8, 16))
  return of_nnx(model, x)


def nnx_resnet(x):
  return of_nnx(public_networks.nnx_resnet(nnx.Rngs(0)), x)


def equinox_cnn(x):
  return equinox(public_networks.EqxCNN(KEY, x.shape[-1], (2, 16, 8)), x)


def equinox_vit(x):
  return equinox(public_networks.EqxViT(KEY, x[0, 0].size // 16), x)


def equinox_batch_norm(x):
  return equinox_with_state(public_networks.EqxNormed, x, KEY)


def haiku_mlp(x):
  return haiku(lambda x, train: hk.nets.MLP([16, 10])(hk.Flatten()(x)), x)


def haiku_resnet(x):
  # Haiku begins with a head of zeros, whose maps are 0 everywhere.
  head = {'w_init': hk.initializers.VarianceScaling()}
  options = {'channels_per_group': (4, 4, 8, 8), 'logits_config': head}
  net = lambda x, train: hk.nets.ResNet((1,) * 4, 10, **options)(x, train)
  return haiku(net, x)


def haiku_mobilenet(x):
  net = lambda x, train: hk.nets.MobileNetV1((1, 2), (8, 16), 10)(x, train)
  return haiku(net, x)


FAST = {linen_cnn: 1, nnx_cnn: 1, equinox_cnn: 1, haiku_mlp: 1}
SLOW = {
  linen_resnet: 3, linen_vit: 3, linen_mixer: 3, nnx_resnet: 3, equinox_vit: 3,
  equinox_batch_norm: 3, haiku_resnet: 3, haiku_mobilenet: 3,
}  # fmt: skip
"""Network -> its channels."""
SMOOTH = {linen_vit, linen_mixer, equinox_vit}


@pytest.mark.parametrize(
  'made',
  [*FAST, *(pytest.param(m, marks=pytest.mark.slow) for m in SLOW)],
  ids=lambda made: made.__name__,
)
def test_a_public_network_is_audited_in_ten_lines(made):
  channels = (FAST | SLOW)[made]
  x = np.random.default_rng(0).random((6, 12, 12, channels), np.float32)
  layout = 'NCHW' if made.__name__.startswith('equinox') else 'NHWC'
  if layout == 'NCHW':
    x = np.moveaxis(x, -1, 1)
  fun, params = made(x)
  apply_fn = jax.jit(fun)
  y = np.argmax(apply_fn(params, x), -1)
  found = audit(
    apply_fn, params, x, y, eps=8 / 255, layout=layout,
    attributions=('gradient',), steps=4, restarts=2,
  )  # fmt: skip
  attack, noise = found.rows
  assert (attack['n'], attack['n_stalled'], attack['n_nan']) == (6, 0, 0)
  left, signs = (row['metrics']['topk']['mean'] for row in (attack, noise))
  assert left < signs
  assert ('softplus' in str(found)) == (made not in SMOOTH)
  # A loader of a framework, a network and the call: what a person writes.
  loader = {'linen': linen, 'nnx': of_nnx, 'haiku': haiku, 'equinox': equinox}
  name = made.__name__.split('_')[0]
  load = equinox_with_state if made is equinox_batch_norm else loader[name]
  lines = [line for f in (load, made) for line in lines_of(f)]
  assert len(lines) <= 10


def lines_of(function):
  return inspect.getsource(function).splitlines()[1:]


def tiny(framework):
  """A network of a few hundred parameters as apply_fn, params and images."""
  draw = lambda *shape: np.random.default_rng(1).random(shape, np.float32)
  if framework == 'linen':
    x, model = draw(16, 8, 8, 1), public_networks.LinenCNN(3, (2, 3, 6))
    return *linen(model, x), x
  if framework == 'nnx':
    x = draw(16, 8, 8, 1)
    model = public_networks.NnxCNN(nnx.Rngs(0), 8, (2, 3, 6), 3)
    return *of_nnx(model, x), x
  if framework == 'equinox':
    x, kind = draw(16, 3, 8, 8), public_networks.EqxNormed
    return *equinox_with_state(kind, x, KEY, 6, 3), x
  x, net = draw(16, 8, 8, 1), lambda x, _: hk.nets.MLP([6, 3])(hk.Flatten()(x))
  return *haiku(net, x), x


@pytest.mark.parametrize('framework', ['linen', 'nnx', 'equinox', 'haiku'])
def test_the_largest_eigenvalue_is_that_of_the_dense_hessian(framework):
  apply_fn, params, x = tiny(framework)
  y = np.arange(len(x)) % 3

  def loss(p):
    losses = optax.softmax_cross_entropy_with_integer_labels(apply_fn(p, x), y)
    return losses.mean()

  flat, unravel = ravel_pytree(params)
  assert flat.size < 2000
  dense = jax.jit(jax.hessian(lambda v: loss(unravel(v))))(flat)
  start = curvature.rademacher(jax.random.key(1), params)
  mvp = curvature.linearize_hvp(loss, params)
  values, *_ = curvature.top_eigenpairs(mvp, start, k=1, order=40)
  top = np.linalg.eigvalsh(np.asarray(dense, np.float64))[-1]
  np.testing.assert_allclose(values[0], top, rtol=1e-3)


LARGE = """
import resource
import jax, numpy as np
from public_networks import LinenResNet
from implicit_attr.audit import audit

images = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
model = LinenResNet()
variables = jax.jit(model.init)(jax.random.key(0), images[:1])
params = variables.pop('params')
apply_fn = jax.jit(lambda p, x: model.apply({'params': p, **variables}, x))
labels = np.argmax(apply_fn(params, images), -1)
found = audit(
  apply_fn, params, images, labels, eps=8 / 255,
  attributions=('gradient',), steps=10, restarts=1)
print(found)
assert found.rows[0]['n'] == 8 and found.rows[0]['n_stalled'] == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_resnet_50_at_224_pixels_stays_within_four_gigabytes():
  done = subprocess.run(
    [sys.executable, '-c', LARGE], capture_output=True, text=True, check=False,
    cwd=pathlib.Path(__file__).parent,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert int(done.stdout.splitlines()[-1]) * 1024 < 4e9, done.stdout
