"""How do other libraries do each job, on the weights of our networks?

Each function of `JOBS` gives {library: Entry} for one problem. What a library
does not have is made from its products, with scipy's `eigsh` or a loop.
"""

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
import torch
import traceax
from jax.flatten_util import ravel_pytree
from pyhessian.utils import hessian_vector_product
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.nn import functional as F
from torch_twin import Torch, flat

STEPS = (8, 10, 12, 14, 17, 20, 25, 30, 40, 60)  # of Lanczos
TOLS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of PyHessian's power iteration
BASES = (6, 8, 10, 13, 16, 20, 30)  # ARPACK's vectors before it restarts


class Entry(NamedTuple):
  """run(setting, seed) -> number or array; settings, the cheapest first."""

  run: Callable[[Any, int], Any]
  settings: Sequence = (None,)


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
    clean = lambda w: (
      w - torch.einsum('bk,bkn->bn', torch.einsum('bkn,bn->bk', q, w), q)
    )
    w = clean(w)
    # An exhausted space: go on from noise, uncoupled.
    scale = torch.stack(alphas, 1).abs().amax(1, keepdim=True)
    lost = w.norm(dim=1, keepdim=True) <= 1e-5 * scale
    w = clean(torch.where(lost, torch.randn_like(w), w))
    betas.append(w.norm(dim=1).where(~lost[:, 0], torch.zeros(())))
    v = w / w.norm(dim=1, keepdim=True)
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
    estimator = traceax.HutchinsonEstimator(sampler)
    return estimator.estimate(key, operator, draws)[0]

  def entry(fun):
    jitted = jax.jit(fun)
    return Entry(lambda _, seed: float(jitted(jax.random.key(seed), *args)))

  return {'matfree': entry(matfree_), 'traceax': entry(traceax_)}


def linearized(mean_loss: Callable, params: Any, data: tuple) -> tuple:
  """(v [n] -> H v from one linearisation, params [n])."""
  point, unravel = ravel_pytree(params)
  grad = jax.grad(lambda p: mean_loss(unravel(p), *data))
  return jax.linearize(grad, point)[1], point
