"""Do maps of a user's own transformer use the derivatives that they say?

The transformer here is plain functions of jax. It takes what is to be added to
its weights and the changed derivatives of relevance as arguments, which is the
independent way to everything that `rewire` does to it from outside.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import attacks, attribution
from implicit_attr.attribution import attention, relevance
from implicit_attr.attribution.attention_outputs import seen
from implicit_attr.attribution.rewire import rewired
from implicit_attr.errors import InputError

B, L, D, H, DH, C = 2, 5, 6, 2, 3, 3
MAPS = attribution.ATTENTION_METHODS
hold = jax.lax.stop_gradient


def weights(seed=0, blocks=2):
  rng = np.random.default_rng(seed)
  mat = lambda *s: rng.normal(size=s) / np.sqrt(s[0])
  vec = lambda n: rng.normal(size=n) * 0.3
  block = lambda: {
    'q': mat(D, D), 'k': mat(D, D), 'v': mat(D, D), 'o': mat(D, D),
    'bo': vec(D), 'in': mat(D, 8), 'bin': vec(8), 'out': mat(8, D),
    'bout': vec(D),
  }  # fmt: skip
  return {
    'first': mat(4, D), 'cls': vec(D), 'positions': 0.5 * mat(L, D),
    'blocks': [block() for _ in range(blocks)], 'logits': mat(D, C),
  }  # fmt: skip


def identity(x):
  return x


def network(kernel='softmax', lrp=False, half=identity, den=identity):
  """(params, x, added weights) -> (logits, out), 2 x 2 patches, 5 tokens.

  With `lrp` the derivative is that of relevance, by stop_gradient inside the
  network, as its authors' efficient code has it.
  """
  still = hold if lrp else identity

  def norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / still(jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-3))

  def act(z):
    f = jax.nn.silu(z)
    return z * hold(f / z) if lrp else f

  def apply(params, x, added=None):
    b = len(x)
    x = x.reshape(b, 2, 2, 2, 2).swapaxes(2, 3).reshape(b, 4, 4)
    x = x @ params['first']
    cls = jnp.broadcast_to(params['cls'][None, None], (b, 1, D))
    x = jnp.concatenate([cls, x], 1) + params['positions'][None]
    out = {'tokens': x}
    per = []
    for i, p in enumerate(params['blocks']):
      y = norm(x)
      q, k, v = ((y @ p[n]).reshape(b, L, H, DH) for n in 'qkv')
      if kernel == 'softmax':
        s = jnp.einsum('bihd,bjhd->bhij', half(q), half(k))
        a = jax.nn.softmax(s, -1)
        factors = None
      else:
        fq, fk = jax.nn.softplus(half(q)), jax.nn.softplus(half(k))
        d = 1 / jnp.einsum('bihd,bhd->bih', fq, fk.sum(1))
        s = jnp.einsum('bihd,bjhd->bhij', fq, fk)
        a = s * den(d).swapaxes(1, 2)[..., None]
        factors = (fq, fk, d)
      if added is not None:
        a = a + added[i]
      o = jnp.einsum('bhij,bjhd->bihd', half(a), half(v))
      x = x + (o.reshape(b, L, D) @ p['o'] + p['bo'][None, None])
      z = norm(x) @ p['in'] + p['bin'][None, None]
      f = act(z)
      x = x + (f @ p['out'] + p['bout'][None, None])
      seen = {
        'queries': q, 'keys': k, 'values': v, 'mixed': o, 'attention': a,
        'scores': s, 'projections': p['o'].reshape(H, DH, D), 'layers': x,
        'preactivations': z, 'activations': f,
      }  # fmt: skip
      per.append(seen | ({'factors': factors} if factors else {}))
    logits = norm(x)[:, 0] @ params['logits']
    return logits, out | {n: tuple(p[n] for p in per) for n in per[0]}

  return apply


def problem(seed=0, blocks=2):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.random((B, 4, 4, 1)))
  params = jax.tree.map(jnp.asarray, weights(seed, blocks))
  return params, x, jnp.array([0, 2])


def zeros():
  return [jnp.zeros((B, H, L, L))] * 2


@pytest.mark.parametrize('kernel', ['softmax', 'softplus'])
def test_gradients_by_weights_are_outputs_gradients_times_values(kernel, x64):
  """dy/dA = (dy/do) v: through an array that the network adds to A."""
  params, x, y = problem()
  apply = network(kernel)

  @jax.jit
  def both():
    found, _ = seen(
      apply, params, x, y, readout='cls', names=['attention'], target='margin'
    )
    total = lambda e: attribution.target(
      'margin', apply(params, x, e)[0], y
    ).sum()
    ours = [
      attribution.attention.weight_gradient(v, g)
      for v, g in zip(found['values'], found['gradient'], strict=True)
    ]
    return ours, jax.grad(total)(zeros())

  for ours, theirs in zip(*both(), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('kernel', ['softmax', 'softplus'])
def test_relevance_is_that_of_the_rules_written_into_the_network(kernel, x64):
  """AttnLRP and CP-LRP; q, k, v get 1/4, 1/4, 1/2 for every kernel."""
  params, x, y = problem(1)
  half = lambda x: x / 2 + hold(x / 2)
  plain = network(kernel)

  def by_hand(apply, held_weights):
    tokens = plain(params, x)[1]['tokens']

    def total(move):
      # The positions are what is left to move the tokens by.
      own = {**params, 'positions': params['positions'] + move[0]}
      logits = apply(own, x[:1], held_weights)[0]
      return logits[0, y[0]]

    move = jax.grad(total)(jnp.zeros((1, L, D)))
    return (tokens[0] * move[0]).sum(-1)[1:]

  @jax.jit
  def all_maps():
    ruled = network(kernel, lrp=True, half=half, den=hold)
    ours = [MAPS[n](plain, params, x, y)[0] for n in ('attn_lrp', 'cp_lrp')]

    # The weights of the upper block move with the lower one's correction, so
    # one pass holds the lower block's and a second one the upper block's too.
    def twice(params, x, _):
      free = network(kernel, lrp=True)
      low = free(params, x)[1]['attention'][0]
      first = [hold(low) - low, jnp.zeros((1, H, L, L))]
      high = free(params, x, first)[1]['attention'][1]
      return free(params, x, [first[0], hold(high) - high])

    return ours, [by_hand(ruled, None), by_hand(twice, None)]

  for ours, theirs in zip(*all_maps(), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)


def test_relevance_of_weights_is_propagated_by_hand(x64):
  """The last block of one example, in numpy, α = 1 in linear layers."""
  params, x, y = problem(2)
  apply = network()

  @jax.jit
  def run():
    given = relevance.weight_relevance(apply, params, x, y, target='logit')
    return given, apply(params, x)[1]

  found, out = jax.device_get(run())
  p = jax.device_get(params['blocks'][-1])
  last = lambda name: out[name][-1][0]

  def linear(r, x, w, b=0.0):
    """Relevance of x from that of x w + b: positive contributions only."""
    parts = np.maximum(x[..., :, None] * w, 0)
    total = parts.sum(-2) + np.maximum(b, 0)
    return (parts * (r / total)[..., None, :]).sum(-1)

  def norm(r, x):
    """Relevance of x from that of its layer norm, the divisor a constant."""
    centred = x - x.mean(-1, keepdims=True)
    s = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
    signal = r / (centred / s) / s
    return x * (signal - signal.mean(-1, keepdims=True))

  end = last('layers')
  top = np.zeros((L, C))
  top[0, int(y[0])] = apply(params, x)[0][0, int(y[0])]
  centred = end - end.mean(-1, keepdims=True)
  y_end = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
  r = np.zeros((L, D))
  r[0] = linear(top[0], y_end[0], np.asarray(params['logits']))
  with np.errstate(invalid='ignore'):
    r = norm(r, end)
  branch = last('activations') @ p['out'] + p['bout']
  middle = end - branch  # the tokens after attention
  r_branch = r * branch / end
  r_hidden = linear(r_branch, last('activations'), p['out'], p['bout'])
  c = middle - middle.mean(-1, keepdims=True)
  y_mid = c / np.sqrt((c**2).mean(-1, keepdims=True) + 1e-3)
  r_mid = norm(linear(r_hidden, y_mid, p['in'], p['bin']), middle)
  r_mid = r_mid + r * middle / end
  o = last('mixed').reshape(L, D)
  attended = o @ p['o'] + p['bo']
  r_attended = r_mid * attended / middle
  r_o = linear(r_attended, o, p['o'], p['bo']).reshape(L, H, DH)
  a, v = last('attention'), last('values')
  parts = a[..., None] * v.swapaxes(0, 1)[:, None]  # [H, i, j, Dh]
  share = (r_o / last('mixed')).swapaxes(0, 1)[:, :, None]
  by_hand = 0.5 * (parts * share).sum(-1)
  np.testing.assert_allclose(found[-1][0], by_hand, rtol=1e-7, atol=1e-12)


def test_chefer_lrp_starts_at_one_whatever_the_logit(x64):
  """A map of a negative logit keeps what theirs keeps."""
  params, x, y = problem(2)
  apply = network()
  logit = apply(params, x)[0][0, y[0]]
  params = {**params, 'logits': -jnp.sign(logit) * params['logits']}

  @jax.jit
  def run():
    given = relevance.weight_relevance(apply, params, x, y, target='logit')
    found, _ = seen(
      apply, params, x, y, readout='cls', names=['attention'], target='logit'
    )
    pairs = zip(found['values'], found['gradient'], strict=True)
    slopes = [attention.weight_gradient(v, g) for v, g in pairs]
    return given, slopes, apply(params, x)[0], MAPS['chefer_lrp'](
      apply, params, x, y
    )  # fmt: skip

  given, slopes, logits, ours = jax.device_get(run())
  assert logits[0, y[0]] < 0
  chain = np.eye(L)
  for r, slope in zip(given, slopes, strict=True):
    kept = np.maximum(r[0] / logits[0, y[0]] * slope[0], 0).mean(0)
    chain = (np.eye(L) + kept) @ chain
  np.testing.assert_allclose(ours[0], chain[0, 1:], rtol=1e-9)


def test_relevance_is_conserved_on_the_explicit_association(x64):
  """Σ R_A = Σ R_v = half of Σ R_o, and the q and k of features a quarter."""
  rng = np.random.default_rng(3)
  q, k, v, r = rng.normal(size=(4, B, L, H, DH))
  a = rng.random((B, H, L, L))
  o, back = jax.vjp(relevance.associated, jnp.asarray(a), jnp.asarray(v))
  g_a, g_v = back(jnp.asarray(r) / o)
  for part in (a * g_a, v * g_v):
    np.testing.assert_allclose(part.sum(), r.sum() / 2, rtol=1e-10)

  def weights(q, k):  # of a homogeneous map: nothing is lost in it
    fq, fk = jax.nn.relu(relevance.halved(q)), jax.nn.relu(relevance.halved(k))
    read = lambda _: (fq, fk, 1 / (fq * fk).sum(-1))
    return relevance.weights_rule(0, read, None)

  a, back = jax.vjp(weights, jnp.abs(q), jnp.abs(k))
  g_q, g_k = back(jnp.ones_like(a))
  for part in (np.abs(q) * g_q, np.abs(k) * g_k):
    np.testing.assert_allclose(part.sum(), a.sum() / 2, rtol=1e-10)


OPTIONS = {name: (name, {}) for name in MAPS} | {
  'scores': ('raw', {'scores': True}),
  'lower block': ('gradient_x_attention', {'layer': 0, 'rectify': False}),
  'raw rollout': ('rollout', {'residual': 'raw'}),
}


@functools.cache
def derivatives():
  """x, u -> every map and its derivative along u, forward over reverse."""
  params, _, y = problem(4, 1)
  apply = network('softplus')

  def maps(x):
    return {
      label: MAPS[name](apply, params, x, y, **options)
      for label, (name, options) in OPTIONS.items()
    }

  # A large program that runs three times: optimising it costs more.
  fast = {'xla_backend_optimization_level': 0}
  return jax.jit(lambda x, u: jax.jvp(maps, (x,), (u,)), compiler_options=fast)


@pytest.fixture(scope='module')
def differences():
  with jax.enable_x64(True):
    _, x, _ = problem(4, 1)
    u = jnp.asarray(np.random.default_rng(5).normal(size=x.shape))
    run, step = derivatives(), 1e-6
    found, slopes = run(x, u)
    up, down = (run(x + s * step * u, u)[0] for s in (1, -1))
    near = jax.tree.map(lambda a, b: (a - b) / (2 * step), up, down)
    return jax.device_get((found, slopes, near))


@pytest.mark.parametrize('label', OPTIONS)
def test_derivatives_of_maps_are_those_of_differences(label, differences):
  """Of the maps as they are, changed derivatives of relevance included."""
  found, slopes, near = (tree[label] for tree in differences)
  assert found.shape == (B, L - 1) and found.dtype == np.float64
  scale = np.abs(near).max()
  assert scale > 0
  np.testing.assert_allclose(slopes / scale, near / scale, atol=1e-6)


@pytest.fixture(scope='module')
def attacked():
  """label, eps -> result of an attack on it, on 8 steps."""
  params, x, y = problem(6)
  params, x = jax.tree.map(lambda p: p.astype(jnp.float32), (params, x))
  apply = network()
  predict = lambda z: apply(params, z)[0]

  @functools.cache
  def compiled(label):
    name, options = OPTIONS[label]
    explain = lambda z, y: MAPS[name](apply, params, z, y, **options)

    def attack(eps):
      return attacks.attack_attribution(
        jax.random.key(0), explain, predict, x, y, eps=eps, k=2, steps=8,
        restarts=2, label_rule='reject',
      )  # fmt: skip

    return jax.jit(attack)

  run = lambda label, eps: jax.device_get(compiled(label)(eps))
  return run, x, lambda z: predict(z).argmax(-1)


@pytest.mark.parametrize('label', ['rollout', 'scores'])
def test_an_attack_on_a_map_keeps_what_attacks_promise(label, attacked):
  """ε = 0 is the identity, steps never hurt, label, ball and box are kept."""
  run, x, label_of = attacked
  still = run(label, np.float32(0))
  np.testing.assert_array_equal(still.x_adv, x)
  found = run(label, np.float32(0.2))
  assert (np.diff(found.curve, axis=0) <= 0).all()
  np.testing.assert_array_equal(found.curve[-1], found.score)
  assert (found.score <= found.clean_score).all()
  assert (found.score < found.clean_score).any() and not found.stalled.any()
  assert np.abs(found.x_adv - x).max() <= 0.2 + 1e-6
  assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
  np.testing.assert_array_equal(label_of(found.x_adv), label_of(x))


def test_implicit_maps_are_the_dense_ones(x64):
  params, x, y = problem(7)
  apply = network('softplus')
  names = ['raw', 'rollout', 'gradient_x_attention', 'attention_grad_cam']

  @jax.jit
  def maps():
    return [
      [MAPS[n](apply, params, x, y, implicit=i) for n in names]
      for i in (True, False)
    ]

  for ours, dense in zip(*maps(), strict=True):
    np.testing.assert_allclose(ours, dense, rtol=1e-9, atol=1e-13)


def test_an_array_that_the_network_goes_on_without_is_refused(x64):
  params, x, _ = problem()

  def copied(params, x):
    logits, out = network()(params, x)
    return logits, {**out, 'mixed': tuple(2 * o for o in out['mixed'])}

  rule = lambda block, read, old: old()
  with pytest.raises(InputError, match="out\\['mixed'\\].*as it is returned"):
    jax.eval_shape(rewired(copied, {'mixed': rule}), params, x)


@pytest.mark.parametrize('name', MAPS)
def test_a_network_without_attention_is_refused_in_one_line(name):
  plain = lambda params, x: (x.reshape(len(x), -1)[:, :C], {'features': x})
  x = jnp.zeros((1, 4, 4, 1))
  with pytest.raises(InputError) as error:
    MAPS[name](plain, {}, x, jnp.zeros(1, int))
  assert 'one with attention, whose out has' in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'readout': 'mean'}, "readout='mean' must be the one of the network"),
    ({'readout': 'gap'}, "readout='gap' is not known"),
    ({'layer': 2}, 'layer=2 must be an integer >= -2 and <= 1'),
    ({'heads': 'sum'}, "heads='sum' is not known"),
    ({'implicit': True}, "whose out has 'factors'"),
  ],
)
def test_bad_options_of_a_map_are_said_in_one_line(options, words):
  params, x, y = problem()
  with pytest.raises(InputError) as error:
    MAPS['raw'](network(), params, x, y, **options)
  assert words in str(error.value) and '\n' not in str(error.value)
