"""Does each part that docs/extending.md adds work as the page has it?"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import (
  attacks,
  attribution,
  claims,
  data,
  losses,
  models,
  objectives,
)  # fmt: skip
from implicit_attr.data import augment
from implicit_attr.models import features

ROOT = pathlib.Path(__file__).parent.parent
DICTS = (
  models.MODELS, models.KERNELS, features.FEATURE_MAPS, attribution.METHODS,
  attacks.OBJECTIVES, objectives.OBJECTIVES, claims.CLAIMS,
  augment.AUGMENTATIONS,
)  # fmt: skip
LONGEST = 13
"""Lines of a block, imports, docstrings and empty lines not counted."""


def sections():
  """Heading -> [(language, block)], in the order of the page."""
  text = (ROOT / 'docs' / 'extending.md').read_text()
  return {
    part.splitlines()[0]: re.findall(r'```(\w+)\n(.*?)```', part, re.S)
    for part in text.split('\n## ')[1:]
  }


def blocks(language):
  return [
    code
    for found in sections().values()
    for kind, code in found
    if kind == language
  ]


@pytest.fixture
def run():
  """Executes the block of a heading; afterwards the dicts are as they were."""
  before = [dict(d) for d in DICTS]

  def execute(heading):
    (code,) = [c for kind, c in sections()[heading] if kind == 'python']
    found = {}
    exec(code, found)
    return found

  yield execute
  for now, then in zip(DICTS, before, strict=True):
    now.clear()
    now.update(then)


@pytest.fixture(scope='module')
def net():
  """(apply_fn, params, x, y): two layers on 4 images of 6 x 6."""
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    'w1': jax.random.normal(keys[0], (36, 8)) / 6,
    'w2': jax.random.normal(keys[1], (8, 3)),
  }
  apply_fn = lambda p, x: (
    jnp.tanh(x.reshape(len(x), -1) @ p['w1']) @ p['w2'], {}
  )  # fmt: skip
  x = jax.random.uniform(keys[2], (4, 6, 6, 1))
  return apply_fn, params, x, jnp.array([0, 1, 2, 0])


def test_no_block_is_long():
  for code in blocks('python') + blocks('diff'):
    code = re.sub(r'""".*?"""', '', code, flags=re.S)
    lines = [s for s in code.splitlines() if s.strip()]
    lines = [s for s in lines if not re.match(r'import |from |#|---', s)]
    assert len(lines) <= LONGEST, code


def test_a_model(run):
  run('A model')
  module = models.build('tiny', num_classes=3, activation='relu', mean=0.5)
  x = jax.random.uniform(jax.random.key(0), (2, 6, 6, 1))
  params = module.init(jax.random.key(1), x)
  logits, out = module.apply(params, x)
  assert logits.shape == (2, 3) and out['features'].shape == (2, 32)
  h = (np.asarray(x) - 0.5).reshape(2, -1)
  layers = jax.device_get(params['params'])
  h = np.maximum(h @ layers['first']['kernel'] + layers['first']['bias'], 0)
  twin = h @ layers['Dense_0']['kernel'] + layers['Dense_0']['bias']
  np.testing.assert_allclose(logits, twin, rtol=1e-5, atol=1e-6)
  smooth = module.clone(activation='softplus').apply(params, x, beta=1e4)[0]
  np.testing.assert_allclose(smooth, logits, atol=1e-3)


def test_an_attention_kernel(run):
  run('An attention kernel')
  draw = lambda i: jax.random.normal(jax.random.key(i), (2, 5, 1, 3))
  q, k, v = draw(0), draw(1), draw(2)
  attend = models.attention.attend
  o, a = attend('square_none', q, k, v, return_weights=True)
  phi = lambda z: np.asarray(z)[:, :, 0] ** 2 + 0.1
  twin = phi(q) @ phi(k).swapaxes(1, 2)
  np.testing.assert_allclose(a[:, 0], twin, rtol=1e-5)
  np.testing.assert_allclose(o[:, :, 0], twin @ v[:, :, 0], rtol=1e-4)
  rows = attend('square_sum', q, k, v, return_weights=True)[1].sum(-1)
  np.testing.assert_allclose(rows, 1, rtol=1e-5)
  assert models.build('vit', attention='square_sum').attention == 'square_sum'
  assert claims.reading.kernel('square_none')['normalized'] is False
  assert claims.reading.kernel('square_sum')['normalized'] is True


def test_a_map(run, net):
  run('A map')
  apply_fn, params, x, y = net
  explain = attribution.METHODS['gradient_x_contrast']
  found = explain(apply_fn, params, x, y)
  grad = attribution.METHODS['gradient'](apply_fn, params, x, y)
  for i in range(len(x)):
    twin = (np.asarray(x[i]) - np.mean(x[i])) * np.asarray(grad[i])
    np.testing.assert_allclose(found[i], twin, rtol=1e-5, atol=1e-6)
  slope = jax.grad(lambda x: jnp.sum(explain(apply_fn, params, x, y)))(x)
  assert slope.shape == x.shape and bool(jnp.all(slope != 0))


def test_an_attack_objective(run, net):
  run('An attack objective')
  apply_fn, params, x, _ = net
  explain = lambda x, y: attribution.gradient(apply_fn, params, x, y)
  predict = lambda x: apply_fn(params, x)[0]
  attack = jax.jit(
    lambda x: attacks.attack_attribution(
      jax.random.key(0), explain, predict, x, jnp.argmax(predict(x), -1),
      eps=0.3, objective='flatten', select='objective', steps=20, restarts=1,
    )
  )  # fmt: skip
  found = attack(x)
  assert bool(jnp.any(found.kept))
  gain = np.asarray(found.clean_score - found.score)
  assert (gain >= 0).all() and (gain[np.asarray(found.kept)] > 1e-3).all()
  share = np.abs(explain(x, jnp.argmax(predict(x), -1))).reshape(4, -1)
  share = share / share.sum(1, keepdims=True)
  twin = np.sum(share * np.log(share + 1e-9), 1)
  np.testing.assert_allclose(found.clean_score, twin, rtol=1e-4)


def test_a_training_objective(run, net):
  run('A training objective')
  apply_fn, params, x, y = net
  loss = losses.make('cross_entropy')
  batch = {'image': x, 'label': y}
  make = lambda weight: objectives.make('logit_penalty', loss, weight=weight)
  values = {
    weight: make(weight)(apply_fn)(params, batch, jax.random.key(0))[0]
    for weight in (0.0, 0.5)
  }
  logits = np.asarray(apply_fn(params, x)[0])
  np.testing.assert_array_equal(values[0.0], loss(logits, y))
  extra = 0.5 * np.mean(logits**2, 1)
  np.testing.assert_allclose(values[0.5] - values[0.0], extra, rtol=1e-4)


def test_a_data_set(run):
  stripes = run('A data set')['stripes']
  source = data.Source(stripes('train'), batch_size=16)
  batch = source.batch_at(3)
  assert batch['image'].shape == (16, 8, 8, 1) and source.num_classes == 2
  assert set(source.examples(range(256))['label']) == {0, 1}
  upright = batch['image'].mean((1, 3)).std(1) > 0.15  # columns differ
  np.testing.assert_array_equal(upright, batch['label'] == 0)
  other = stripes('test').fetch(np.arange(4))['image']
  assert (other != stripes('train').fetch(np.arange(4))['image']).any()


def test_an_augmentation(run):
  run('An augmentation')
  load = lambda names: data.load(
    'digits', 'train', batch_size=64, augment=names
  )
  plain, turned = load(()), load(('turn',))
  draw = {name: a[0] for name, a in turned.draws(3, 1).items()}
  batch = turned.batch_at(3)
  made = jax.jit(data.assemble)(turned.table(), draw)['image']
  np.testing.assert_array_equal(made, batch['image'])
  images = plain.batch_at(3)['image']
  images[draw['turn']] = images[draw['turn'], ::-1, ::-1]
  np.testing.assert_array_equal(batch['image'], images)
  assert 16 < draw['turn'].sum() < 48


def test_a_probe(run, net):
  sparsity = run('A probe')['sparsity']
  apply_fn, params, x, y = net
  batch = {'image': x, 'label': y}
  found = sparsity(apply_fn, params, batch)['input/sparsity']
  assert found.shape == (4,) and bool(jnp.all((found > 1) & (found <= 6)))
  flat = lambda p, x: (jnp.sum(x, (1, 2)) * jnp.ones((1, 3)), {})
  ones = sparsity(flat, params, batch)['input/sparsity']
  np.testing.assert_allclose(ones, 1, rtol=1e-6)


@pytest.mark.parametrize('effect', [0.2, -0.2])
def test_a_claim(run, effect):
  run('A claim')
  rng = np.random.default_rng(0)
  records = []
  for seed in range(4):
    for lr in (0.1, 0.3):
      scores = 0.6 + effect * (lr > 0.2) + 0.02 * rng.standard_normal(20)
      records.append({
        'lr': lr, 'batch_size': 16, 'seed': seed, 'map': 'gradient',
        'family': 'gradient', 'objective': 'none', 'rule': 'last',
        'kendall': float(scores.mean()), 'examples': {'kendall': scores},
      })  # fmt: skip
  verdict = claims.judge_one(list(claims.CLAIMS.values())[-1], records)
  assert verdict.claim.name == 'C7'
  wanted = 'supported' if effect > 0 else 'reversed'
  assert verdict.verdict == wanted
  others = [record | {'objective': 'pgd'} for record in records]
  verdict = claims.judge_one(claims.CLAIMS['C7'], others)
  assert verdict.verdict == 'not enough runs'


def indent(line):
  return len(line) - len(line.lstrip())


def follow(page, copy):
  """Does to a copy of the package what a diff of the page says.

  Its one line of context must be there once; how far it is indented may change.
  """
  for part in filter(None, re.split(r'(?m)^(?=--- \S)', page)):
    path, *lines = part.splitlines()
    path = copy / path.removeprefix('--- ')
    for hunk in '\n'.join(lines).split('\n---\n'):
      said = [(s[0], s[1:]) for s in hunk.splitlines()]
      ((_, known),) = [line for line in said if line[0] == ' ']
      text = path.read_text().splitlines()
      (place,) = [i for i, s in enumerate(text) if s.strip() == known.strip()]
      extra = ' ' * max(0, indent(text[place]) - indent(known))
      less = max(0, indent(known) - indent(text[place]))
      text[place : place + 1] = [
        text[place] if kind == ' ' else extra + line[less:]
        for kind, line in said
      ]
      path.write_text('\n'.join(text) + '\n')


def test_the_whole_page_in_a_copy_of_the_package(tmp_path):
  shutil.copytree(
    ROOT / 'implicit_attr', tmp_path / 'implicit_attr',
    ignore=shutil.ignore_patterns('__pyc*'),
  )  # fmt: skip
  (tmp_path / 'configs').symlink_to('implicit_attr/configs')
  for page in blocks('diff'):
    follow(page, tmp_path)
  for code in blocks('python'):
    if code.startswith('# implicit_attr/'):
      (tmp_path / code.splitlines()[0].removeprefix('# ')).write_text(code)
  script = tmp_path / 'page.py'
  script.write_text('\n'.join(blocks('python')))
  done = subprocess.run(
    [sys.executable, script], cwd=tmp_path, capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': str(tmp_path), 'JAX_PLATFORMS': 'cpu'},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('C7 not enough runs')
  folder = tmp_path / 'runs' / 'extended'
  config = json.loads((folder / 'config.json').read_text())['config']
  assert config['objective']['name'] == 'logit_penalty'
  found = json.loads((folder / 'evaluation' / 'last.json').read_text())
  assert {row['attribution'] for row in found['rows']} == {
    'gradient_x_contrast'
  }
  assert 'flatten' in {row['attack'] for row in found['rows']}
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  values = [json.loads(s).get('input/sparsity') for s in lines]
  assert any(v is not None and 1 < v < 8 for v in values)
  with np.load(sorted((folder / 'probes').glob('*.npz'))[-1]) as arrays:
    assert arrays['input/sparsity'].shape == (8,)
