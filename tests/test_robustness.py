"""Is each thing measured once, and is every option's column what it says?"""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import errors, similarity
from implicit_attr.evaluation import robustness, scores
from implicit_attr.runtime import dist
from implicit_attr.train import settings as records

SETTINGS = {
  'attributions': ('gradient', 'gradient_x_input'), 'options': {},
  'attacks': ('topk',), 'similarities': (), 'target': 'logit', 'eps': 0.1,
  'norm': 'linf', 'k': 0.1, 'steps': 2, 'restarts': 1, 'batch_size': 5,
}  # fmt: skip


def apply_fn(params, x):
  return jnp.tanh(x.reshape(len(x), -1) @ params['w']) @ params['v'], {}


@pytest.fixture(scope='module')
def problem():
  draw = np.random.default_rng(0)
  params = {
    'w': jnp.array(draw.normal(size=(64, 16)), jnp.float32),
    'v': jnp.array(draw.normal(size=(16, 3)), jnp.float32),
  }
  x = draw.random((12, 8, 8, 1), np.float32)
  y = np.asarray(jnp.argmax(apply_fn(params, x)[0], -1)).astype(np.int32)
  return params, {'image': x, 'label': y}


def attack(batch, apply_fn=apply_fn, **settings):
  evaluation = records.record(records.Evaluation, '', SETTINGS | settings)
  return robustness.Robustness(apply_fn, batch, evaluation, dist.mesh())


def test_noise_once_a_chunk_and_the_clean_map_once_a_map(problem, monkeypatch):
  params, batch = problem
  calls = collections.Counter()
  chunks, maps, attacks = 3, 2, 2
  measure = attack(batch, attacks=('topk', 'mass_centre'))
  names = {id(measure._noise): 'noise'}
  for kind in ('maps', 'alike', 'faith', 'attacks'):
    programs = getattr(measure, f'_{kind}').values()
    names |= {id(program): kind for program in programs}
  call = robustness.Program.__call__

  def counted(self, *args):
    calls[names[id(self)]] += 1
    return call(self, *args)

  monkeypatch.setattr(robustness.Program, '__call__', counted)
  found = list(measure(params))
  assert len(found) == maps * attacks
  changed = chunks * maps * (attacks + 1)  # by an attack or by random signs
  assert calls == {
    'noise': chunks,
    'maps': chunks * maps + changed,
    'faith': chunks * maps,
    'alike': changed,
    'attacks': chunks * maps * attacks,
  }  # 51; with noise, clean map and faithfulness once an attack 84


def test_each_map_has_one_line_of_random_signs_and_it_comes_last(problem):
  params, batch = problem
  rows = []
  for part, _ in attack(batch, attacks=('topk', 'mass_centre'))(params):
    rows += part
  assert [(r['attribution'], r['attack']) for r in rows] == [
    (name, kind)
    for name in SETTINGS['attributions']
    for kind in ('topk', 'mass_centre', 'random_sign')
  ]


def test_many_params_at_once_are_measured_as_one_after_the_other(problem):
  params, batch = problem
  other = jax.tree.map(lambda p: 0.5 * p[::-1], params)
  settings = records.record(records.Evaluation, '', SETTINGS)
  spread = lambda fun, shared: (
    lambda *args: jax.vmap(
      fun, [None if i in shared else 0 for i in range(len(args))]
    )(*args)
  )
  both = robustness.Robustness(
    apply_fn, batch, settings, dist.mesh(), spread=spread, lead=(2,)
  )
  stacked = jax.tree.map(lambda *p: jnp.stack(p), params, other)
  alone = attack(batch)
  found = [list(alone.measured(p)) for p in (params, other)]
  for turn, (name, objective, lanes) in enumerate(both.measured(stacked)):
    for i in range(2):
      assert found[i][turn][:2] == (name, objective)
      for key, value in found[i][turn][2].items():
        np.testing.assert_allclose(
          lanes[key][i], value, rtol=2e-3, atol=2e-3, err_msg=key
        )


def test_further_similarities_are_those_of_the_library(problem):
  params, batch = problem
  more = ('ssim', 'lens_recall')
  measure = attack(batch, similarities=more, attributions=('gradient',))
  ((_, _, examples),) = measure.measured(params)
  clean, changed = (
    similarity.magnitude(examples[f'map/{kind}']) for kind in ('clean', 'topk')
  )
  shares = [a / a.sum((1, 2), keepdims=True) for a in (clean, changed)]
  wanted = {
    'ssim': similarity.ssim(*shares, window=7),  # of 11, which do not fit
    'lens_recall': similarity.lens_recall(clean, changed, 0.1, w=1),
  }
  rows, arrays = measure.table('gradient', 'topk', examples)
  for name in more:
    np.testing.assert_allclose(
      arrays[f'score/gradient/topk/{name}'], wanted[name], rtol=1e-4, atol=1e-6
    )
    for row in rows:
      assert row['metrics'][name]['n'] == 12
  assert 'ssim' not in attack(batch).measured(params).__next__()[2]


def test_every_similarity_that_a_config_may_name_is_there(problem):
  assert tuple(scores.MORE) == records.SIMILARITIES
  with pytest.raises(errors.InputError, match="did you mean 'ssim'"):
    attack(problem[1], similarities=('sim',))


def test_undefined_similarities_are_counted_and_left_out(problem):
  """Half of the images are dead for the network: their map is 0."""
  params, batch = problem
  image = batch['image'].copy()
  image[::2] = 0

  def gated(params, x):
    alive = jax.nn.relu(x.reshape(len(x), -1).sum(1, keepdims=True) - 1)
    return apply_fn(params, x)[0] * alive, {}

  label = np.asarray(jnp.argmax(gated(params, image)[0], -1)).astype(np.int32)
  measure = attack(
    {'image': image, 'label': label}, gated, attributions=('gradient',),
    eps=0.001,
  )  # fmt: skip
  ((rows, arrays),) = measure(params)
  for row in rows:
    assert row['n'] == 12 and row['n_undefined'] == 6
    for name in ('cosine', 'pearson'):
      assert row['metrics'][name]['n'] == 6
  cosine = arrays['score/gradient/topk/cosine']
  np.testing.assert_array_equal(np.isnan(cosine), np.arange(12) % 2 == 0)
