"""What does every test run under? Strict shapes, CPUs, float64 on demand."""

import jax
import pytest

# Tests are all compilation: XLA optimises little, which costs a third less.
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_platforms', 'cpu')


@pytest.fixture
def x64():
  """Runs the test in float64; arrays made before it stay float32."""
  with jax.enable_x64(True):
    yield
