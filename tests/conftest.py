"""What does every test run under? Strict shapes, CPUs, float64 on demand."""

import os

import jax
import pytest

# Tests are all compilation: XLA optimises little, which costs a third less.
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_platforms', 'cpu')
# Without the fusions of MLIR jax 0.10 compiles in half the time; later releases
# do not know the flag and stop. XLA reads it once, here, so that programs which
# tests start run as a user's do.
if jax.__version_info__ < (0, 11):
  with pytest.MonkeyPatch.context() as patch:
    flags = os.environ.get('XLA_FLAGS', '')
    patch.setenv('XLA_FLAGS', f'{flags} --xla_cpu_use_fusion_emitters=false')
    jax.devices()


@pytest.fixture(autouse=True, scope='module')
def _forget():
  """Programs of one file are of no use to the next; thousands slow all down."""
  yield
  jax.clear_caches()


@pytest.fixture
def x64():
  """Runs the test in float64; arrays made before it stay float32."""
  with jax.enable_x64(True):
    yield
