"""Curvature in PyTorch's libraries, on the weights of our networks.

Each function named after a job gives {library: Entry} for one problem, of the
libraries that are installed. What a library does not have is made from its
products, with scipy's `eigsh` or a loop. An entry returns when its work has
ended, for what it returns is on the host.
"""

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.nn import functional as F

from benchmarks.curvature_jax import STEPS, Entry, present
from benchmarks.torch_twin import Torch, flat, noise

TOLS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of PyHessian's power iteration
BASES = (6, 8, 10, 13, 16, 20, 30)  # ARPACK's vectors before it restarts


def scipy_top(mvp, size, basis, tol, seed, device='cpu'):
  """λ_max by ARPACK from a torch product; at least `basis` products."""

  def product(v):
    v = torch.tensor(v.reshape(-1), dtype=torch.float32, device=device)
    return mvp(v).cpu().numpy()

  operator = LinearOperator((size, size), product, dtype=np.float32)
  v0 = np.random.default_rng(seed).normal(size=size).astype(np.float32)
  return eigsh(operator, 1, which='LA', ncv=basis, v0=v0, tol=tol)[0][0]


def gradient(t: Torch) -> dict[str, Entry]:
  def run(_, seed):
    return flat(torch.autograd.grad(t.loss(*t.params), t.params))

  return {'torch': Entry(run)}


def product(t: Torch) -> dict[str, Entry]:
  v = t.direction

  def pyhessian_(_, seed):
    from pyhessian.utils import hessian_vector_product

    h = t.pyhessian()
    return flat(hessian_vector_product(h.gradsH, h.params, t.split(v)))

  def torch_func(_, seed):
    point = tuple(p.detach() for p in t.params)
    grad = torch.func.grad(t.loss, tuple(range(len(point))))
    return flat(torch.func.jvp(grad, point, t.split(v))[1])

  entries = {
    'PyHessian': Entry(pyhessian_),
    'eigenthings': Entry(lambda _, seed: t.eigenthings().matvec(v)),
    'curvlinops': Entry(lambda _, seed: t.curvlinops() @ v),
    'torch.func': Entry(torch_func),
  }
  return present(entries)


def shared(t: Torch) -> dict[str, Entry]:
  """`setting` products through one graph or linearisation."""

  def repeat(make):
    def run(count, seed):
      mvp, v = make(), t.direction
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
    import hessian_eigenthings as eigenthings

    pairs = eigenthings.lanczos(
      t.eigenthings(), k=1, max_iter=steps, which='LA', seed=seed
    )
    return pairs.eigenvalues[0].item()

  def arpack(make):
    return Entry(
      lambda basis, seed: scipy_top(make(), t.size, basis, 0.1, seed, t.device),
      BASES,
    )

  entries = {
    'PyHessian': Entry(pyhessian_, TOLS),
    'eigenthings': Entry(eigenthings_, STEPS),
    'curvlinops': arpack(lambda: t.curvlinops().__matmul__),
    'torch.func': arpack(t.linearized),
  }
  return present(entries)


def trace(t: Torch, draws: int) -> dict[str, Entry]:
  def pyhessian_(_, seed):
    torch.manual_seed(seed)
    return np.mean(t.pyhessian().trace(maxIter=draws, tol=-np.inf))

  def eigenthings_(_, seed):
    import hessian_eigenthings as eigenthings

    return eigenthings.hutchinson(
      t.eigenthings(), num_samples=draws, seed=seed
    ).estimate

  def curvlinops_(_, seed):
    import curvlinops

    torch.manual_seed(seed)
    return curvlinops.hutchinson_trace(t.curvlinops(), draws).item()

  def torch_func(_, seed):
    mvp = t.linearized()
    signs = [t.noise(seed * draws + i).sign() for i in range(draws)]
    return np.mean([(v @ mvp(v)).item() for v in signs])

  entries = {
    'PyHessian': Entry(pyhessian_),
    'eigenthings': Entry(eigenthings_),
    'curvlinops': Entry(curvlinops_),
    'torch.func': Entry(torch_func),
  }
  return present(entries)


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
      return block_lanczos(make(), noise(x.shape, seed, x.device), steps)

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
    clean = lambda w: (
      w - torch.einsum('bk,bkn->bn', torch.einsum('bkn,bn->bk', q, w), q)
    )
    w = clean(w)
    # An exhausted space: go on from noise, uncoupled.
    scale = torch.stack(alphas, 1).abs().amax(1, keepdim=True)
    lost = w.norm(dim=1, keepdim=True) <= 1e-5 * scale
    w = clean(torch.where(lost, torch.randn_like(w), w))
    betas.append(w.norm(dim=1).where(~lost[:, 0], 0))
    v = w / w.norm(dim=1, keepdim=True)
  off = torch.diag_embed(torch.stack(betas[:-1], 1), 1)
  t = torch.diag_embed(torch.stack(alphas, 1)) + off + off.mT
  values = torch.linalg.eigvalsh(t)
  top = values.gather(1, values.abs().argmax(1, keepdim=True))[:, 0]
  return top.cpu().numpy()
