"""Is every penalty the formula it cites, and does its walk climb?"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_objectives import CE, KEY, draw, network, quick

from implicit_attr import attacks, curvature, losses, models, train
from implicit_attr.attacks import balls
from implicit_attr.objectives import (
  OBJECTIVES,
  path,
)
from implicit_attr.objectives import inner_maximization as inner
from implicit_attr.objectives import (
  input_derivatives as derivatives,
)
from implicit_attr.objectives.ig_norm import size as ig_size
from implicit_attr.objectives.scorpio import worst
from implicit_attr.objectives.ssr import top_direction

_ = quick  # used by name


@pytest.fixture
def net(x64):
  """(params, batch, single-example loss, single-example logits)."""
  params, batch = draw()
  apply_fn, _ = network()
  logits = lambda x: apply_fn(params, x[None])[0][0]
  value = lambda x, y: CE(logits(x)[None], y[None])[0]
  return params, batch, value, logits


def term(name, params, batch, loss=CE, apply_fn=None, **options):
  """What an objective adds to the clean loss, at weight 1; [B]."""
  apply_fn = apply_fn or network()[0]

  @jax.jit
  def run(params, batch):
    loss_fn = OBJECTIVES[name](apply_fn, loss, weight=1.0, **options)
    clean = loss(apply_fn(params, batch['image'])[0], batch['label'])
    return loss_fn(params, batch, KEY)[0] - clean

  return run(params, batch)


def each(fun, batch, *more):
  """`fun` of one example, for all."""
  return jax.jit(jax.vmap(fun))(batch['image'], batch['label'], *more)


def cos(a, b):
  a, b = a.ravel(), b.ravel()
  return a @ b / jnp.sqrt((a @ a) * (b @ b))


def close(found, wanted):
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-8)


def nearby(batch, size=0.1):
  """Other images in the box, one for each of the batch."""
  noise = jax.random.uniform(jax.random.key(9), batch['image'].shape, float)
  return jnp.clip(batch['image'] + size * (2 * noise - 1), 0, 1)


def walked(monkeypatch, name, params, batch, x_adv, **options):
  """(loss [B], what the walk raised at x_adv) where the walk ends at x_adv."""
  gains = []

  def ascend(key, gain, x, **walk):
    gains.append(gain(x_adv))
    return x_adv

  monkeypatch.setattr(inner, 'ascend', ascend)
  loss_fn = OBJECTIVES[name](network()[0], CE, **options)

  @jax.jit
  def run(params, batch):
    return loss_fn(params, batch, KEY)[0], gains

  value, (gain,) = run(params, batch)
  return value, gain


@pytest.mark.parametrize(
  'norm, power', [('l1', 1), ('l2', 2), ('linf', np.inf)]
)
@pytest.mark.parametrize('target', ['loss', 'logit'])
def test_gradient_penalty_is_the_norm_of_each_gradient(
  net, norm, power, target
):
  params, batch, value, logits = net
  fun = value if target == 'loss' else lambda x, y: logits(x)[y]
  grads = np.asarray(each(jax.grad(fun), batch)).reshape(3, -1)
  wanted = np.linalg.norm(grads, power, axis=1)
  found = term('gradient_penalty', params, batch, norm=norm, target=target)
  np.testing.assert_allclose(found, wanted, rtol=1e-9)


def hessians(fun, batch):
  """[B, n, n]."""
  n = batch['image'][0].size
  return np.asarray(each(jax.hessian(fun), batch)).reshape(-1, n, n)


def test_hessian_penalty_is_a_dense_product_with_its_draw(net):
  params, batch, value, logits = net
  v = jax.random.normal(KEY, (1, *batch['image'].shape), float)
  for target, hvp, rtol in (('logit', 'exact', 1e-9), ('loss', 'fd', 1e-3)):
    fun = value if target == 'loss' else lambda x, y: logits(x)[y]
    image = np.einsum('bij,bj->bi', hessians(fun, batch), v.reshape(3, -1))
    found = term(
      'hessian_penalty', params, batch, target=target, hvp=hvp, h=1e-4
    )
    np.testing.assert_allclose(found, (image**2).sum(1), rtol=rtol)


def test_hessian_penalty_estimates_the_squared_frobenius_norm(net):
  params, batch, _, logits = net
  dense = hessians(lambda x, y: logits(x)[y], batch)
  found = term('hessian_penalty', params, batch, draws=4000)
  np.testing.assert_allclose(found, (dense**2).sum((1, 2)), rtol=0.1)


def test_cure_is_the_change_of_the_gradient_along_its_sign(net):
  params, batch, value, _ = net
  h = 0.3

  def change(x, y):
    sign = jnp.sign(jax.grad(value)(x, y))
    z = sign / jnp.linalg.norm(sign.ravel())
    exact = h * jnp.tensordot(jax.hessian(value)(x, y), z, 3)
    return jax.grad(value)(x + h * z, y) - jax.grad(value)(x, y), exact

  fd, exact = (
    np.linalg.norm(np.asarray(c).reshape(3, -1), axis=1)
    for c in each(change, batch)
  )
  for hvp, squared, wanted in (('fd', True, fd**2), ('exact', False, exact)):
    found = term('cure', params, batch, h=h, hvp=hvp, squared=squared)
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_exact_and_fd_agree_on_softplus_and_differ_on_relu(x64):
  params, batch = draw(n=64)
  apart = {}
  for activation in ('softplus', 'relu'):
    apply_fn, _ = network(activation)

    @jax.jit
    def terms(params, apply_fn=apply_fn):
      found = []
      for name, options in (
        ('cure', {'h': 0.05}),
        ('hessian_penalty', {'target': 'loss', 'h': 0.03}),
      ):
        exact, fd = (
          OBJECTIVES[name](apply_fn, CE, weight=1.0, hvp=hvp, **options)(
            params, batch, KEY
          )[0]
          for hvp in ('exact', 'fd')
        )
        less = CE(apply_fn(params, batch['image'])[0], batch['label'])
        gap, size = jnp.abs(fd - exact), jnp.abs(exact - less)
        found.append(jnp.sum(gap) / jnp.sum(size))
      return jnp.stack(found)

    apart[activation] = np.asarray(terms(params))
  assert (apart['softplus'] < 0.2).all(), apart
  assert (apart['relu'] > 5 * apart['softplus']).all(), apart


def gauss_newton(apply_fn, loss, params, batch):
  """[B, n, n], dense."""

  def one(x, y):
    f = lambda x: apply_fn(params, x.reshape(batch['image'][:1].shape))[0][0]
    jacobian = jax.jacobian(f)(x.ravel())
    middle = jax.hessian(lambda z: loss(z[None], y[None])[0])(f(x.ravel()))
    return jacobian.T @ middle @ jacobian

  return jax.vmap(one)(batch['image'], batch['label'])


def test_ssr_is_the_dense_eigenvalue_and_has_its_gradient(x64):
  params, batch = draw()
  apply_fn, _ = network()

  def dense(params, loss):
    matrices = gauss_newton(apply_fn, loss, params, batch)
    return jnp.linalg.eigvalsh(matrices)[:, -1]

  def found(params, loss):
    loss_fn = OBJECTIVES['ssr'](apply_fn, loss, weight=1.0)
    clean = loss(apply_fn(params, batch['image'])[0], batch['label'])
    return loss_fn(params, batch, KEY)[0] - clean

  @jax.jit
  def pairs(params):
    slopes = (
      jax.grad(lambda p: jnp.sum(fun(p, CE)))(params) for fun in (dense, found)
    )
    square = losses.make('squared_error')
    logits = lambda x: apply_fn(params, x)[0]
    gram = curvature.jacobian_gram(logits, batch['image'])
    both = curvature.gauss_newton_eigenvalues(gram, logits(batch['image']))
    return (
      tuple(slopes),
      (dense(params, CE), found(params, CE)),
      (dense(params, square), found(params, square)),
      (both[:, 0], found(params, CE)),
    )

  for a, b in pairs(params):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), a, b
    )


def test_ssr_direction_is_where_power_iteration_ends(x64):
  params, batch = draw()
  apply_fn, _ = network()
  d = jax.jit(
    lambda: top_direction(apply_fn, CE, params, batch['image'], batch['label'])
  )()
  dense = jax.jit(lambda p: gauss_newton(apply_fn, CE, p, batch))
  matrices = np.asarray(dense(params))
  v = np.random.default_rng(0).normal(size=(3, matrices.shape[1]))
  for _ in range(2000):
    v = np.einsum('bij,bj->bi', matrices, v)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
  np.testing.assert_allclose(abs((v * d.reshape(3, -1)).sum(1)), 1, rtol=1e-6)


# A quadratic instead of a network: its 'logit' is the loss.


def quadratic(params, x):
  flat = x.reshape(x.shape[0], -1)
  value = flat @ params['g'] + 0.5 * jnp.einsum(
    'bi,ij,bj->b', flat, params['Q'], flat
  )
  return value[:, None], {}


def identity(logits, labels):
  return logits[:, 0]


def bowl(seed=0, n=6, matrix=None):
  rng = np.random.default_rng(seed)
  q = rng.normal(size=(n, n)) if matrix is None else matrix
  return {'g': jnp.asarray(rng.normal(size=n)), 'Q': jnp.asarray(q + q.T) / 2}


def scorpio(params, batch, **options):
  return term(
    'scorpio', params, batch, loss=identity, apply_fn=quadratic, **options
  )


@pytest.mark.parametrize('hvp', ['exact', 'fd'])
@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_scorpio_of_one_iteration_is_its_closed_form(x64, norm, hvp):
  params, batch = bowl(), draw()[1]
  eps, flat = 0.2, np.asarray(batch['image']).reshape(3, -1)
  grad = params['g'][None] + flat @ params['Q']
  if norm == 'linf':
    d = eps * np.sign(grad)
  else:
    d = eps * grad / np.linalg.norm(grad, axis=1, keepdims=True)
  wanted = (grad * d).sum(1) + 0.5 * np.einsum('bi,ij,bj->b', d, params['Q'], d)
  found = scorpio(params, batch, eps=eps, norm=norm, iterations=1, hvp=hvp)
  np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_scorpio_finds_the_worst_case_of_solvable_quadratics(x64):
  _, batch = draw()
  eps, flat = 0.4, np.asarray(batch['image']).reshape(3, -1)
  # Convex and separable: a corner of the cube.
  params = bowl(matrix=np.diag(np.arange(6.0)))
  grad = params['g'][None] + flat @ params['Q']
  wanted = (eps * abs(grad) + 0.5 * eps**2 * np.arange(6.0)[None]).sum(1)
  for iterations in (1, 3):
    found = scorpio(params, batch, eps=eps, iterations=iterations)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
  # Concave: inside the ball, at g / c, or on its sphere.
  for c in (2.0, 8.0):
    params = bowl(matrix=-c * np.eye(6))
    size = np.linalg.norm(params['g'][None] + flat @ params['Q'], axis=1)
    length = np.minimum(eps, size / c)
    found = scorpio(params, batch, eps=eps, norm='l2', iterations=300)
    np.testing.assert_allclose(
      found, size * length - 0.5 * c * length**2, rtol=2e-2
    )


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_scorpio_rises_with_its_iterations_on_average_within_the_ball(
  x64, norm
):
  params, batch = draw(n=64)
  apply_fn, _ = network()
  wide = 0.5 if norm == 'linf' else 1.0

  def fun(x):
    return CE(apply_fn(params, x)[0], batch['label']), ()

  @jax.jit
  def model(x):
    grad = jax.grad(lambda x: jnp.sum(fun(x)[0]))
    found, reached = [], []
    for n in (1, 2, 4, 8):
      d = worst(fun, x, eps=wide, norm=norm, iterations=n, hvp='exact', h=1.0)
      hd = jax.jvp(grad, (x,), (d,))[1]
      found.append(jnp.mean(jnp.sum(d * (grad(x) + 0.5 * hd), (1, 2, 3))))
      sizes = jnp.abs(d) if norm == 'linf' else jnp.sum(d**2, (1, 2, 3)) ** 0.5
      reached.append(jnp.max(sizes))
    return jnp.stack(found), jnp.stack(reached)

  means, reached = map(np.asarray, model(batch['image']))
  assert (reached <= wide * (1 + 1e-12)).all()
  assert (np.diff(means) > 0).all(), means


def test_walks_in_training_are_those_of_attacks(x64):
  params, batch = draw(n=8)
  apply_fn, _ = network()
  x, y, eps = batch['image'], batch['label'], 0.2
  predict = lambda z: apply_fn(params, z)[0]

  @jax.jit
  def run(key, x, y):
    pairs = []
    for norm, loss in (('linf', 'ce'), ('l2', 'cw')):
      walk = {'norm': norm, 'steps': 3, 'step': 0.5}
      mine = inner.against_label(
        key, apply_fn, params, x, y, attack=loss, eps=eps, start='clean',
        **walk,
      )  # fmt: skip
      theirs = attacks.pgd(
        key, predict, x, y, eps=eps, norm=norm, loss=loss, steps=3,
        step_size=0.5 * eps, random_start=False, keep='last',
      )  # fmt: skip
      pairs.append((mine, theirs.x_adv))
    one = inner.against_label(
      key, apply_fn, params, x, y, attack='ce', eps=eps, norm='linf', steps=1,
      step=1.0, start='clean',
    )  # fmt: skip
    pairs.append((one, attacks.fgsm(predict, x, y, eps=eps).x_adv))
    # The second restart of an attack begins anywhere in the ball.
    options = {'eps': eps, 'norm': 'linf'}
    both, first = (
      attacks.pgd(
        key, predict, x, y, steps=2, step_size=0.25 * eps, restarts=n,
        keep='last', **options,
      )
      for n in (2, 1)
    )  # fmt: skip
    mine = inner.against_label(
      jax.random.fold_in(key, 1), apply_fn, params, x, y, attack='ce', steps=2,
      step=0.25, **options,
    )  # fmt: skip
    margin = attacks.prediction.margins.margin(predict(mine), y)
    better = (margin < first.margin)[:, None, None, None]
    pairs.append((jnp.where(better, mine, first.x_adv), both.x_adv))
    return pairs, better

  pairs, better = run(KEY, x, y)
  for mine, theirs in pairs:
    np.testing.assert_allclose(mine, theirs, rtol=1e-14)
  assert 0 < better.sum() < 8


def test_adversarial_training_is_the_loss_at_the_attacked_image(
  net, monkeypatch
):
  params, batch, value, _ = net
  x_adv = nearby(batch)
  clean, attacked = each(
    lambda x, y, z: (value(x, y), value(z, y)), batch, x_adv
  )
  for name, weight in (('pgd', 1.0), ('fgsm', 0.25), ('pgd', jnp.ones(()))):
    found, gain = walked(monkeypatch, name, params, batch, x_adv, weight=weight)
    wanted = (1 - weight) * clean + weight * attacked
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    # The walk raises the log-odds of an error, log (e^loss - 1).
    np.testing.assert_allclose(gain, np.log(np.expm1(attacked)), rtol=1e-9)


def test_a_walk_ends_in_its_ball_and_box_and_higher_than_it_began(x64):
  params, batch = draw(n=8)
  apply_fn, _ = network()
  x = batch['image'].at[0, 0, 0].set(1.0)
  gain = lambda z: CE(apply_fn(params, z)[0], batch['label'])
  raised = jax.jit(gain)
  pairs = (('linf', 'normal'), ('l2', 'uniform'))
  for norm, start in pairs:
    z = jax.jit(
      lambda x: inner.ascend(
        KEY, gain, x, eps=0.3, norm=norm, steps=3, step=0.5, start=start
      )
    )(x)
    again = balls.project(balls.ball(x, eps=0.3, norm=norm), z)
    np.testing.assert_allclose(z, again, atol=1e-12)
    assert (raised(z) > raised(x)).all()


def test_trades_is_a_divergence_of_predictions(net, monkeypatch):
  params, batch, value, logits = net
  x_adv = nearby(batch)

  def wanted(x, y, z):
    p, q = jax.nn.softmax(logits(x)), jax.nn.softmax(logits(z))
    kl = jnp.sum(p * jnp.log(p / q))
    return value(x, y) + 2 * kl, kl

  found = walked(monkeypatch, 'trades', params, batch, x_adv, weight=2.0)
  close(found, each(wanted, batch, x_adv))


def test_llr_is_the_gap_to_the_tangent_and_the_slope(net, monkeypatch):
  params, batch, value, _ = net
  x_adv = nearby(batch)

  def wanted(x, y, z):
    first = jnp.sum((z - x) * jax.grad(value)(x, y))
    gap = jnp.abs(value(z, y) - value(x, y) - first)
    return value(x, y) + 2 * (gap + 0.75 * jnp.abs(first)), gap

  found = walked(monkeypatch, 'llr', params, batch, x_adv, weight=2.0)
  close(found, each(wanted, batch, x_adv))


def test_gradient_alignment_compares_two_maps_of_the_logit(net):
  params, batch, _, logits = net
  noise = jax.random.uniform(KEY, batch['image'].shape, float, -1, 1)

  def wanted(x, y, z):
    a, b = (jax.grad(lambda x: logits(x)[y])(at) for at in (x, z))
    return (1 - cos(a, b)) / 2 + 0.3 * jnp.sum((a - b) ** 2)

  found = term('gradient_alignment', params, batch, distance=0.3, eps=0.2)
  wanted = each(wanted, batch, batch['image'] + 0.2 * noise)
  np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_gradient_alignment_differentiates_the_noisy_map_alone(x64):
  params, batch = draw()
  apply_fn, _ = network()
  noise = jax.random.uniform(KEY, batch['image'].shape, float, -1, 1)
  options = {'weight': 1.0, 'distance': 0.3, 'eps': 0.2}
  loss_fn = OBJECTIVES['gradient_alignment'](apply_fn, CE, **options)

  def wanted(p):
    def logit(p, x, y):
      return apply_fn(p, x[None])[0][0, y]

    def one(x, y, z):
      a, b = jax.grad(logit, 1)(params, x, y), jax.grad(logit, 1)(p, z, y)
      return (1 - cos(a, b)) / 2 + 0.3 * jnp.sum((a - b) ** 2)

    x, y = batch['image'], batch['label']
    terms = jax.vmap(one)(x, y, x + 0.2 * noise)
    return jnp.sum(terms + CE(apply_fn(p, x)[0], y))

  found = jax.grad(lambda p: jnp.sum(loss_fn(p, batch, KEY)[0]))
  close(
    *(jax.tree.leaves(jax.jit(f)(params)) for f in (found, jax.grad(wanted)))
  )


def test_both_sides_of_a_comparison_with_the_attacked_image_are_trained(
  x64, monkeypatch
):
  params, batch = draw()
  apply_fn, _ = network()
  x_adv = nearby(batch)
  monkeypatch.setattr(inner, 'ascend', lambda key, gain, x, **walk: x_adv)
  loss_fns = [
    OBJECTIVES[name](apply_fn, CE, weight=1.0)
    for name in ('trades', 'aat', 'igr')
  ]
  u = jax.tree.map(lambda p: jnp.cos(3 * jnp.arange(p.size) + 1.0), params)
  u = jax.tree.map(lambda u, p: u.reshape(p.shape), u, params)

  def along(t):
    moved = jax.tree.map(lambda p, u: p + t * u, params, u)
    return jnp.stack([jnp.sum(f(moved, batch, KEY)[0]) for f in loss_fns])

  value, h = jax.jit(along), 1e-5
  slopes = jax.jit(jax.jacrev(along))(0.0)
  quotients = (value(h) - value(-h)) / (2 * h)
  np.testing.assert_allclose(slopes, quotients, rtol=1e-6)


def test_ig_norm_is_at_least_the_change_of_the_loss(x64):
  params, batch = draw(n=32)
  apply_fn, _ = network()
  x, y, x_adv = batch['image'], batch['label'], nearby(batch, 0.3)

  @jax.jit
  def both(z):
    value = lambda x: CE(apply_fn(params, x)[0], y)
    size = ig_size(apply_fn, CE, params, x, z, y, points=1000)
    return size, jnp.abs(value(z) - value(x))

  size, change = both(x_adv)
  assert (size >= change - 1e-3).all()
  assert (size > 1.1 * change).any()
  # One pixel alone moves: nothing can cancel, and the two are equal.
  np.testing.assert_allclose(
    *both(x.at[:, 0, 0].set(x_adv[:, 0, 0])), atol=1e-3
  )


@pytest.mark.parametrize('name', ['ig_norm', 'ig_sum_norm'])
def test_ig_norm_is_its_riemann_sum(net, monkeypatch, name):
  params, batch, value, _ = net

  def norm(x, y, z, points):
    path = [x + k / points * (z - x) for k in range(1, points + 1)]
    mean = sum(jax.grad(value)(at, y) for at in path) / points
    return jnp.sum(jnp.abs((z - x) * mean))

  def wanted(x, y, z):
    if name == 'ig_norm':
      return value(x, y) + 0.3 * norm(x, y, z, 4), norm(x, y, z, 2)
    return tuple(value(z, y) + 0.3 * norm(x, y, z, n) for n in (4, 2))

  x_adv = nearby(batch)
  found = walked(
    monkeypatch, name, params, batch, x_adv,
    weight=0.3, points=4, inner_points=2,
  )  # fmt: skip
  close(found, each(wanted, batch, x_adv))


@pytest.mark.parametrize('chunk', [1, 2, 5, 9])
def test_a_chunked_path_is_the_same_path(x64, chunk):
  x, y = jnp.linspace(0, 1, 6).reshape(2, 3), jnp.arange(2)
  value = lambda x, y: jnp.sin(jnp.sum(x**2, -1) * (y + 1))
  whole, parts = (
    path.mean_gradient(value, 0 * x, x, y, steps=5, chunk=c)
    for c in (None, chunk)
  )
  np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize('robust', ['pgd', 'trades'])
def test_igr_adds_the_angle_between_two_integrated_gradients(
  net, monkeypatch, robust
):
  params, batch, value, logits = net
  x_adv = nearby(batch)

  def explain(x, y):
    rows = [jax.grad(lambda x: logits(x)[y])(k / 3 * x) for k in (1, 2, 3)]
    return x * sum(rows) / 3

  def wanted(x, y, z):
    p, q = jax.nn.softmax(logits(x)), jax.nn.softmax(logits(z))
    kl = jnp.sum(p * jnp.log(p / q))
    base, gain = value(z, y), jnp.log(jnp.expm1(value(z, y)))
    if robust == 'trades':
      base, gain = value(x, y) + 2.0 * kl, kl
    return base + 0.4 * (1 - cos(explain(x, y), explain(z, y))), gain

  found = walked(
    monkeypatch, 'igr', params, batch, x_adv,
    weight=0.4, robust=robust, beta=2.0,
  )  # fmt: skip
  close(found, each(wanted, batch, x_adv))


def test_art_is_a_triplet_of_image_label_and_best_wrong_class(net, monkeypatch):
  params, batch, value, logits = net
  x_adv = nearby(batch)

  def slopes(x, y):
    z = logits(x)
    wrong = jnp.argmax(z - 1e9 * jax.nn.one_hot(y, 3))
    return tuple(jax.grad(lambda x: logits(x)[c])(x) for c in (y, wrong))

  def triplet(x, right, wrong):
    away, near = 1 - cos(wrong, x), 1 - cos(right, x)
    return jnp.log(1 + jnp.exp(-(away - near)))

  def wanted(x, y, z):
    mean = (triplet(x, *slopes(x, y)) + triplet(z, *slopes(z, y))) / 2
    right = jnp.abs(slopes(x, y)[0])
    seen = right >= jnp.sort(right.ravel())[-4]
    parts = [jnp.where(seen, a, 0) for a in (z, *slopes(z, y))]
    return value(z, y) + 0.5 * mean, triplet(*parts)

  found = walked(monkeypatch, 'art', params, batch, x_adv, k=4)
  close(found, each(wanted, batch, x_adv))


@pytest.mark.parametrize('name', ['aat', 'adv_aat'])
def test_aat_lowers_the_correlation_of_two_maps(net, monkeypatch, name):
  params, batch, value, logits = net
  x_adv = nearby(batch)

  def wanted(x, y, z):
    maps = (jax.grad(lambda x: logits(x)[y])(at) for at in (x, z))
    apart = 1 - jnp.corrcoef(*(m.ravel() for m in maps))[0, 1]
    if name == 'aat':
      return value(x, y) + 0.4 * apart, apart
    return (value(z, y) + 0.4 * apart,) * 2

  found = walked(monkeypatch, name, params, batch, x_adv, weight=0.4)
  close(found, each(wanted, batch, x_adv))


def test_sam_has_the_gradient_of_displaced_parameters(x64):
  params, batch = draw()
  apply_fn, _ = network()
  total = lambda p: jnp.sum(CE(apply_fn(p, batch['image'])[0], batch['label']))
  slope = jax.jit(jax.grad(total))
  first = slope(params)
  norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(first)))
  away = jax.tree.map(lambda p, g: p + 0.1 * g / norm, params, first)
  loss_fn = OBJECTIVES['sam'](apply_fn, CE, weight=0.1)
  found = jax.jit(jax.grad(lambda p: jnp.sum(loss_fn(p, batch, KEY)[0])))(
    params
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12),
    found,
    slope(away),
  )


def test_mixup_is_cross_entropy_to_the_mixed_labels_of_mixed_images():
  """Images that say which examples went into them, in which shares."""
  n, classes = 6, 4
  weights = jax.random.normal(jax.random.key(1), (n, classes))
  batch = {'image': jnp.eye(n), 'label': jnp.asarray([0, 1, 2, 3, 0, 1])}
  apply_fn = lambda params, x: (x @ params, {'seen': x})
  loss_fn = OBJECTIVES['mixup'](apply_fn, CE, weight=0.8)
  shares = []
  for i in range(200):
    key = jax.random.key(i)
    found, aux = loss_fn(weights, batch, key)
    again, _ = loss_fn(weights, batch, key)
    np.testing.assert_array_equal(found, again)
    z = np.asarray(aux['seen'])
    np.testing.assert_allclose(z.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(z.sum(0), 1, rtol=1e-6)  # an order of them
    labels = z @ np.eye(classes)[batch['label']]
    wanted = optax.softmax_cross_entropy(z @ weights, labels)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    shares += np.diag(z)[np.diag(z) < 0.9999][:1].tolist()
  # Beta(α, α): mean 1/2, variance 1 / (4 (2 α + 1)).
  assert np.mean(shares) == pytest.approx(0.5, abs=0.07)
  assert np.var(shares) == pytest.approx(1 / (4 * 2.6), rel=0.15)


def test_zero_maps_and_zero_gradients_leave_finite_numbers():
  zero, one = jnp.zeros((2, 3)), jnp.ones((2, 3))
  for fun in (
    derivatives.length, derivatives.unit, lambda v: derivatives.cosine(v, one),
    lambda v: derivatives.cosine(one, v), lambda v: derivatives.cosine(v, v),
  ):  # fmt: skip
    total = lambda v: jnp.sum(fun(v))
    value, grad = jax.jit(jax.value_and_grad(total))(zero)
    assert value == 0
    assert np.isfinite(grad).all()
  tiny = 1e-30 * jnp.asarray([[1.0, 2.0, 2.0]])
  np.testing.assert_allclose(derivatives.unit(tiny), [[1 / 3, 2 / 3, 2 / 3]])
  # A network that does not depend on its image at all.
  params, batch = draw(jnp.float32)
  dead = jax.tree.map(jnp.zeros_like, params)
  loss_fn = OBJECTIVES['cure'](network()[0], CE, weight=1.0, squared=False)
  total = lambda p: jnp.sum(loss_fn(p, batch, KEY)[0])
  for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(dead)):
    assert np.isfinite(leaf).all()


@pytest.mark.parametrize('activation', ['softplus', 'relu'])
def test_products_agree_on_softplus_with_average_pooling_and_not_on_relu(
  x64, activation
):
  module = models.build(
    'cnn', width=4, depth=2, hidden=0, activation=activation, beta=10.0,
    downsample='avg_pool', num_classes=3,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.uniform(size=(16, 6, 6, 1)))
  shapes = jax.eval_shape(module.init, KEY, x[:1])['params']
  params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), shapes)
  y = jnp.asarray(rng.integers(0, 3, 16))
  fun = derivatives.field(train.frozen(module, {}), CE, params, y)

  @jax.jit
  def products(x):
    found = []
    for hvp in ('exact', 'fd'):
      grad, product, _ = derivatives.products(fun, x, hvp=hvp, h=0.02)
      found.append(product(derivatives.unit(jnp.sign(grad))))
    return found

  exact, fd = map(np.asarray, products(x))
  apart = np.linalg.norm(fd - exact) / np.linalg.norm(exact)
  assert apart < 0.05 if activation == 'softplus' else apart > 0.5, apart


def test_lengths_and_directions_do_not_underflow():
  v = jax.random.normal(jax.random.key(0), (2, 3, 4, 1))
  w = v + jax.random.normal(jax.random.key(1), v.shape)
  small = lambda a: 1e-20 * a
  np.testing.assert_allclose(
    derivatives.length(small(v)), small(derivatives.length(v)), rtol=1e-5
  )
  slope = jax.grad(lambda v: jnp.sum(derivatives.length(v)))
  np.testing.assert_allclose(slope(small(v)), derivatives.unit(v), rtol=1e-5)
  np.testing.assert_allclose(
    derivatives.cosine(small(v), small(w)), derivatives.cosine(v, w), rtol=1e-5
  )
  zero = jnp.zeros_like(v)
  assert not np.any(derivatives.length(zero)) and not np.any(slope(zero))
