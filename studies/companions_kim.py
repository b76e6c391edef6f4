"""Does adversarial training put gradients on the manifold? Kim, Seo & Jeon.

arXiv 1903.11626: distances to the data, ROAR and KAR, their trade-off with
accuracy, and the two-dimensional toy.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from companions_nets import (
  BATCH,
  MLP,
  SEEDS,
  apply_of,
  correlation,
  digits,
  fit,
  interval,
  objective,
  say,
)
from matplotlib import pyplot as plt

from implicit_attr import (
  attacks,
  attribution,
  diagnostics,
  losses,
  models,
  objectives,
  similarity,
  train,
)
from implicit_attr.evaluation import retraining
from implicit_attr.models.vae import VAE, negative_elbo

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

STRENGTHS = {
  'linf': (0.02, 0.05, 0.1, 0.15, 0.2),
  'l2': (0.16, 0.4, 0.8, 1.2, 1.6),
}
LOSSES = ('ce', 'cw')
STEPS = 700
RADIUS = 1.5
"""ℓ2 radius of the attack whose images are looked at, as in their Figure 3."""
MAPS = ('gradient', 'gradient_x_input')
RETRAIN = {'steps': 140, 'seeds': 1, 'rate': 0.1}
COLOURS = {'linf': '#0072B2', 'l2': '#D55E00'}


def train_all() -> list[dict]:
  """One row for each network: norm, loss, eps, seed, params; eps 0 is plain."""
  rows = []
  for norm, eps in STRENGTHS.items():
    for loss in LOSSES:
      plain = (0.0,) if (norm, loss) == ('linf', 'ce') else ()
      arms = [(e, s) for e in (*plain, *eps) for s in SEEDS]
      make = objective('pgd', norm=norm, attack=loss, steps=5, step=0.5)
      run = jax.jit(jax.vmap(fit(MLP, make, steps=STEPS)))
      params = run(*(jnp.asarray(a) for a in zip(*arms, strict=True)))
      for i, (e, s) in enumerate(arms):
        one = jax.tree.map(lambda a, i=i: a[i], params)
        rows.append(
          {'norm': norm, 'loss': loss, 'eps': e, 'seed': s, 'params': one}
        )
  return rows


def train_vae(steps: int = 3000) -> tuple:
  """(VAE, params) fitted to the training images."""
  x = digits('train')['image']
  vae, tx = VAE(shape=x.shape[1:]), optax.adam(1e-3)

  @jax.jit
  def run(key):
    params = vae.init(key, x[:1])['params']

    def step(carry, i):
      params, state = carry
      draw, noise = jax.random.split(jax.random.fold_in(key, i))
      part = x[jax.random.choice(draw, len(x), (BATCH,))]

      def loss(params):
        code = jax.random.normal(noise, (BATCH, vae.latent))
        found = vae.apply({'params': params}, part, code)
        return jnp.mean(negative_elbo(part, found, 0.1))

      change, state = tx.update(jax.grad(loss)(params), state)
      return (optax.apply_updates(params, change), state), None

    return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[0]

  return vae, run(jax.random.key(0))[0]


@functools.partial(jax.jit, static_argnums=(0,))
def against_data(vae, vae_params, params, x, y, reference):
  """Per example: distances of attacked images, alignment of gradients."""
  apply_fn = apply_of(MLP)
  predict = lambda x: apply_fn(params, x)[0]
  found = attacks.pgd(
    jax.random.key(0), predict, x, y, eps=RADIUS, norm='l2', steps=40,
    step_size=RADIUS / 10, random_start=False, keep='last',
  )  # fmt: skip
  rebuilt = vae.apply({'params': vae_params}, found.x_adv)[0]
  left = jnp.sqrt(jnp.sum(jnp.square(found.x_adv - rebuilt), (1, 2, 3)))
  grad = attribution.METHODS['gradient'](
    apply_fn, params, x, y, target='margin'
  )
  return {
    'fooled': found.fooled,
    'right': jnp.argmax(predict(x), -1) == y,
    'x_adv': found.x_adv,
    'nearest': diagnostics.nearest_distance(found.x_adv, reference)[0],
    'vae': left,
    'alignment': diagnostics.image_alignment(x, grad),
    'cosine': jnp.abs(similarity.cosine(x, grad)),
  }


def score(rows: list[dict], test: dict) -> None:
  """Adds 'roar/<map>' and 'kar/<map>' to every row: two vmapped programs."""
  data, apply_fn = digits('train'), apply_of(MLP)

  @jax.jit
  def maps(params, x):
    y = jnp.argmax(apply_fn(params, x)[0], -1)
    found = [
      attribution.METHODS[m](apply_fn, params, x, y, target='loss')
      for m in MAPS
    ]
    return jnp.stack([attribution.sum_abs(m) for m in found])

  stacked = jax.tree.map(lambda *a: jnp.stack(a), *(r['params'] for r in rows))
  every = []
  for batch in (data, test):
    x = batch['image']
    found = jax.vmap(maps, (0, None))(stacked, x)  # [rows, maps, N, H, W]
    chance = jax.random.uniform(jax.random.key(1), (1, *x.shape[:3]))
    every.append(jnp.concatenate([chance, found.reshape(-1, *x.shape[:3])]))
  rates = train.learning_rates(
    RETRAIN['rate'], RETRAIN['steps'], schedule='cosine'
  )
  init = lambda key: MLP.init(key, data['image'][:1])['params']
  for name, keep in (('roar', False), ('kar', True)):
    found = retraining.accuracies(
      init, apply_fn, train.optimizer(momentum=0.9), rates, data, test, *every,
      key=jax.random.key(2), seeds=RETRAIN['seeds'], keep=keep, parallel=64,
    )  # fmt: skip
    scores = retraining.removal_score(
      found[1:], found[0], retraining.SHARES, keep=keep
    )
    scores = np.asarray(scores.mean(-1)).reshape(len(rows), len(MAPS))
    for row, values in zip(rows, scores, strict=True):
      for m, value in zip(MAPS, values, strict=True):
        row[f'{name}/{m}'] = float(value)


def toy() -> tuple[list[dict], tuple]:
  """Two classes far apart along x₁, and near but clean along x₂."""
  rng = np.random.default_rng(0)
  y = np.arange(600) % 2
  side = 2 * y - 1
  x = np.stack(
    [rng.normal(0.5 * side, 0.2), rng.normal(0.06 * side, 0.02)], 1
  ).astype(np.float32)
  x = jnp.asarray(x)[:, :, None, None] + 0.5  # centred in the pixel box
  y = jnp.asarray(y, jnp.int32)
  module = models.build('mlp', widths=(32,), num_classes=2, activation='relu')
  apply_fn, loss = apply_of(module), losses.make('cross_entropy')
  tx = train.optimizer(momentum=0.9)
  update = train.make_update(tx)

  def run(eps, seed):
    make = lambda fn: objectives.OBJECTIVES['pgd'](
      fn, loss, norm='l2', eps=eps, steps=10, step=0.25
    )
    sums = train.make_sums(module, make)
    key = jax.random.key(seed)

    def step(state, i):
      found = sums(
        state.params, {}, {'image': x, 'label': y}, jax.random.fold_in(key, i)
      )
      return update(state, found, jnp.float32(0.1)), None

    state = train.init(module, tx, key, x[:1])
    advance = train.make_advance(step)
    params = advance(state, jnp.arange(600), 600)[0].params
    grad = attribution.METHODS['gradient'](
      apply_fn, params, x, y, target='loss'
    )
    grad = grad.reshape(-1, 2)
    share = jnp.abs(grad[:, 0]) / jnp.linalg.norm(grad, axis=1)
    right = jnp.mean(jnp.argmax(apply_fn(params, x)[0], -1) == y)
    return jnp.mean(share), right, params

  eps = (0.0, 0.03, 0.06, 0.12, 0.2)
  arms = [(e, s) for e in eps for s in SEEDS]
  given = (jnp.asarray(a) for a in zip(*arms, strict=True))
  share, right, params = jax.jit(jax.vmap(run))(*given)
  rows = [
    {
      'eps': e,
      'along the manifold': interval(
        [share[i] for i, a in enumerate(arms) if a[0] == e]
      ),
      'accuracy': float(
        np.mean([right[i] for i, a in enumerate(arms) if a[0] == e])
      ),
    }
    for e in eps
  ]
  nets = {
    e: jax.tree.map(lambda a, i=i: a[i], params)
    for i, (e, s) in enumerate(arms)
    if s == 0
  }
  return rows, (apply_fn, nets, x, y)


def main(done: int, total: int) -> dict:
  rows, test = train_all(), digits('test')
  say(done + 1, total, f'{len(rows)} networks trained')
  vae, vae_params = train_vae()
  reference = digits('train')['image']
  x, y = test['image'], test['label']
  apply_fn = apply_of(MLP)
  rebuilt = jax.jit(vae.apply)({'params': vae_params}, x)[0]
  clean = {
    'nearest': diagnostics.nearest_distance(x, reference)[0],
    'vae': jnp.sqrt(jnp.sum(jnp.square(x - rebuilt), (1, 2, 3))),
  }
  plain = {r['seed']: r['params'] for r in rows if r['eps'] == 0}
  transfers = jax.jit(
    lambda params, z: jnp.argmax(apply_fn(params, z)[0], -1) != y
  )
  for row in rows:
    found = against_data(vae, vae_params, row['params'], x, y, reference)
    row['accuracy'] = float(jnp.mean(found['right']))
    own = np.asarray(found['fooled'])
    standard = np.asarray(transfers(plain[row['seed']], found['x_adv']))
    for name in ('nearest', 'vae'):
      # In units of what clean test images have.
      ratio = np.asarray(found[name]) / float(jnp.mean(clean[name]))
      row[name] = float(ratio[own].mean())
      row[f'{name}/standard filter'] = float(ratio[standard].mean())
    row['kept'] = float(own.mean())
    row['kept/standard filter'] = float(standard.mean())
    for name in ('alignment', 'cosine'):
      row[name] = float(jnp.mean(found[name]))
  say(done + 2, total, 'distances to the data')
  score(rows, test)
  say(done + 3, total, 'ROAR and KAR')
  found = {'toy': toy()}
  say(done + 4, total, 'toy')
  toy_rows, toy_nets = found['toy']
  draw(rows, toy_rows, toy_nets)
  arms = [f'{r["norm"]}/{r["loss"]}/{r["eps"]}' for r in rows]
  relations = {}
  names = [f'{s}/{m}' for s in ('roar', 'kar') for m in MAPS]
  for norm in STRENGTHS:
    here = [i for i, r in enumerate(rows) if r['norm'] == norm or not r['eps']]
    pick = lambda name, here=here: [rows[i][name] for i in here]
    groups = [arms[i] for i in here]
    for name in names:
      relations[f'{norm}: {name} ~ accuracy'] = correlation(
        pick(name), pick('accuracy'), groups
      )
    for name in (*names, 'nearest', 'vae', 'alignment', 'cosine'):
      relations[f'{norm}: {name} ~ eps'] = correlation(
        pick(name), pick('eps'), groups
      )
  table = {}
  for arm in dict.fromkeys(arms):
    same = [r for a, r in zip(arms, rows, strict=True) if a == arm]
    table[arm] = {
      name: interval([r[name] for r in same])
      for name in same[0]
      if name not in ('norm', 'loss', 'eps', 'seed', 'params')
    }
  return {'arms': table, 'relations': relations, 'toy': toy_rows}


def draw(rows: list[dict], toy_rows: list[dict], toy_nets: tuple) -> None:
  figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), layout='constrained')
  names = {
    'nearest': 'distance of x′ to nearest training image',
    'vae': 'distance of x′ to its VAE reconstruction',
    'cosine': '|cos| of image and margin gradient',
  }
  for axis, (name, title) in zip(axes[0], names.items(), strict=True):
    for norm, colour in COLOURS.items():
      for loss, style in zip(LOSSES, ('-', '--'), strict=True):
        here = [
          r
          for r in rows
          if not r['eps'] or (r['norm'], r['loss']) == (norm, loss)
        ]
        eps = sorted({r['eps'] for r in here})
        scale = 8 if norm == 'linf' else 1  # √64: corners of the cube
        stats = [
          interval([r[name] for r in here if r['eps'] == e]) for e in eps
        ]
        axis.errorbar(
          [scale * e for e in eps], *zip(*stats, strict=True), fmt='o' + style,
          color=colour, markersize=3, linewidth=1.2, capsize=2,
          label=f'{norm}, {loss}',
        )  # fmt: skip
    axis.set(title=title, xlabel='training ε [ℓ2; ℓ∞ times 8]')
  axes[0, 0].set_ylabel('in units of clean test images')
  axes[0, 2].legend(frameon=False, fontsize=8)
  for axis, kind in zip(axes[1], ('roar', 'kar'), strict=False):
    for norm, colour in COLOURS.items():
      for m, marker in zip(MAPS, ('o', 'x'), strict=True):
        here = [r for r in rows if r['norm'] == norm]
        axis.scatter(
          [r['accuracy'] for r in here], [r[f'{kind}/{m}'] for r in here],
          color=colour, marker=marker, s=14, label=f'{norm}, {m}',
        )  # fmt: skip
    axis.axhline(0, color='0.5', linestyle=':', linewidth=1)
    axis.set(
      title=f'{kind.upper()} score and accuracy', xlabel='test accuracy',
      ylabel='area above a random map',
    )  # fmt: skip
  axes[1, 0].legend(frameon=False, fontsize=7)
  apply_fn, nets, x, y = toy_nets
  axis = axes[1, 2]
  points = np.asarray(x).reshape(-1, 2) - 0.5
  axis.scatter(*points.T, c=np.asarray(y), cmap='coolwarm', s=3, alpha=0.5)
  grid = np.stack(
    np.meshgrid(np.linspace(-1.3, 1.3, 121), np.linspace(-0.3, 0.3, 121)), -1
  )
  flat = jnp.asarray(grid.reshape(-1, 2, 1, 1) + 0.5, jnp.float32)
  wanted = zip((0.0, 0.06, 0.2), ('-', '--', ':'), strict=True)
  for eps, style in wanted:
    logits = apply_fn(nets[eps], flat)[0]
    level = np.asarray(logits[:, 1] - logits[:, 0]).reshape(121, 121)
    axis.contour(
      grid[..., 0], grid[..., 1], level, [0], colors='k', linestyles=style
    )
  shares = {r['eps']: r['along the manifold'][0] for r in toy_rows}
  axis.set_title(
    'toy: boundaries at ε = 0 (—), 0.06 (- -), 0.2 (··)\ngradient along x₁: '
    + ', '.join(f'{shares[e]:.2f}' for e in (0.0, 0.06, 0.2)),
    fontsize=9,
  )
  axis.set(xlabel='x₁, the manifold', ylabel='x₂, across')
  for axis in axes.flat:
    axis.spines[['top', 'right']].set_visible(False)
  figure.savefig(DOCS / f'{pathlib.Path(__file__).stem}.png', dpi=120)
