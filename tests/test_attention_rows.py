"""Do the numbers of a row of weights keep to what is proved about them?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import probes
from implicit_attr.errors import InputError
from implicit_attr.models import attention
from implicit_attr.probes import attention_rows as rows


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def logits(size, count=500, seed=0):
  """Rows of logits of all scales from flat to saturated."""
  rng = np.random.default_rng(seed)
  scale = 10 ** rng.uniform(-3, 1.5, (count, 1))
  return scale * rng.normal(size=(count, size))


def exact_norm(p):
  """The largest eigenvalue of diag p - p p', densely."""
  j = p[..., :, None] * np.eye(p.shape[-1]) - p[..., :, None] * p[..., None, :]
  np.testing.assert_allclose(j.sum(-1), 0, atol=1e-14)  # J 1 = 0
  return np.linalg.eigvalsh(j)[..., -1]


@pytest.mark.parametrize('size', [3, 7, 17, 50])
def test_every_inequality_about_a_row_of_softmax_holds(size, x64):
  """Propositions 1 to 3: norm, trace, entropy and gap, 500 rows of a size."""
  z = logits(size, seed=size)
  p = softmax(z)
  row = jnp.asarray(p)
  h, delta = rows.entropy(row), rows.spread(row)
  norm, trace = rows.jacobian_norm(row), rows.jacobian_trace(row)
  np.testing.assert_allclose(norm, exact_norm(p), rtol=1e-9, atol=1e-14)
  np.testing.assert_allclose(delta, np.ptp(z, -1), rtol=1e-8, atol=1e-11)
  top = -np.sort(-p, -1)
  first, second = top[:, 0], top[:, 1]
  kl = np.maximum(np.log(size) - h, 0)
  own = (p * (1 - p)).max(-1)
  pair = 0.5 * (first + second - (first - second) ** 2)
  low = [second, own, pair]
  high = [
    np.full_like(own, 0.5), first, first * (1 - first + second), 2 * own,
    trace, 1 / size + np.sqrt(kl / 2),
  ]  # fmt: skip
  slack = 1e-12
  assert all((bound <= norm + slack).all() for bound in low)
  assert all((norm <= bound + slack).all() for bound in high)
  assert (trace <= h + slack).all()
  assert (rows.trace_floor(row) <= trace + slack).all()
  assert (kl <= delta**2 / 8 + slack).all()
  assert (rows.spread_floor(delta, size) <= h + 1e-9).all()
  zhai = rows.entropy_floor(rows.radius(row), size)
  assert (zhai <= h + 1e-9).all()
  for k in {1, size // 4 or 1, size // 2, size - 1}:
    gap = rows.top_gap(row, k)
    np.testing.assert_allclose(gap, top[:, k - 1] - top[:, k], rtol=1e-12)
    assert (gap <= rows.gap_cap(row, k) + slack).all()


@pytest.mark.parametrize('size', [3, 17])
def test_the_floors_of_entropy_are_attained_by_two_levels(size, x64):
  """One logit above: Zhai's; the best number above: that of the spread."""
  for d in (0.01, 0.5, 3.0, 12.0):
    entropies = []
    for m in range(1, size):
      p = softmax(np.where(np.arange(size) < m, d, 0.0))
      entropies.append(float(rows.entropy(jnp.asarray(p))))
      if m == 1:
        sigma = rows.radius(jnp.asarray(p))
        np.testing.assert_allclose(
          rows.entropy_floor(sigma, size), entropies[0], rtol=1e-9
        )
    floor = rows.spread_floor(jnp.asarray(d), size)
    np.testing.assert_allclose(floor, min(entropies), rtol=1e-9)


def test_saturation_and_flatness_both_make_the_jacobian_small(x64):
  """Its norm is 1/L, up, then nothing; its trace falls all the way."""
  z = logits(17, 1, seed=3)[0] * 10
  z = z / np.ptp(z)
  p = jnp.asarray(softmax(np.array([0, 1, 8, 100, 3000])[:, None] * z))
  norm, trace = rows.jacobian_norm(p), rows.jacobian_trace(p)
  np.testing.assert_allclose(norm[0], 1 / 17, rtol=1e-12)
  assert norm[1] > norm[0] and norm[2] > norm[1] and norm[-1] < 1e-9
  assert (np.diff(trace[:4]) < 0).all() and trace[4] <= trace[3] < 1e-9
  assert trace[0] == pytest.approx(16 / 17)


def test_rows_without_a_normaliser_are_read_normalised(x64):
  p = np.abs(logits(7, 20, seed=4))
  scale = 10.0 ** np.arange(20)[:, None]
  for name in ('entropy', 'spread', 'jacobian_norm', 'jacobian_trace'):
    fun = getattr(rows, name)
    np.testing.assert_allclose(
      fun(jnp.asarray(p)), fun(jnp.asarray(scale * p)), rtol=1e-8
    )
  found = rows.sum_variation(jnp.asarray(p))
  np.testing.assert_allclose(found, p.sum(-1).std() / p.sum(-1).mean())
  nothing = jnp.zeros((1, 7))
  assert rows.entropy(nothing)[0] == pytest.approx(np.log(7))


def test_raw_cosine_of_near_uniform_rows_is_one_for_any_pair(x64):
  """cos(p, p') >= 1 / cosh(osc(z' - z) / 2); the centred one tends to corr z.

  So a raw cosine near 1 says nothing, and ranks do not see the scale at all.
  """
  rng = np.random.default_rng(5)
  z, move = rng.normal(size=(2, 300, 17))
  other = z + 0.7 * move
  cosine = lambda a, b: (
    (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
  )
  centre = lambda a: a - a.mean(-1, keepdims=True)
  tops = []
  for tau in (1e-3, 0.1, 1.0, 10.0):
    p, q = softmax(tau * z), softmax(tau * other)
    oscillation = tau * np.ptp(other - z, -1)
    assert (cosine(p, q) >= 1 / np.cosh(oscillation / 2) - 1e-12).all()
    tops.append(np.sort(np.argsort(q, -1)[:, -5:], -1))
    assert (tops[0] == tops[-1]).all()
  p, q = softmax(1e-3 * z), softmax(1e-3 * other)
  assert cosine(p, q).min() > 1 - 1e-5
  np.testing.assert_allclose(
    cosine(centre(p), centre(q)), cosine(centre(z), centre(other)), atol=5e-3
  )


def test_bfloat16_destroys_the_ranks_of_near_uniform_rows_float32_does_not():
  z = 0.01 * np.random.default_rng(6).normal(size=(200, 17))
  p = softmax(z)
  tops = lambda a: np.sort(np.argsort(np.asarray(a, float), -1)[:, -5:], -1)
  lost = lambda dtype: (tops(jnp.asarray(p, dtype)) != tops(p)).any(-1).mean()
  assert lost(jnp.float32) < 0.01 < 0.3 < lost(jnp.bfloat16)


def draw(seed, tokens=6):
  q, k, v = np.random.default_rng(seed).normal(size=(3, 1, tokens, 2, 4))
  return tuple(map(jnp.asarray, (q, k, v)))


def test_softmax_couples_all_scores_and_an_unnormalised_kernel_only_its_two(
  x64,
):
  """∂A_ij/∂k_l for l other than j; -p_l p_j against exactly 0."""
  q, k, v = draw(7)

  def weights(name):
    return lambda k: attention.attend(name, q, k, v, return_weights=True)[1]

  for name in ('softmax', 'elu1_sum', 'elu1_none', 'relu_n', 'taylor2_nm'):
    jacobian = jax.jit(jax.jacobian(weights(name)))(k)[0, :, :, :, 0]
    cross = jnp.abs(jacobian).sum((0, -1, -2))  # [i, j, l]
    others = np.asarray(cross)[:, ~np.eye(6, dtype=bool)]
    own = np.asarray(cross)[:, np.eye(6, dtype=bool)]
    assert own.max() > 0
    if name in ('softmax', 'elu1_sum'):
      assert others.max() > 1e-3, name
    else:
      assert others.max() == 0, name


def test_saturation_flattens_the_loss_in_the_weights_not_the_scores(x64):
  """‖∂y/∂W_Q‖ falls below any number while ‖∂z/∂x‖ grows with the scale."""
  rng = np.random.default_rng(8)
  x, w_q, w_k, v = (jnp.asarray(rng.normal(size=s)) for s in (
    (6, 4), (4, 4), (4, 4), (6,),
  ))  # fmt: skip

  def score(w_q, x, tau):
    return tau * (x[0] @ w_q) @ (x @ w_k).T / 2

  def read(w_q, tau):
    return jax.nn.softmax(score(w_q, x, tau)) @ v

  @jax.jit
  def measure(tau):
    rough = jnp.linalg.norm(jax.jacobian(score, 1)(w_q, x, tau))
    p = jax.nn.softmax(score(w_q, x, tau))
    return jnp.linalg.norm(jax.grad(read)(w_q, tau)), rough, rows.entropy(p)

  found = [measure(tau) for tau in (1.0, 10.0, 100.0)]
  flat, rough, entropy = np.array(found).T
  assert flat[2] < 1e-8 * flat[0] and entropy[2] < 1e-8
  np.testing.assert_allclose(rough, rough[0] * np.array([1, 10, 100]))


def toy(params, x):
  """One head-split block whose scores are a known function of x."""
  q = x.reshape(len(x), 4, 2, 2) * params
  scores = jnp.einsum('bihd,bjhd->bhij', q, q)
  a = jax.nn.softmax(scores, -1)
  return x.reshape(len(x), -1)[:, :2], {'attention': (a,), 'scores': (scores,)}


def test_diagnostics_are_the_means_of_their_rows(x64):
  x = jnp.asarray(np.random.default_rng(9).random((3, 4, 4, 1)))
  one = jnp.ones(())
  measure = jax.jit(
    lambda t: probes.attention_diagnostics(toy, t, x, k=2, readout='mean')
  )
  found = measure(one)
  a = toy(one, x)[1]['attention'][0]
  assert all(value.shape == (1, 2) for value in found.values())
  h = -(a * jnp.log(a)).sum(-1).mean((0, 2))
  np.testing.assert_allclose(found['attention/entropy'][0], h, rtol=1e-12)
  np.testing.assert_allclose(
    found['attention/entropy_ratio'][0], h / np.log(4), rtol=1e-12
  )
  np.testing.assert_allclose(
    found['attention/row_sum_variation'], 0, atol=1e-12
  )
  for low, high in (
    ('entropy_floor', 'entropy'), ('spread_floor', 'entropy'),
    ('trace_floor', 'jacobian_trace'), ('gap', 'gap_cap'),
    ('jacobian_norm', 'jacobian_trace'),
  ):  # fmt: skip
    assert (found[f'attention/{low}'] <= found[f'attention/{high}']).all(), low
  # Scores times a number: entropies change, the radius does not.
  scaled = measure(3 * one)
  name = 'attention/rank_radius'
  np.testing.assert_allclose(scaled[name], found[name], rtol=1e-9)
  assert (scaled['attention/entropy'] < found['attention/entropy']).all()


def test_the_rank_radius_is_gap_over_gradient_norm(x64):
  x = jnp.asarray(np.random.default_rng(10).random((2, 4, 4, 1)))
  one = jnp.ones(())
  found = jax.jit(
    lambda x: probes.rank_radius(toy, one, x, k=1, readout='cls')
  )(x)
  for b in range(2):
    for h in range(2):
      z = lambda x: toy(one, x)[1]['scores'][0][b, h, 0]
      i, j = np.argsort(-np.asarray(z(x)))[:2]
      gap = lambda x: z(x)[i] - z(x)[j]
      radius = gap(x) / jnp.linalg.norm(jax.grad(gap)(x))
      np.testing.assert_allclose(found[0, h, b], radius, rtol=1e-10)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'k': 4}, 'k=4 must be an integer >= 1 and <= 3'),
    ({'readout': 'gap'}, "readout='gap' is not known"),
  ],
)
def test_bad_options_of_the_probe_are_said_in_one_line(options, words):
  with pytest.raises(InputError) as error:
    probes.attention_diagnostics(
      toy, jnp.ones(()), jnp.zeros((1, 4, 4, 1)), **options
    )
  assert words in str(error.value) and '\n' not in str(error.value)


def test_a_network_without_attention_has_no_diagnostics():
  plain = lambda params, x: (x, {'features': x})
  with pytest.raises(InputError, match="whose out has 'attention'"):
    probes.attention_diagnostics(plain, {}, jnp.zeros((1, 4, 4, 1)))
