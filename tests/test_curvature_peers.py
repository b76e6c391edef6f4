"""Do λ_max and trace equal PyHessian's and curvlinops's on the same weights?"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import curvature

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings('ignore')]

B, D, WIDTH, CLASSES, DRAWS = 32, 12, 16, 4, 200


def network(params, x):
  """Two hidden layers with tanh."""
  for i in (0, 1):
    x = jnp.tanh(x @ params[f'w{i}'] + params[f'b{i}'][None])
  return x @ params['w2'] + params['b2'][None]


@pytest.fixture(scope='module')
def problem():
  """(params, x, labels) in float64, as numpy arrays."""
  rng = np.random.default_rng(0)
  widths = (D, WIDTH, WIDTH, CLASSES)
  params = {}
  for i, (m, n) in enumerate(itertools.pairwise(widths)):
    params[f'w{i}'] = rng.normal(size=(m, n)) / m**0.5
    params[f'b{i}'] = rng.normal(size=n) / 10
  return params, rng.normal(size=(B, D)), rng.integers(CLASSES, size=B)


@pytest.fixture(scope='module')
def ours(problem):
  """λ_max to rounding, the trace with its standard error, the loss."""
  with jax.enable_x64(True):
    params, x, y = jax.tree.map(jnp.asarray, problem)

    def loss(params):
      log_probs = jax.nn.log_softmax(network(params, x))
      return -jnp.mean(log_probs[jnp.arange(B), y])

    @jax.jit
    def measure(params):
      grad, mvp = curvature.grad_and_hvp(loss, params)
      values, _, _ = curvature.top_eigenpairs(mvp, grad, order=60, tol=1e-9)
      key = jax.random.key(0)
      trace = curvature.trace(mvp, params, key, draws=DRAWS)
      return values[0], *trace, loss(params)

    return [float(a) for a in measure(params)]


@pytest.fixture(scope='module')
def peer(problem):
  """(torch, the same network and data in float64)."""
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  nn = torch.nn
  params, x, y = problem
  model = nn.Sequential(
    nn.Linear(D, WIDTH), nn.Tanh(),
    nn.Linear(WIDTH, WIDTH), nn.Tanh(),
    nn.Linear(WIDTH, CLASSES),
  ).double()  # fmt: skip
  with torch.no_grad():
    for i in range(3):
      model[2 * i].weight.copy_(torch.tensor(params[f'w{i}'].T.copy()))
      model[2 * i].bias.copy_(torch.tensor(params[f'b{i}']))
  torch.manual_seed(0)
  return torch, model, torch.tensor(x), torch.tensor(y)


@pytest.fixture(scope='module')
def pyhessian(peer):
  library = pytest.importorskip('pyhessian', reason='it is not installed')
  torch, model, x, y = peer
  criterion = torch.nn.functional.cross_entropy
  return library.hessian(model, criterion, data=(x, y), cuda=False)


@pytest.fixture(scope='module')
def curvlinops(peer):
  library = pytest.importorskip('curvlinops', reason='it is not installed')
  torch, model, x, y = peer
  loss = torch.nn.CrossEntropyLoss()
  operator = library.HessianLinearOperator(
    model, loss, list(model.parameters()), [(x, y)]
  )
  return library, operator


def test_loss(ours, peer):
  torch, model, x, y = peer
  wanted = torch.nn.functional.cross_entropy(model(x), y).item()
  np.testing.assert_allclose(ours[3], wanted, rtol=1e-12)


def test_lambda_max_equals_pyhessians(ours, pyhessian):
  # It stops when the estimate changes by less than `tol`; the error is larger.
  values, _ = pyhessian.eigenvalues(maxIter=5000, tol=1e-7)
  np.testing.assert_allclose(ours[0], values[0], rtol=1e-4)


def test_lambda_max_equals_arpack_on_curvlinops(ours, curvlinops):
  linalg = pytest.importorskip('scipy.sparse.linalg')
  _, operator = curvlinops
  values = linalg.eigsh(operator.to_scipy(), 1, which='LA', tol=1e-10)[0]
  np.testing.assert_allclose(ours[0], values[0], rtol=1e-9)


def test_trace_equals_pyhessians(ours, pyhessian):
  draws = pyhessian.trace(maxIter=DRAWS, tol=-np.inf)
  assert len(draws) == DRAWS
  theirs = np.std(draws, ddof=1) / DRAWS**0.5
  assert abs(ours[1] - np.mean(draws)) <= 3 * np.hypot(ours[2], theirs)
  # The same estimator: the same spread.
  np.testing.assert_allclose(ours[2], theirs, rtol=0.3)


def test_trace_equals_the_exact_one_of_curvlinops(ours, curvlinops):
  torch = pytest.importorskip('torch')
  library, operator = curvlinops
  size = operator.shape[0]
  exact = torch.trace(operator @ torch.eye(size, dtype=torch.float64)).item()
  assert abs(ours[1] - exact) <= 3 * ours[2]
  estimate = library.hutchinson_trace(operator, DRAWS).item()
  assert abs(estimate - exact) <= 4 * ours[2]
