"""A network of ours in PyTorch: the same weights and loss, on any device."""

from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Twin(nn.Module):
  """A network of ours with its parameters, in PyTorch.

  'SAME' pads below and to the right where PyTorch pads all around. On mirrored
  images and kernels the two are equal, at no cost, so that is what
  convolutional twins work on. Batch normalisation is that of training.

  Args:
    fused: attention by PyTorch's own kernels, which have no second derivative.
  """

  def __init__(
    self,
    name: str,
    params: dict,
    options: dict,
    device: str = 'cpu',
    fused: bool = False,
  ):
    super().__init__()
    kind = 'resnet' if name.startswith('resnet') else name
    self.forward_of, self.options = getattr(self, kind), options
    self.fused, self.flat = fused, nn.ParameterDict()
    self.statistics = {}
    place = lambda layer: int(layer.split('_')[1])
    hidden = [n for n in params if n.startswith(('conv_', 'dense_'))]
    self.hidden = ['first', *sorted(hidden, key=place)]
    for path, w in jax.tree.leaves_with_path(params):
      layer, *rest = [key.key for key in path]
      kind = rest[-1] if rest else ''
      w = np.asarray(w)
      if kind == 'kernel' and w.ndim == 4:
        w = w[::-1, ::-1].transpose(3, 2, 0, 1)
      elif name == 'cnn' and (layer, kind) == ('hidden', 'kernel'):
        channels = params[self.hidden[-1]]['bias'].size
        side = round((w.shape[0] / channels) ** 0.5)
        w = w.reshape(side, side, channels, -1)[::-1, ::-1]
        w = w.transpose(3, 2, 0, 1).reshape(w.shape[3], -1)
      elif kind == 'kernel':
        w = w.T
      w = torch.tensor(w.copy(), device=device)
      self.flat[f'{layer}/{kind}'] = nn.Parameter(w)
      if 'batch' in rest:
        self.statistics[layer] = torch.zeros_like(w), torch.ones_like(w)
    self.layers = {key.split('/')[0] for key in self.flat}
    self.biased = {key for key in self.flat if key.endswith('/bias')}
    self.blocks = sorted(
      name.removesuffix('_conv_0')
      for name in self.layers
      if name.endswith('_conv_0')
    )

  def forward(self, x):
    return self.forward_of(x)

  def conv(self, layer, x, stride=1):
    w = self.flat[f'{layer}/kernel']
    if w.shape[-1] == 1 and stride == 2:  # mirrored: the other pixels
      x, stride = x[:, :, 1::2, 1::2], 1
    b = f'{layer}/bias'
    b = self.flat[b] if b in self.biased else None
    return F.conv2d(x, w, b, stride, w.shape[-1] // 2)

  def unit(self, conv, norm, x, stride=1):
    """A convolution and, where there is one, its batch normalisation."""
    x = self.conv(conv, x, stride)
    if norm not in self.statistics:
      return x
    w, b = self.flat[f'{norm}/scale'], self.flat[f'{norm}/bias']
    return F.batch_norm(x, *self.statistics[norm], w, b, True, 0.1, 1e-5)

  def dense(self, layer, x):
    return F.linear(x, self.flat[f'{layer}/kernel'], self.flat[f'{layer}/bias'])

  def norm(self, layer, x):
    w = self.flat[f'{layer}/scale']
    return F.layer_norm(x, w.shape, w, self.flat[f'{layer}/bias'], 1e-6)

  def mlp(self, x):
    x = x.flatten(1)
    for layer in self.hidden:
      x = F.relu(self.dense(layer, x))
    return self.dense('logits', x)

  def cnn(self, x):
    for layer in self.hidden:
      x = F.relu(self.conv(layer, x, 1 if layer == 'first' else 2))
    return self.dense('logits', F.relu(self.dense('hidden', x.flatten(1))))

  def resnet(self, x):
    x = F.relu(self.unit('first', 'first_norm', x))
    for block in self.blocks:
      skip = f'{block}_skip'
      stride = 2 if skip in self.layers else 1
      y = self.unit(f'{block}_conv_0', f'{block}_norm_0', x, stride)
      y = self.unit(f'{block}_conv_1', f'{block}_norm_1', F.relu(y))
      if skip in self.layers:
        x = self.unit(skip, f'{skip}_norm', x, stride)
      x = F.relu(x + y)
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
      if self.fused:
        y = F.scaled_dot_product_attention(q, k, v)
      else:
        y = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
      y = y.transpose(1, 2).reshape(x.shape)
      x = x + self.dense(f'{name}_out', y)
      y = F.gelu(self.dense(f'{name}_mlp_0', self.norm(f'{name}_norm_1', x)))
      x = x + self.dense(f'{name}_mlp_1', y)
    return self.dense('logits', self.norm('norm', x)[:, 0])


def data(
  name: str, x: Any, y: Any, device: str = 'cpu'
) -> tuple[torch.Tensor, torch.Tensor]:
  """x [B, H, W, C] and labels as the twin of `name` wants them."""
  x = np.asarray(x)
  if mirrored(name):
    x = x[:, ::-1, ::-1].transpose(0, 3, 1, 2)
  y = torch.tensor(np.asarray(y), dtype=torch.long, device=device)
  return torch.tensor(x.copy(), device=device), y


def mirrored(name: str) -> bool:
  """Whether the twin wants images mirrored, channels first."""
  return name not in ('mlp', 'vit')


class Torch:
  """What the entries of PyTorch's libraries share."""

  def __init__(self, net: Twin, x: torch.Tensor, y: torch.Tensor):
    self.net, self.data, self.device = net, (x, y), x.device
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

  @property
  def direction(self):
    """What products are taken with: the parameters, as ours are."""
    return flat(self.params)

  def noise(self, seed):
    return noise((self.size,), seed, self.device)

  def pyhessian(self):
    import pyhessian

    for p in self.params:
      p.grad = None
    cuda = self.device.type == 'cuda'
    return pyhessian.hessian(self.net, F.cross_entropy, self.data, cuda=cuda)

  def eigenthings(self):
    import hessian_eigenthings as eigenthings

    loss = eigenthings.supervised_loss(F.cross_entropy)
    return eigenthings.HessianOperator(self.net, [self.data], loss)

  def curvlinops(self):
    import curvlinops

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


def noise(shape, seed: int, device) -> torch.Tensor:
  """Normal numbers, drawn where they are used."""
  torch.manual_seed(seed)
  return torch.randn(shape, device=device)


def flat(tensors):
  return torch.cat([t.detach().reshape(-1) for t in tensors])
