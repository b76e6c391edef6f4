"""Parameter curvature of the loss: λ_max, trace and batch sharpness."""

import jax
import jax.numpy as jnp

from implicit_attr import curvature
from implicit_attr.losses import Loss
from implicit_attr.types import ApplyFn, Array, Batch, Params


def parameter_curvature(
  apply_fn: ApplyFn,
  loss: Loss,
  params: Params,
  batch: Batch,
  start: Params,
  key: Array | None,
  *,
  order: int,
  tol: Array | float,
  draws: int,
) -> tuple[dict[str, Array], Params]:
  """λ_max and trace of the Hessian of the mean loss over `batch`.

  Args:
    start: where Lanczos begins: the last measurement's eigenvector, or noise.
    order: at most this many products for λ_max.
    tol: residual at which it stops, relative to λ_max.
    draws: Rademacher probes of the trace, from `key`; 0 leaves it out.

  Returns:
    'param/lambda_max', its residual bound 'param/lambda_max_residual' (the
    eigenvalue lies that close) and 'param/lambda_max_products', what it took;
    'param/trace' with standard error 'param/trace_se'; and the eigenvector, to
    start from next time.
  """

  def mean_loss(params):
    logits, _ = apply_fn(params, batch['image'])
    return jnp.mean(loss(logits, batch['label']))

  mvp = curvature.linearize_hvp(mean_loss, params)
  top = curvature.eigenpairs(mvp, start, k=1, order=order, tol=tol)
  measured = {
    'param/lambda_max': top.values[0],
    'param/lambda_max_residual': top.residuals[0],
    'param/lambda_max_products': top.products,
  }
  if draws:
    assert key is not None
    mean, stderr = curvature.hessian_trace(mean_loss, params, key, draws=draws)
    measured |= {'param/trace': mean, 'param/trace_se': stderr}
  return measured, jax.tree.map(lambda v: v[0], top.vectors)


def batch_sharpness(
  apply_fn: ApplyFn, loss: Loss, params: Params, batches: Batch
) -> dict[str, Array]:
  """E_B[g_B' H_B g_B / ‖g_B‖²] over `batches` [S, B, ...], with its error.

  The curvature that a step of stochastic descent meets along its own
  gradient; it, not λ_max, settles at 2/η for small batches (Andreyev &
  Beneventano, arXiv 2412.20553).
  """

  def mean_loss(params, batch):
    logits, _ = apply_fn(params, batch['image'])
    return jnp.mean(loss(logits, batch['label']))

  mean, stderr = curvature.batch_sharpness(mean_loss, params, batches)
  return {'param/batch_sharpness': mean, 'param/batch_sharpness_se': stderr}
