"""Do maps equal Captum's on the same weights, in float64?

Captum's own settings: signed maps, per-class logits, images NCHW.
"""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attribution

pytestmark = [
  pytest.mark.peers,
  # Captum warns that it sets hooks, for every map.
  pytest.mark.filterwarnings('ignore::UserWarning:captum'),
]

B, H, W, C, D, CLASSES = 3, 8, 8, 3, 4, 5
Y = np.array([1, 4, 0])


def network(params, x):
  """Two convolutions and two dense layers with relu between."""
  for i in (0, 1):
    x = jax.lax.conv_general_dilated(
      x, params[f'k{i}'], (2, 2), ((1, 1), (1, 1)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    x = x + params[f'b{i}'].reshape(1, 1, 1, -1)
    features = x = jax.nn.relu(x)
  x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
  x = jax.nn.relu(x @ params['w0'] + params['c0'][None])
  logits = x @ params['w1'] + params['c1'][None]
  return logits, {'features': features}


@pytest.fixture(scope='module')
def peer():
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  captum = pytest.importorskip('captum.attr', reason='Captum is not installed')
  rng = np.random.default_rng(0)
  params = {
    'k0': rng.normal(size=(3, 3, C, D)) / 4,
    'b0': rng.normal(size=D) / 4,
    'k1': rng.normal(size=(3, 3, D, D)) / 4,
    'b1': rng.normal(size=D) / 4,
    'w0': rng.normal(size=(4 * D, 6)) / 3,
    'c0': rng.normal(size=6) / 4,
    'w1': rng.normal(size=(6, CLASSES)),
    'c1': rng.normal(size=CLASSES),
  }
  x = rng.uniform(size=(B, H, W, C))
  nn = torch.nn
  model = nn.Sequential(
    nn.Conv2d(C, D, 3, 2, 1), nn.ReLU(),
    nn.Conv2d(D, D, 3, 2, 1), nn.ReLU(),
    nn.Flatten(),
    nn.Linear(4 * D, 6), nn.ReLU(),
    nn.Linear(6, CLASSES),
  ).double()  # fmt: skip
  as_torch = lambda a: torch.tensor(np.ascontiguousarray(a))
  with torch.no_grad():
    for i, layer in ((0, model[0]), (1, model[2])):
      layer.weight.copy_(as_torch(params[f'k{i}'].transpose(3, 2, 0, 1)))
      layer.bias.copy_(as_torch(params[f'b{i}']))
    for i, layer in ((0, model[5]), (1, model[7])):
      layer.weight.copy_(as_torch(params[f'w{i}'].T))
      layer.bias.copy_(as_torch(params[f'c{i}']))
  return captum, model, as_torch(x.transpose(0, 3, 1, 2)), params, x


def ours(name, params, x, y=Y, **options):
  params = jax.tree.map(jnp.asarray, params)
  return np.asarray(
    attribution.METHODS[name](
      network, params, jnp.asarray(x), jnp.asarray(y), **options
    )
  )


def theirs(captum_method, tx, y=Y, **options):
  import torch

  tx = tx.clone().requires_grad_()
  found = captum_method.attribute(tx, target=torch.tensor(y), **options)
  return found.detach().numpy().transpose(0, 2, 3, 1)


def same(a, b, limit):
  gap = np.abs(a - b).max() / np.abs(b).max()
  print(f'largest relative difference {gap:.1e}')
  assert gap <= limit


def test_logits(x64, peer):
  _, model, tx, params, x = peer
  logits, _ = network(jax.tree.map(jnp.asarray, params), jnp.asarray(x))
  same(np.asarray(logits), model(tx).detach().numpy(), 1e-12)


def test_gradient(x64, peer):
  captum, model, tx, params, x = peer
  wanted = theirs(captum.Saliency(model), tx, abs=False)
  same(ours('gradient', params, x), wanted, 1e-12)


def test_gradient_x_input(x64, peer):
  captum, model, tx, params, x = peer
  wanted = theirs(captum.InputXGradient(model), tx)
  same(ours('gradient_x_input', params, x), wanted, 1e-12)


@pytest.mark.parametrize(
  ('rule', 'steps', 'limit'),
  [
    # Captum keeps points and weights in float32. For 16 they are exact
    # there; weights of 1 / 17 are not.
    ('right', 16, 1e-12),
    ('trapezoid', 17, 1e-8),
    ('gauss_legendre', 12, 1e-8),
  ],
)
def test_integrated_gradients(x64, peer, rule, steps, limit):
  captum, model, tx, params, x = peer
  method = {
    'right': 'riemann_right',
    'trapezoid': 'riemann_trapezoid',
    'gauss_legendre': 'gausslegendre',
  }[rule]
  wanted = theirs(
    captum.IntegratedGradients(model), tx,
    n_steps=steps, method=method, baselines=0.3,
  )  # fmt: skip
  if rule == 'trapezoid':
    # Captum's n points have n - 1 intervals between them, of width 1 / n.
    wanted = wanted * steps / (steps - 1)
  found = ours(
    'integrated_gradients', params, x,
    rule=rule, steps=steps, chunk=5, baseline=0.3,
  )  # fmt: skip
  same(found, wanted, limit)


def test_guided_backprop_and_deconvnet(x64, peer):
  captum, model, tx, params, x = peer
  wanted = theirs(captum.GuidedBackprop(model), tx)
  same(ours('guided_backprop', params, x), wanted, 1e-12)
  wanted = theirs(captum.Deconvolution(model), tx)
  same(ours('deconvnet', params, x), wanted, 1e-12)


def test_deeplift(x64, peer):
  captum, model, tx, params, x = peer
  wanted = theirs(captum.DeepLift(model), tx, baselines=tx * 0 + 0.3)
  same(ours('deeplift', params, x, baseline=0.3), wanted, 1e-6)


def test_lrp_epsilon(x64, peer):
  captum, model, tx, params, x = peer
  from captum.attr._utils.lrp_rules import EpsilonRule

  for layer in model:
    flat = type(layer).__name__ == 'Flatten'  # no layer of ours
    layer.rule = EpsilonRule(epsilon=1e-12 if flat else 0.1)
  wanted = theirs(captum.LRP(model), tx)
  same(ours('lrp_epsilon', params, x, epsilon=0.1), wanted, 1e-6)


@pytest.mark.parametrize('gamma', [0.25, 4.0, None])
def test_lrp_gamma_and_z_plus(x64, peer, gamma):
  """Without biases, which Captum does not weigh, for layers with positive
  inputs and a positive logit: for other signs its rule is another one."""
  from captum.attr._utils import lrp_rules

  captum, model, tx, params, x = peer
  model = copy.deepcopy(model)
  params = {k: 0 * v if k[0] in 'bc' else v for k, v in params.items()}
  params['w1'] = -params['w1']  # the sign that makes logits positive
  model[-1].weight.data.neg_()
  for layer in model:
    if getattr(layer, 'bias', None) is not None:
      layer.bias.data.zero_()
      layer.rule = (
        lrp_rules.Alpha1_Beta0_Rule()
        if gamma is None
        else lrp_rules.GammaRule(gamma)
      )
    elif type(layer).__name__ == 'Flatten':
      layer.rule = lrp_rules.EpsilonRule(epsilon=1e-12)
  logits = model(tx).detach().numpy()
  y = logits.argmax(1)
  assert x.min() >= 0 and logits.max(1).min() > 0
  wanted = theirs(captum.LRP(model), tx, y)
  options = {} if gamma is None else {'gamma': gamma}
  name = 'lrp_zplus' if gamma is None else 'lrp_gamma'
  same(ours(name, params, x, y, **options), wanted, 1e-6)


def test_grad_cam(x64, peer):
  import torch

  captum, model, tx, params, x = peer
  method = captum.LayerGradCam(model, model[3])
  wanted = method.attribute(tx, target=torch.tensor(Y), relu_attributions=True)
  wanted = captum.LayerAttribution.interpolate(wanted, (H, W), 'bilinear')
  found = ours('grad_cam', params, x).sum(-1)
  same(found, wanted.detach().numpy()[:, 0], 1e-6)


def test_guided_grad_cam(x64, peer):
  captum, model, tx, params, x = peer
  method = captum.GuidedGradCam(model, model[3])
  wanted = theirs(method, tx, interpolate_mode='bilinear')
  same(ours('guided_grad_cam', params, x), wanted, 1e-6)


def test_occlusion(x64, peer):
  captum, model, tx, params, x = peer
  wanted = theirs(
    captum.Occlusion(model), tx,
    sliding_window_shapes=(C, 4, 4), strides=(C, 2, 2), baselines=0.3,
  )  # fmt: skip
  # Captum gives every channel the whole loss, and divides in float32.
  found = ours('occlusion', params, x, window=4, stride=2, baseline=0.3)
  same(C * found, wanted, 1e-6)
