"""PyTorch's side of the benchmarks stays on one device, and agrees with ours.

A GPU is not at hand, so `meta` plays one: its tensors have no numbers, and no
call here may mix them with the CPU's, save scalars. What is copied to the host
is read as ones.
"""

import argparse
import importlib

import jax
import numpy as np
import pytest

from benchmarks import attacks, attention, curvature
from benchmarks.gpu import step

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings('ignore')]
CNN = {'width': 2, 'depth': 2, 'hidden': 4}
STEPS = {'resnet8': {'width': 2, 'norm': 'batch'}, 'vit': step.TINY}


@pytest.fixture(scope='module')
def torch():
  return pytest.importorskip('torch', reason='PyTorch is not installed')


@pytest.fixture
def one_device(torch):
  """A context that refuses what a GPU would."""
  from torch.utils._python_dispatch import TorchDispatchMode

  class OneDevice(TorchDispatchMode):
    def __torch_dispatch__(self, fun, types, args=(), kwargs=None):
      name, kwargs = str(fun).rsplit('.', 1)[0], kwargs or {}
      if name == 'aten._local_scalar_dense' and args[0].is_meta:
        return 1.0 if args[0].is_floating_point() else 1
      if name == 'aten._to_copy':
        if args[0].is_meta and str(kwargs.get('device')) == 'cpu':
          return torch.ones(args[0].shape, dtype=args[0].dtype)
      elif name != 'aten.copy_':
        leaves = jax.tree.leaves((args, kwargs))
        tensors = [a for a in leaves if isinstance(a, torch.Tensor) and a.ndim]
        assert len({a.is_meta for a in tensors}) < 2, (name, tensors)
      return fun(*args, **kwargs)

  return OneDevice()


def test_mixing_devices_is_seen(torch, one_device):
  with one_device, pytest.raises(AssertionError):
    torch.ones(2, device='meta') @ torch.ones(2)


ARGUMENTS = {'trace': (2,), 'input_lambda': (3,)}
SETTINGS = {'shared': 2, 'input_lambda': 3, 'PyHessian': 0.1, 'eigenthings': 3}


@pytest.mark.parametrize(
  'job',
  ['gradient', 'product', 'shared', 'lambda_max', 'trace', 'input_lambda'],
)
def test_every_library_works_on_the_device_of_its_twin(job, one_device):
  peers = importlib.import_module('benchmarks.curvature_peers')
  twins = importlib.import_module('benchmarks.torch_twin')
  _, (params, x, y) = curvature.problem('cnn', 4, CNN)
  with one_device:
    twin = twins.Twin('cnn', params, CNN, 'meta')
    t = twins.Torch(twin, *twins.data('cnn', x, y, 'meta'))
    entries = getattr(peers, job)(t, *ARGUMENTS.get(job, ()))
    for name, entry in entries.items():
      if name == 'PyHessian' and job in ('lambda_max', 'trace'):
        continue  # it draws on 'cpu' or 'cuda' and knows no third
      entry.run(SETTINGS.get(job, SETTINGS.get(name, 6)), 0)


@pytest.mark.parametrize('method', ['gradient', 'integrated_gradients'])
def test_attacks_work_on_the_device_of_their_twin(method, one_device):
  peers = pytest.importorskip('benchmarks.attacks_torch')
  args = argparse.Namespace(
    network='cnn', options=CNN, method=method, chunk=None, size=8, images=2,
    steps=2, path=2,
  )  # fmt: skip
  params, x, y = attacks.problem(args)
  start = attacks.start_of(x)
  with one_device:
    for run in peers.runs(args, params, x, y, start, 'meta').values():
      x_adv, score = run()
      assert x_adv.is_meta and score.is_meta


@pytest.mark.parametrize('network', ['mlp', 'cnn'])
def test_attacks_end_where_those_of_pytorch_do(network):
  """What a time is compared for is one computation; this raises if not."""
  pytest.importorskip('benchmarks.attacks_torch')
  attacks.agreement(
    argparse.Namespace(
      network=network, options=curvature.NETWORKS[network][0],
      method='gradient', chunk=None, size=8, path=2, threads=1,
    )
  )  # fmt: skip


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_attention_works_on_a_device(dtype, one_device):
  qkv = attention.draw(4, argparse.Namespace(heads=2, width=4))
  with one_device:
    for call in attention.of_torch(qkv, 'meta', dtype).values():
      output = call()
      tensors = output if isinstance(output, tuple) else [output]
      assert all(a.is_meta for a in tensors)


@pytest.mark.parametrize('name', STEPS)
def test_updates_work_on_a_device(name, torch, one_device, monkeypatch):
  sgd = torch.optim.SGD  # fused exists for real devices only
  monkeypatch.setattr(torch.optim, 'SGD', lambda p, lr, fused: sgd(p, lr))
  source = step.noise(4, 16)
  _, state = step.start(name, STEPS[name])
  with one_device:
    run = step.theirs(
      name, STEPS[name], state, source.table(), source.draws(0, 2), 2,
      'float32', 'meta', False,
    )  # fmt: skip
    assert run().is_meta


@pytest.mark.parametrize('name', STEPS)
def test_updates_are_those_of_ours(name, torch):
  """Crops, flips, batch statistics and updates: losses of three batches."""
  source = step.noise(4, 16)
  table, draws = source.table(), source.draws(0, 3)
  module, state = step.start(name, STEPS[name])
  ours = step.ours(module, state, table, draws, 'float32')
  theirs = step.theirs(
    name, STEPS[name], state, table, draws, 3, 'float32', 'cpu', False
  )
  np.testing.assert_allclose(theirs(), ours.run(), rtol=1e-4)
