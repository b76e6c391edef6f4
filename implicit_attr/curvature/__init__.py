"""Curvature of scalar functions, in their parameters or in their input.

Works on any JAX function and any tree of floating-point arrays. A curvature is
`mvp: v -> H v`; products make one, and everything else only needs one:

    mvp = curvature.linearize_hvp(loss, params)
    values, vectors, residuals = curvature.top_eigenpairs(mvp, v0, order=30)
    mean, stderr = curvature.trace(mvp, params, key, draws=30)

Nothing is compiled here: wrap what belongs together in one `jax.jit`, traced
under `numerics.exact()` on accelerators. Bad input ends in `InputError`.
"""

from implicit_attr.curvature.batch_sharpness import (
  batch_sharpness,
  noise_covariance,
)
from implicit_attr.curvature.density import (
  Quadrature,
  default_grid,
  density,
  smoothed,
  spectral_moments,
  spectral_quadrature,
)
from implicit_attr.curvature.gauss_newton import (
  empirical_fisher,
  fisher,
  gauss_newton,
  residual_part,
  split,
)
from implicit_attr.curvature.inputs import (
  InputEigenpairs,
  PerExample,
  gradient_norms,
  normalized_curvature,
  per_example,
  per_example_eigenpairs,
  per_example_moments,
)
from implicit_attr.curvature.jacobian import (
  gauss_newton_eigenvalues,
  jacobian_gram,
  jacobian_norms,
)
from implicit_attr.curvature.lanczos import (
  Eigenpairs,
  bottom_eigenpairs,
  eigenpairs,
  lanczos,
  top_eigenpairs,
)
from implicit_attr.curvature.products import (
  grad_and_hvp,
  hvp,
  linearize_hvp,
  microbatched,
  second_derivative,
  summed,
)
from implicit_attr.curvature.trace import (
  Moments,
  frobenius,
  hessian_trace,
  moments,
  quadratic_forms,
  rademacher,
  trace,
)

__all__ = [
  'Eigenpairs',
  'InputEigenpairs',
  'Moments',
  'PerExample',
  'Quadrature',
  'batch_sharpness',
  'bottom_eigenpairs',
  'default_grid',
  'density',
  'eigenpairs',
  'empirical_fisher',
  'fisher',
  'frobenius',
  'gauss_newton',
  'gauss_newton_eigenvalues',
  'grad_and_hvp',
  'gradient_norms',
  'hessian_trace',
  'hvp',
  'jacobian_gram',
  'jacobian_norms',
  'lanczos',
  'linearize_hvp',
  'microbatched',
  'moments',
  'noise_covariance',
  'normalized_curvature',
  'per_example',
  'per_example_eigenpairs',
  'per_example_moments',
  'quadratic_forms',
  'rademacher',
  'residual_part',
  'second_derivative',
  'smoothed',
  'spectral_moments',
  'spectral_quadrature',
  'split',
  'summed',
  'top_eigenpairs',
  'trace',
]
