"""The attack of attacks.py as a loop in PyTorch."""

import argparse
import contextlib
import functools
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import torch_twin
from benchmarks.attacks import BETAS, EPS, K
from implicit_attr.types import Array


def runs(
  args: argparse.Namespace,
  params: dict,
  x: Array,
  y: Array,
  start: np.ndarray,
  device: str = 'cpu',
) -> dict[str, Callable]:
  """{'loop', 'func': () -> (x_adv, score)}; images as the twin wants them.

  Both begin at `start` and take the steps of ours, see attacks.py.
  """
  twin = torch_twin.Twin(args.network, params, args.options, device)
  for p in twin.parameters():
    p.requires_grad_(False)
  clean, labels = torch_twin.data(args.network, x, y, device)
  start = torch_twin.data(args.network, start, y, device)[0]
  channel = 1 if torch_twin.mirrored(args.network) else 3
  smooth = args.network == 'vit'
  nodes, weights = np.polynomial.legendre.leggauss(args.path)
  like = {'dtype': clean.dtype, 'device': device}
  nodes = torch.tensor((1 + nodes) / 2, **like)
  weights = torch.tensor(weights / 2, **like)
  betas = np.geomspace(*BETAS, args.steps)

  def softened(beta):
    """While it lasts, the twin is its surrogate."""
    if beta is None or smooth:
      return contextlib.nullcontext()
    soft = functools.partial(F.softplus, beta=float(beta), threshold=50)
    return mock.patch.object(F, 'relu', soft)

  def share(a):
    a = a.abs().sum(channel).flatten(1)
    return a / a.sum(1, keepdim=True)

  def on_path(z):
    """[B, ...] -> [points B, ...], the line from black to z."""
    return (nodes.view(-1, *[1] * z.ndim) * z[None]).flatten(0, 1)

  def map_of(z, gradient):
    if args.method == 'gradient':
      return gradient(z, labels)
    found = gradient(on_path(z), labels.repeat(args.path))
    return z * torch.tensordot(weights, found.view(-1, *z.shape), 1)

  def backward(z, y, create=True):
    if not z.requires_grad:
      z = z.requires_grad_()
    picked = twin(z).gather(1, y[:, None]).sum()
    return torch.autograd.grad(picked, z, create_graph=create)[0]

  def one(z, y):
    return twin(z[None])[0].gather(0, y[None])[0]

  transformed = torch.func.vmap(torch.func.grad(one))
  n = share(clean).shape[1]
  count = round(K * n)

  def topk(a):
    return torch.topk(a, count, 1).indices

  def single(z, y, top):
    """What is lowered, of one image; the map with it."""
    path = z[None]
    if args.method != 'gradient':
      path = on_path(z[None])
    a = torch.func.vmap(torch.func.grad(one), (0, None))(path, y)
    if args.method != 'gradient':
      a = z * torch.tensordot(weights, a, 1)
    a = a.reshape(z.shape)
    return share(a[None])[0][top].sum(), a

  def by_loop(z, top):
    z = z.clone().requires_grad_()
    a = map_of(z, backward)
    loss = share(a).gather(1, top).sum()
    return torch.autograd.grad(loss, z)[0], a.detach()

  def by_func(z, top):
    both = torch.func.vmap(torch.func.grad(single, has_aux=True))
    return both(z, labels, top)

  def attack(slope, plain):
    first = map_of(clean.clone(), plain).detach()
    top = topk(share(first))
    mask = torch.zeros(clean.shape[0], n, dtype=torch.bool, device=device)
    mask.scatter_(1, top, True)
    score_of = lambda a: mask.gather(1, topk(share(a))).float().mean(1)
    best, score = clean, torch.ones(clean.shape[0], device=device)
    z = start

    def judged(z, a, best, score):
      with torch.no_grad():
        same = twin(z).argmax(1) == labels
        now = score_of(a)
        gain = same & (now < score)
        wide = gain.view(-1, *[1] * (z.ndim - 1))
        return torch.where(wide, z, best), torch.where(gain, now, score)

    for beta in betas:
      with softened(beta):
        grad, a = slope(z, top)
      if not smooth:
        a = map_of(z.clone(), plain).detach()
      best, score = judged(z, a, best, score)
      step = 2.5 * EPS / args.steps * grad.sign()
      z = clean + (z - step - clean).clamp(-EPS, EPS)
      z = z.clamp(0, 1)
    a = map_of(z.clone(), plain).detach()
    return judged(z, a, best, score)

  once = functools.partial(backward, create=False)
  return {
    'loop': lambda: attack(by_loop, once),
    'func': lambda: attack(by_func, transformed),
  }
