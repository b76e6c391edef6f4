"""Grad-CAM, Grad-CAM++ and guided Grad-CAM: evidence on a feature map.

A class activation map weighs the channels of one feature map of the network,
out[feature] [B, h, w, D], and adds them up. It has no channels of its own:
where a map with the shape of x is asked for, it is enlarged (bilinear) and
shared equally by the channels of x, so that their sum is the enlarged map.
"""

import jax
import jax.numpy as jnp

from implicit_attr import errors
from implicit_attr.attribution.graph import feature_shape, with_offset
from implicit_attr.attribution.inputs import check, check_images
from implicit_attr.attribution.modified_backprop import guided_backprop
from implicit_attr.attribution.targets import target as target_of
from implicit_attr.types import ApplyFn, Array, Params


def feature_gradient(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  target: str = 'logit',
  feature: str = 'features',
) -> tuple[Array, Array]:
  """`out[feature]` [B, h, w, D] and ∂ target / ∂ `out[feature]`, as large.

  Raises:
    InputError: as `gradient`; `out` has no such feature, it is not
      [B, h, w, D], or the network does not use it as it is returned.
  """
  x, y = check(apply_fn, params, x, y)
  shape = feature_shape(apply_fn, params, x, feature)
  errors.require(
    f'out[{feature!r}].shape', shape, len(shape) == 4, '[B, h, w, D]'
  )
  moved = with_offset(apply_fn, feature)

  def total(offset: Array) -> tuple[Array, Array]:
    logits, out = moved(params, x, offset)
    return jnp.sum(target_of(target, logits, y)), out[feature]

  like = jax.eval_shape(apply_fn, params, x)[1][feature]
  gradients, features = jax.grad(total, has_aux=True)(
    jnp.zeros(shape, like.dtype)
  )
  return features, gradients


def cam(features: Array, gradients: Array, *, rectify: bool = True) -> Array:
  """Grad-CAM at the resolution of the features; [B, h, w].

  Channels weighed by their mean gradient (Selvaraju et al., arXiv 1610.02391,
  eq. 1 and 2); `rectify` drops what speaks against the target.
  """
  weights = jnp.mean(gradients, axis=(1, 2), keepdims=True)
  evidence = jnp.sum(weights * features, axis=-1)
  return jax.nn.relu(evidence) if rectify else evidence


def cam_pp(features: Array, gradients: Array) -> Array:
  """Grad-CAM++ at the resolution of the features; [B, h, w].

  Chattopadhyay et al., arXiv 1710.11063, eq. 10, 11 and 19, for the target
  inside of an exponential, whose value, one factor per example, is left out.
  Where all of a channel's gradients are 0 its weight is 0.
  """
  # Eq. 19 over the square of the gradient, which may underflow.
  mass = jnp.sum(features, axis=(1, 2), keepdims=True)
  below = 2 + mass * gradients
  zero = (below == 0) | (gradients == 0)
  alpha = jnp.where(zero, 0, 1 / jnp.where(zero, 1, below))
  weights = jnp.sum(alpha * jax.nn.relu(gradients), (1, 2), keepdims=True)
  return jax.nn.relu(jnp.sum(weights * features, axis=-1))


def enlarge(a: Array, x: Array) -> Array:
  """The map a [B, h, w] at the resolution of x [B, H, W, C]: [B, H, W, 1]."""
  check_images(x)
  return jax.image.resize(a, x.shape[:3], 'bilinear')[..., None]


def _spread(a: Array, x: Array) -> Array:
  return jnp.broadcast_to(enlarge(a, x) / x.shape[-1], x.shape)


def grad_cam(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  feature: str = 'features',
  rectify: bool = True,
) -> Array:
  """Grad-CAM (arXiv 1610.02391), see `cam`, with the shape of x.

  Args:
    apply_fn: (params, x) -> (logits [B, C], out).
    params: what `apply_fn` takes.
    x: [B, H, W, C], floating, pixel units.
    y: the classes asked about; int [B].
    key: not used.
    target: one of `TARGETS`.
    feature: name of a feature map in `out`, [B, h, w, D].
    rectify: drop what speaks against the target.

  Raises:
    InputError: as `feature_gradient`; x not [B, H, W, C].
  """
  del key
  pair = feature_gradient(
    apply_fn, params, x, y, target=target, feature=feature
  )
  return _spread(cam(*pair, rectify=rectify), x)


def grad_cam_pp(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  feature: str = 'features',
) -> Array:
  """Grad-CAM++ (arXiv 1710.11063), see `cam_pp`; as `grad_cam` otherwise."""
  del key
  pair = feature_gradient(
    apply_fn, params, x, y, target=target, feature=feature
  )
  return _spread(cam_pp(*pair), x)


def guided_grad_cam(
  apply_fn: ApplyFn,
  params: Params,
  x: Array,
  y: Array,
  *,
  key: Array | None = None,
  target: str = 'logit',
  feature: str = 'features',
) -> Array:
  """Guided backpropagation times the enlarged Grad-CAM (1610.02391, sec. 3.2).

  Arguments as `grad_cam`; raises as `grad_cam` and `guided_backprop`.
  """
  del key
  pair = feature_gradient(
    apply_fn, params, x, y, target=target, feature=feature
  )
  fine = guided_backprop(apply_fn, params, x, y, target=target)
  return fine * enlarge(cam(*pair), x)
