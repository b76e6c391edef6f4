"""Attention kernels: softmax, linear with feature maps, and pointwise ones.

Every kernel gives o_i = sum_j A_ij v_j, and A is what attribution reads. With
feature maps A_ij = phi(q_i) . phi(k_j) / d_i, so o costs O(L M) and A is made
only when asked for; both are one function, equal to rounding. Scores and A are
at least float32 whatever the dtype of the trunk: bfloat16 rounding alone
destroys the ranking of near-uniform rows.

q, k, v are [B, L, H, Dh], weights [B, H, L, L]. Guarantees, for all kernels:
twice differentiable almost everywhere in any mode, no NaN for rows of any
finite size up to 1e3 or for rows without a positive score, an example's result
does not depend on the others in its batch, and nothing is random.
"""

import functools
import math
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.models.features import FEATURE_MAPS, feature_pair
from implicit_attr.types import Array

NORMALIZERS = ('sum', 'none', 'n', 'nm', 'rms')
"""d_i: sum_j of the row's scores; 1; L; L M; rms of the row's output."""

_EPS = 1e-6  # added to a sum, so that a row without a positive score gives 0
# favor's sums are positive and of any size: its stabiliser cancels only if
# nothing is added. Below this they have underflowed; its -3rd power is finite.
_UNDERFLOW = 1e-12

Output = Array | tuple[Array, Array]


def softmax(
  q: Array, k: Array, v: Array, *, return_weights: bool = False
) -> Output:
  """softmax(q k / sqrt(Dh)) v, with its weights if asked."""
  q, k, dtype = _widen(q, k, v)
  a = jax.nn.softmax(_products(q, k), -1)
  return _mix(a, v, dtype, return_weights)


def linear(
  q: Array,
  k: Array,
  v: Array,
  feature_map: str = 'elu1',
  normalize: str = 'sum',
  *,
  grid: tuple[int, int] | None = None,
  return_weights: bool = False,
) -> Output:
  """phi(q) (phi(k)^T v) / d in O(L M), with its dense weights if asked.

  Args:
    feature_map: one of `FEATURE_MAPS`.
    normalize: one of `NORMALIZERS`. rms divides by the root mean square of
      the output over Dh (TransNormer, arXiv 2210.10340).
    grid: rows and columns of the last tokens, for cosformer.

  Raises:
    InputError: for an unknown name, and for favor with none, n or nm: its
      stabiliser cancels in a normalised kernel only.
  """
  check(feature_map, normalize)
  q, k, dtype = _widen(q, k, v)
  # Heads before positions, as products want them: transposed with the features
  # that is free, left to the products it is half their time.
  v = v.astype(q.dtype).swapaxes(1, 2)  # [B, H, L, Dh]
  phi_q, phi_k = (
    phi.swapaxes(1, 2) for phi in feature_pair(feature_map, q, k, grid)
  )  # [B, H, L, M]
  n, m = phi_k.shape[2:]
  kv = jnp.einsum('bhlm,bhld->bhmd', phi_k, v)
  if normalize == 'sum':
    # One more column, so that the sum of a row comes with its output.
    ones = jnp.ones(phi_k.shape[:3], phi_k.dtype)
    total = jnp.einsum('bhlm,bhl->bhm', phi_k, ones)
    kv = jnp.concatenate([kv, total[..., None]], -1)
  u = jnp.einsum('bhlm,bhmd->bhld', phi_q, kv)
  if normalize == 'sum':
    u, total = u[..., :-1], u[..., -1:]
    if feature_map == 'favor':
      alive = total > _UNDERFLOW
      inverse = jnp.where(alive, 1 / jnp.where(alive, total, 1), 0)
    else:
      inverse = 1 / (total + _EPS)
  elif normalize == 'rms':
    inverse = jax.lax.rsqrt(jnp.mean(u**2, -1, keepdims=True) + _EPS)
  else:
    inverse = {'none': 1.0, 'n': 1 / n, 'nm': 1 / (n * m)}[normalize]
  o = (u * inverse).swapaxes(1, 2).astype(dtype)
  if not return_weights:
    return o
  return o, jnp.einsum('bhlm,bhjm->bhlj', phi_q, phi_k) * inverse


def pointwise(
  q: Array,
  k: Array,
  v: Array,
  kernel: str = 'sigmoid',
  *,
  return_weights: bool = False,
) -> Output:
  """A_ij a function of q_i and k_j alone, not normalised; O(L^2).

  With s = q k / sqrt(Dh): sigmoid(s - log L) (arXiv 2409.04431), relu(s) / L
  (arXiv 2309.08586), and gaussian, exp(-|q - k|^2 / (2 sqrt(Dh))), the kernel
  of SOFT (arXiv 2110.11945) without its low-rank approximation.
  """
  errors.choose('model.attention', kernel, ('sigmoid', 'relu', 'gaussian'))
  q, k, dtype = _widen(q, k, v)
  s, n = _products(q, k), k.shape[1]
  if kernel == 'sigmoid':
    a = jax.nn.sigmoid(s - math.log(n))
  elif kernel == 'relu':
    a = jax.nn.relu(s) / n
  else:
    half = lambda x: jnp.sum(x**2, -1) / (2 * math.sqrt(x.shape[-1]))
    left = half(q).swapaxes(1, 2)[..., :, None]
    right = half(k).swapaxes(1, 2)[..., None, :]
    a = jnp.exp(s - left - right)
  return _mix(a, v, dtype, return_weights)


class Kernel(NamedTuple):
  """A named pair: `linear` with both fields, or another function."""

  kind: str
  feature_map: str = ''
  normalize: str = ''


def check(feature_map: str, normalize: str) -> None:
  """Raises InputError for a pair that `linear` refuses."""
  errors.choose('model.feature_map', feature_map, FEATURE_MAPS)
  errors.choose('model.normalize', normalize, NORMALIZERS)
  errors.require(
    'model.normalize',
    normalize,
    feature_map != 'favor' or normalize in ('sum', 'rms'),
    'sum or rms with the feature map favor, whose stabiliser changes the '
    'scale of a kernel that is not normalised',
  )


def _named() -> dict[str, Kernel]:
  """softmax; MAP_NORMALIZER for all pairs; short names for the usual ones."""
  kernels = {'softmax': Kernel('softmax')}
  for kind in ('sigmoid', 'relu', 'gaussian'):
    kernels[f'{kind}_pointwise'] = Kernel(f'pointwise_{kind}')
  for feature_map in FEATURE_MAPS:
    for normalize in NORMALIZERS:
      if feature_map != 'favor' or normalize in ('sum', 'rms'):
        pair = Kernel('linear', feature_map, normalize)
        kernels[f'{feature_map}_{normalize}'] = pair
  for normalize in NORMALIZERS:
    kernels[f'linear_{normalize}'] = kernels[f'elu1_{normalize}']
  kernels['linear'] = kernels['elu1_sum']
  for feature_map in ('taylor2', 'hedgehog', 'favor', 'cosformer'):
    kernels[feature_map] = kernels[f'{feature_map}_sum']
  return kernels


KERNELS: dict[str, Kernel] = _named()
"""What a config's `attention=` takes; linear is elu1_sum."""


@overload
def attend(
  name: str, q: Array, k: Array, v: Array, *,
  grid: tuple[int, int] | None = None, return_weights: Literal[False] = False,
) -> Array: ...  # fmt: skip
@overload
def attend(
  name: str, q: Array, k: Array, v: Array, *,
  grid: tuple[int, int] | None = None, return_weights: Literal[True],
) -> tuple[Array, Array]: ...  # fmt: skip
def attend(
  name: str,
  q: Array,
  k: Array,
  v: Array,
  *,
  grid: tuple[int, int] | None = None,
  return_weights: bool = False,
) -> Output:
  """The kernel called `name` in `KERNELS`.

  Raises:
    InputError: for another name.
  """
  errors.choose('model.attention', name, KERNELS)
  kind, feature_map, normalize = KERNELS[name]
  if kind == 'softmax':
    fun = softmax
  elif kind == 'linear':
    fun = functools.partial(
      linear, feature_map=feature_map, normalize=normalize, grid=grid
    )
  else:
    fun = functools.partial(pointwise, kernel=kind.removeprefix('pointwise_'))
  return fun(q, k, v, return_weights=return_weights)


def _widen(q: Array, k: Array, v: Array) -> tuple[Array, Array, jnp.dtype]:
  """q and k in at least float32, and the dtype in which o goes back."""
  dtype = jnp.promote_types(q.dtype, jnp.float32)
  return q.astype(dtype), k.astype(dtype), v.dtype


def _products(q: Array, k: Array) -> Array:
  """q . k / sqrt(Dh), [B, H, L, L]."""
  # Heads first by hand: where XLA has to find it, a Hessian-vector product of a
  # small ViT takes a fifth more on a CPU. The same in `_mix`.
  q = (q / math.sqrt(q.shape[-1])).transpose(0, 2, 1, 3)
  return jnp.matmul(q, k.transpose(0, 2, 3, 1))


def _mix(a: Array, v: Array, dtype: jnp.dtype, return_weights: bool) -> Output:
  o = jnp.matmul(a, v.astype(a.dtype).transpose(0, 2, 1, 3))
  o = o.transpose(0, 2, 1, 3).astype(dtype)
  return (o, a) if return_weights else o
