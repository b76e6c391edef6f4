"""How do other libraries do each job, on the weights of our networks?

Each function of `JOBS` gives {library: Entry} for one problem. What a library
does not have is made from its products, with scipy's `eigsh` or a loop.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import curvlinops
import hessian_eigenthings as eigenthings
import jax
import jax.numpy as jnp
import lineax
import matfree.decomp
import matfree.stochtrace
import numpy as np
import pyhessian
import torch
import traceax
from jax.flatten_util import ravel_pytree
from pyhessian.utils import hessian_vector_product
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(os.cpu_count())
STEPS = (8, 10, 12, 14, 17, 20, 25, 30, 40, 60)  # of Lanczos
TOLS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of PyHessian's power iteration
BASES = (6, 8, 10, 13, 16, 20, 30)  # ARPACK's vectors before it restarts


class Entry(NamedTuple):
  """run(setting, seed) -> number or array; settings, the cheapest first."""

  run: Callable[[Any, int], Any]
  settings: Sequence = (None,)


class Twin(nn.Module):
  """A network of ours with its parameters, in PyTorch.

  'SAME' pads below and to the right where PyTorch pads all around. On mirrored
  images and kernels the two are equal, at no cost, so that is what
  convolutional twins work on.
  """

  def __init__(self, name: str, params: dict, options: dict):
    super().__init__()
    self.forward_of, self.options = getattr(self, name), options
    self.flat = nn.ParameterDict()
    side = None
    for layer, leaves in params.items():
      for kind, w in (
        leaves if hasattr(leaves, 'items') else {'': leaves}
      ).items():
        w = np.asarray(w)
        if kind == 'kernel' and w.ndim == 4:
          w = w[::-1, ::-1].transpose(3, 2, 0, 1)
        elif kind == 'kernel' and name == 'cnn' and layer == 'hidden':
          side = round((w.shape[0] / params['conv_2']['bias'].size) ** 0.5)
          w = w.reshape(side, side, -1, w.shape[1])[::-1, ::-1]
          w = w.transpose(3, 2, 0, 1).reshape(w.shape[3], -1)
        elif kind == 'kernel':
          w = w.T
        self.flat[f'{layer}/{kind}'] = nn.Parameter(torch.tensor(w.copy()))

  def forward(self, x):
    return self.forward_of(x)

  def conv(self, layer, x, stride=1):
    w = self.flat[f'{layer}/kernel']
    if w.shape[-1] == 1 and stride == 2:  # mirrored: the other pixels
      x, stride = x[:, :, 1::2, 1::2], 1
    b = self.flat[f'{layer}/bias']
    return F.conv2d(x, w, b, stride, w.shape[-1] // 2)

  def dense(self, layer, x):
    return F.linear(x, self.flat[f'{layer}/kernel'], self.flat[f'{layer}/bias'])

  def norm(self, layer, x):
    w = self.flat[f'{layer}/scale']
    return F.layer_norm(x, w.shape, w, self.flat[f'{layer}/bias'], 1e-6)

  def mlp(self, x):
    x = x.flatten(1)
    for layer in ('first', 'dense_1'):
      x = F.relu(self.dense(layer, x))
    return self.dense('logits', x)

  def cnn(self, x):
    for layer in ('first', 'conv_1', 'conv_2'):
      x = F.relu(self.conv(layer, x, 1 if layer == 'first' else 2))
    return self.dense('logits', F.relu(self.dense('hidden', x.flatten(1))))

  def resnet8(self, x):
    x = F.relu(self.conv('first', x))
    for i in range(3):
      name, stride = f'stage_{i}_block_0', 2 if i else 1
      y = F.relu(self.conv(f'{name}_conv_0', x, stride))
      y = self.conv(f'{name}_conv_1', y)
      x = F.relu((self.conv(f'{name}_skip', x, stride) if i else x) + y)
    return self.dense('logits', x.mean((2, 3)))

  def vit(self, x):
    p, heads = self.options['patch'], self.options['heads']
    b, h, w, c = x.shape
    x = x.reshape(b, h // p, p, w // p, p, c).permute(0, 1, 3, 2, 4, 5)
    x = self.dense('first', x.reshape(b, -1, p * p * c))
    token = self.flat['cls/'].expand(b, -1, -1)
    x = torch.cat([token, x], 1) + self.flat['positions/']
    for i in range(self.options['depth']):
      name = f'block_{i}'
      y = self.norm(f'{name}_norm_0', x)
      q, k, v = (
        self.dense(f'{name}_{n}', y)
        .reshape(b, y.shape[1], heads, -1)
        .transpose(1, 2)
        for n in ('query', 'key', 'value')
      )
      a = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
      y = (a @ v).transpose(1, 2).reshape(x.shape)
      x = x + self.dense(f'{name}_out', y)
      y = F.gelu(self.dense(f'{name}_mlp_0', self.norm(f'{name}_norm_1', x)))
      x = x + self.dense(f'{name}_mlp_1', y)
    return self.dense('logits', self.norm('norm', x)[:, 0])


def data(name: str, x, y) -> tuple[torch.Tensor, torch.Tensor]:
  """x [B, H, W, C] and labels as the twin of `name` wants them."""
  x = np.asarray(x)
  if name in ('cnn', 'resnet8'):
    x = x[:, ::-1, ::-1].transpose(0, 3, 1, 2)
  return torch.tensor(x.copy()), torch.tensor(np.asarray(y), dtype=torch.long)


class Torch:
  """What the entries of PyTorch's libraries share."""

  def __init__(self, net: Twin, x: torch.Tensor, y: torch.Tensor):
    self.net, self.data = net, (x, y)
    self.params = list(net.parameters())
    self.names = [name for name, _ in net.named_parameters()]
    self.size = sum(p.numel() for p in self.params)

  def loss(self, *params):
    x, y = self.data
    call = torch.func.functional_call
    named = dict(zip(self.names, params, strict=True))
    return F.cross_entropy(call(self.net, named, (x,)), y)

  def split(self, v):
    parts = v.split([p.numel() for p in self.params])
    return tuple(a.view_as(p) for a, p in zip(parts, self.params, strict=True))

  def noise(self, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(self.size, generator=g)

  def signs(self, seed):
    return self.noise(seed).sign()

  def pyhessian(self):
    for p in self.params:
      p.grad = None
    return pyhessian.hessian(self.net, F.cross_entropy, self.data, cuda=False)

  def eigenthings(self):
    loss = eigenthings.supervised_loss(F.cross_entropy)
    return eigenthings.HessianOperator(self.net, [self.data], loss)

  def curvlinops(self):
    return curvlinops.HessianLinearOperator(
      self.net, nn.CrossEntropyLoss(), self.params, [self.data],
      check_deterministic=False,
    )  # fmt: skip

  def linearized(self):
    """v [n] -> H v by torch.func.linearize."""
    point = tuple(p.detach() for p in self.params)
    grad = torch.func.grad(self.loss, tuple(range(len(point))))
    push = torch.func.linearize(grad, *point)[1]
    return lambda v: flat(push(*self.split(v)))

  def retained(self):
    """v [n] -> H v by double backward through one graph."""
    grads = torch.autograd.grad(
      self.loss(*self.params), self.params, create_graph=True
    )
    return lambda v: flat(
      torch.autograd.grad(grads, self.params, self.split(v), retain_graph=True)
    )


def flat(tensors):
  return torch.cat([t.detach().reshape(-1) for t in tensors])


def scipy_top(mvp, size, basis, tol, seed):
  """λ_max by ARPACK from a torch product; at least `basis` products."""
  operator = LinearOperator(
    (size, size),
    lambda v: mvp(torch.tensor(v.reshape(-1), dtype=torch.float32)).numpy(),
    dtype=np.float32,
  )
  v0 = np.random.default_rng(seed).normal(size=size).astype(np.float32)
  return eigsh(operator, 1, which='LA', ncv=basis, v0=v0, tol=tol)[0][0]


def gradient(t: Torch) -> dict[str, Entry]:
  def run(_, seed):
    return flat(torch.autograd.grad(t.loss(*t.params), t.params))

  return {'torch': Entry(run)}


def product(t: Torch) -> dict[str, Entry]:
  def pyhessian_(_, seed):
    h = t.pyhessian()
    return flat(hessian_vector_product(h.gradsH, h.params, t.split(t.noise(0))))

  def torch_func(_, seed):
    point = tuple(p.detach() for p in t.params)
    grad = torch.func.grad(t.loss, tuple(range(len(point))))
    return flat(torch.func.jvp(grad, point, t.split(t.noise(0)))[1])

  return {
    'PyHessian': Entry(pyhessian_),
    'eigenthings': Entry(lambda _, seed: t.eigenthings().matvec(t.noise(0))),
    'curvlinops': Entry(lambda _, seed: t.curvlinops() @ t.noise(0)),
    'torch.func': Entry(torch_func),
  }


def shared(t: Torch) -> dict[str, Entry]:
  """`setting` products through one graph or linearisation."""

  def repeat(make):
    def run(count, seed):
      mvp, v = make(), t.noise(0)
      for _ in range(count):
        v = mvp(v / v.norm())
      return v

    return Entry(run)

  return {
    'torch, graph kept': repeat(t.retained),
    'torch.func': repeat(t.linearized),
  }


def lambda_max(t: Torch) -> dict[str, Entry]:
  def pyhessian_(tol, seed):
    torch.manual_seed(seed)
    return t.pyhessian().eigenvalues(maxIter=1000, tol=tol)[0][0]

  def eigenthings_(steps, seed):
    found = eigenthings.lanczos(
      t.eigenthings(), k=1, max_iter=steps, which='LA', seed=seed
    )
    return found.eigenvalues[0].item()

  return {
    'PyHessian': Entry(pyhessian_, TOLS),
    'eigenthings': Entry(eigenthings_, STEPS),
    'curvlinops': Entry(
      lambda basis, seed: scipy_top(
        t.curvlinops().__matmul__, t.size, basis, 0.1, seed
      ),
      BASES,
    ),
    'torch.func': Entry(
      lambda basis, seed: scipy_top(t.linearized(), t.size, basis, 0.1, seed),
      BASES,
    ),
  }


def trace(t: Torch, draws: int) -> dict[str, Entry]:
  def pyhessian_(_, seed):
    torch.manual_seed(seed)
    return np.mean(t.pyhessian().trace(maxIter=draws, tol=-np.inf))

  def eigenthings_(_, seed):
    return eigenthings.hutchinson(
      t.eigenthings(), num_samples=draws, seed=seed
    ).estimate

  def curvlinops_(_, seed):
    torch.manual_seed(seed)
    return curvlinops.hutchinson_trace(t.curvlinops(), draws).item()

  def torch_func(_, seed):
    mvp = t.linearized()
    signs = [t.noise(seed * draws + i).sign() for i in range(draws)]
    return np.mean([(v @ mvp(v)).item() for v in signs])

  return {
    'PyHessian': Entry(pyhessian_),
    'eigenthings': Entry(eigenthings_),
    'curvlinops': Entry(curvlinops_),
    'torch.func': Entry(torch_func),
  }


def input_lambda(t: Torch, count: int) -> dict[str, Entry]:
  """λ largest in magnitude of each loss in its own image, the first `count`.

  No library has it: the Lanczos steps of all images side by side are ours.
  """
  x, y = (a[:count] for a in t.data)

  def total(x):
    return F.cross_entropy(t.net(x), y, reduction='sum')

  def double_backward():
    z = x.clone().requires_grad_()
    grad = torch.autograd.grad(total(z), z, create_graph=True)[0]
    return lambda v: torch.autograd.grad(grad, z, v, retain_graph=True)[0]

  def linearized():
    return torch.func.linearize(torch.func.grad(total), x)[1]

  def mapped():
    one = lambda z, label: F.cross_entropy(t.net(z[None]), label[None])
    grad = torch.func.grad(one)
    push = lambda z, label, v: torch.func.jvp(
      lambda z: grad(z, label), (z,), (v,)
    )[1]
    return lambda v: torch.func.vmap(push)(x, y, v)

  def entry(make):
    def run(steps, seed):
      g = torch.Generator().manual_seed(seed)
      return block_lanczos(make(), torch.randn(x.shape, generator=g), steps)

    return Entry(run, STEPS)

  return {
    'torch': entry(double_backward),
    'torch.func': entry(linearized),
    'torch.func, vmap': entry(mapped),
  }


def block_lanczos(mvp, v, steps):
  """λ largest in magnitude of every block, from noise v [B, ...]."""
  shape, v = v.shape, v.flatten(1)
  v = v / v.norm(dim=1, keepdim=True)
  basis, alphas, betas = [], [], []
  for _ in range(steps):
    basis.append(v)
    w = mvp(v.view(shape)).detach().flatten(1)
    alphas.append((w * v).sum(1))
    q = torch.stack(basis, 1)
    for _ in range(2):
      w = w - torch.einsum('bk,bkn->bn', torch.einsum('bkn,bn->bk', q, w), q)
    betas.append(w.norm(dim=1))
    v = w / betas[-1][:, None]
  off = torch.diag_embed(torch.stack(betas[:-1], 1), 1)
  t = torch.diag_embed(torch.stack(alphas, 1)) + off + off.mT
  values = torch.linalg.eigvalsh(t)
  return values.gather(1, values.abs().argmax(1, keepdim=True))[:, 0].numpy()


def jax_lambda_max(mean_loss: Callable, args: tuple) -> dict[str, Entry]:
  def fun(steps, key, params, *data):
    mvp, point = linearized(mean_loss, params, data)
    v0 = jax.random.normal(key, point.shape)
    found = matfree.decomp.tridiag_sym(steps)(mvp, v0)
    return jnp.linalg.eigvalsh(found.J_small)[-1]

  jitted = jax.jit(fun, static_argnums=0)
  run = lambda steps, seed: float(jitted(steps, jax.random.key(seed), *args))
  return {'matfree': Entry(run, STEPS)}


def jax_trace(mean_loss: Callable, args: tuple, draws: int) -> dict:
  def matfree_(key, params, *data):
    mvp, point = linearized(mean_loss, params, data)
    sampler = matfree.stochtrace.sampler_signs(point, num=draws)
    estimate = matfree.stochtrace.estimator_monte_carlo(
      matfree.stochtrace.monte_carlo_trace(), sampler
    )
    return estimate(mvp, key)

  def traceax_(key, params, *data):
    mvp, point = linearized(mean_loss, params, data)
    shape = jax.ShapeDtypeStruct(point.shape, point.dtype)
    operator = lineax.FunctionLinearOperator(mvp, shape, lineax.symmetric_tag)
    sampler = traceax.RademacherSampler(float)
    return traceax.HutchinsonEstimator(sampler).estimate(key, operator, draws)[0]

  def entry(fun):
    jitted = jax.jit(fun)
    return Entry(lambda _, seed: float(jitted(jax.random.key(seed), *args)))

  return {'matfree': entry(matfree_), 'traceax': entry(traceax_)}


def linearized(mean_loss: Callable, params: Any, data: tuple) -> tuple:
  """(v [n] -> H v from one linearisation, params [n])."""
  point, unravel = ravel_pytree(params)
  grad = jax.grad(lambda p: mean_loss(unravel(p), *data))
  return jax.linearize(grad, point)[1], point
