"""Is a planted effect found, a planted null not, and too little refused?"""

import dataclasses
import itertools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from implicit_attr import claims, models
from implicit_attr.claims import overall, registry, verdicts
from implicit_attr.claims.reading import kernel
from implicit_attr.errors import InputError
from implicit_attr.models import attention

TREES = 100
LRS, BATCHES = (0.03, 0.1, 0.3), (16, 128)
EXAMPLES = 24


def tree(
  rng, effect, *, seeds=4, lrs=LRS, maps=('gradient',), attention='',
  loss='cross_entropy', rule='train_loss', examples=EXAMPLES, **more,
):  # fmt: skip
  """Records of a full grid: log2 of the radius rises by 5 `effect` from lowest
  to highest learning rate and falls as much from small to large batches;
  seeds, runs and examples differ by more than that."""
  hard = 0.1 * rng.standard_normal(examples)
  found = []
  for seed in range(seeds):
    luck = 0.05 * rng.standard_normal()
    for lr, batch in itertools.product(lrs, BATCHES):
      run = 0.02 * rng.standard_normal()
      step = np.log(lr / lrs[0]) / np.log(lrs[-1] / lrs[0])
      gain = effect * (step - (batch == BATCHES[1]))
      log_lambda = -3 * step + rng.standard_normal()
      bend = log_lambda + 0.3 * rng.standard_normal()
      for name in maps:
        noise = 0.1 * rng.standard_normal(examples)
        radius = 5 * (hard + luck + run + gain + noise)
        found.append({
          'lr': lr, 'batch_size': batch, 'seed': seed, 'map': name,
          'family': 'attention' if name == 'rollout' else 'gradient',
          'attention': attention, 'loss': loss, 'rule': rule,
          'target': 'logit', 'data': 'digits', 'model': 'cnn',
          'activation': 'gelu', 'objective': 'none', 'attack': 'topk',
          'log2_eps50': float(radius.mean()),
          'examples': {'log2_eps50': radius},
          'accuracy': 0.9, 'speed': -3 + 0.02 * rng.standard_normal(),
          'lambda_max': math.exp(log_lambda), 'input_lambda': math.exp(bend),
          'normalized_curvature': math.exp(bend),
          **kernel(attention), **more,
        })  # fmt: skip
  return found


def softmax_and_kernels(rng, effects, **options):
  """Runs of three attentions, each with its own effect."""
  return [
    record
    for attention, effect in effects.items()
    for record in tree(
      rng, effect, attention=attention, maps=('rollout',), **options
    )
  ]


def share(claim, make, verdict):
  """How many of 100 trees get `verdict`."""
  rngs = [np.random.default_rng(i) for i in range(TREES)]
  found = [claims.judge_one(claims.CLAIMS[claim], make(rng)) for rng in rngs]
  return sum(f.verdict == verdict for f in found)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(verdicts, 'BESIDE', ())


def test_a_planted_effect_is_found_in_95_of_100_trees():
  assert share('C1', lambda rng: tree(rng, 0.12), 'supported') >= 95


def test_a_planted_null_is_supported_in_at_most_5_of_100_trees():
  assert share('C1', lambda rng: tree(rng, 0.0), 'supported') <= 5


def test_no_single_cell_of_a_null_is_supported_too_often():
  found = [
    claims.judge_one(
      claims.CLAIMS['C1'], tree(np.random.default_rng(i), 0.0, seeds=3)
    )
    for i in range(TREES)
  ]
  cells = [cell.verdict for f in found for cell in f.cells]
  assert len(cells) == 2 * TREES
  assert cells.count('supported') <= 0.05 * len(cells)


def test_a_planted_harm_is_reversed():
  wrong = lambda rng: tree(rng, -0.12)
  assert share('C1', wrong, 'reversed') >= 95


def test_a_planted_gain_of_kernels_is_found_and_a_null_is_not():
  gain = {'softmax': 0.0, 'linear': 0.12}
  null = {'softmax': 0.06, 'linear': 0.06}
  find = lambda effects: share(
    'C5', lambda rng: softmax_and_kernels(rng, effects, seeds=6), 'supported'
  )
  assert find(gain) >= 95
  assert find(null) <= 5


def test_a_planted_gain_without_a_normaliser_is_found_and_a_null_is_not():
  gain = {'elu1_sum': 0.0, 'elu1_none': 0.12, 'softmax': 0.3}
  null = {'elu1_sum': 0.06, 'elu1_none': 0.06, 'softmax': -0.3}
  find = lambda effects: share(
    'C6', lambda rng: softmax_and_kernels(rng, effects, seeds=6), 'supported'
  )
  assert find(gain) >= 95
  assert find(null) <= 5


def test_a_gain_that_attention_maps_do_not_share_is_found():
  def make(rng, of_attention):
    options = {'attention': 'softmax', 'seeds': 6}
    return tree(rng, 0.12, **options) + tree(
      rng, of_attention, maps=('rollout',), **options
    )

  assert share('C4', lambda rng: make(rng, 0.0), 'supported') >= 95
  assert share('C4', lambda rng: make(rng, 0.12), 'supported') <= 5


def test_a_planted_chain_is_found_and_a_broken_one_is_not():
  def make(rng, whole):
    found = tree(rng, 0.0, seeds=8, examples=1)
    for record in found:
      bend = math.log(record['normalized_curvature'])
      if not whole:
        bend = rng.standard_normal()
      record['log2_eps50'] = -bend + 0.2 * rng.standard_normal()
      record['examples'] = {}
    return found

  assert share('C2', lambda rng: make(rng, True), 'supported') >= 95
  assert share('C2', lambda rng: make(rng, False), 'supported') <= 5


def test_the_cost_is_judged_by_time():
  def make(rng, slower):
    found = tree(rng, 0.0, examples=1)
    for record in found:
      if record['lr'] == LRS[-1] or record['batch_size'] == BATCHES[0]:
        record['speed'] -= slower
    return found

  assert share('C3', lambda rng: make(rng, 0.0), 'supported') >= 95
  assert share('C3', lambda rng: make(rng, 0.5), 'reversed') >= 95


@pytest.mark.parametrize('seeds', [1, 2])
def test_too_few_seeds_are_not_enough_runs(seeds):
  records = tree(np.random.default_rng(0), 0.5, seeds=seeds)
  for name in ('C1', 'C2', 'C3'):
    found = claims.judge_one(claims.CLAIMS[name], records)
    assert found.verdict == 'not enough runs'
    assert f'{seeds} seeds at most, 3 are needed' in found.reason
    assert {cell.verdict for cell in found.cells} == {'not enough runs'}


def test_an_empty_tree_has_a_verdict_for_every_claim():
  found = claims.judge([])
  assert [v.claim.name for v in found] == ['C1', 'C2', 'C3', 'C4', 'C5', 'C6']
  assert {v.verdict for v in found} == {'not enough runs'}


def test_an_effect_that_depends_on_the_loss_is_said_to():
  rng = np.random.default_rng(0)
  records = tree(rng, 0.3) + tree(rng, -0.3, loss='squared_error')
  found = claims.judge_one(claims.CLAIMS['C1'], records)
  assert found.verdict == 'depends on loss'
  assert 'cross_entropy: 2 of 2 supported' in found.reason
  assert 'squared_error: 0 of 2 supported' in found.reason


def test_an_effect_that_depends_on_the_rule_is_said_to():
  rng = np.random.default_rng(0)
  records = tree(rng, 0.3) + tree(rng, -0.3, rule='last')
  claim = dataclasses.replace(claims.CLAIMS['C1'], rule=None)
  found = claims.judge_one(claim, records)
  assert found.verdict == 'depends on rule'


def test_cells_are_judged_by_rule_target_and_map():
  rng = np.random.default_rng(0)
  records = tree(rng, 0.1, maps=('gradient', 'smoothgrad'))
  records += tree(rng, 0.1, rule='last')
  records += tree(rng, 0.1, target='loss')
  cells = claims.judge_one(claims.CLAIMS['C1'], records).cells
  fields = ('factor', 'rule', 'target', 'map')
  found = {tuple(c.fields[f] for f in fields) for c in cells}
  assert len(found) == len(cells) == 8
  assert ('lr', 'train_loss', 'logit', 'smoothgrad') in found
  assert ('batch_size', 'last', 'logit', 'gradient') in found


@pytest.mark.parametrize(
  ('counts', 'verdict'),
  [
    ((2, 0, 0, 1, 0), 'supported'),
    ((1, 0, 0, 1, 0), 'undecided'),
    ((0, 2, 0, 0, 1), 'reversed'),
    ((0, 1, 0, 0, 1), 'undecided'),
    ((3, 1, 0, 0, 0), 'depends on map'),
    ((0, 0, 0, 2, 2), 'undecided'),
    ((0, 0, 3, 1, 1), 'no effect of interest'),
    ((0, 0, 0, 0, 2), 'not enough runs'),
    ((1, 23, 0, 0, 0), 'reversed'),
  ],
)
def test_a_verdict_takes_more_than_half_of_the_cells(counts, verdict):
  said = (
    'supported', 'reversed', 'no effect of interest', 'undecided',
    'not enough runs',
  )  # fmt: skip
  each = [name for name, n in zip(said, counts, strict=True) for _ in range(n)]
  estimate = claims.Estimate(0.0, 0.0, 0.0, 3)
  cells = [
    claims.Cell({'rule': 'last', 'map': name}, name, estimate, 3, {})
    for name in each
  ]
  assert overall.summary(claims.CLAIMS['C1'], cells)[0] == verdict


def test_an_explicit_regulariser_is_no_evidence_for_an_implicit_one():
  records = tree(np.random.default_rng(0), 0.3, objective='cure')
  found = claims.judge_one(claims.CLAIMS['C1'], records)
  assert found.verdict == 'not enough runs' and not found.cells


def test_a_gain_is_between_levels_that_every_seed_has():
  """The highest rate diverged for one seed: the next one is the end."""
  records = [
    record
    for record in tree(np.random.default_rng(0), 0.3, examples=1)
    if not (record['seed'] == 1 and record['lr'] == LRS[-1])
  ]
  for record in records:
    record['examples'] = {}
    record['topk'] = {LRS[0]: 0.1, LRS[1]: 0.15, LRS[2]: 0.9}[record['lr']]
  found = verdicts.gains(records, 'lr', 'topk')
  assert sorted(found) == [0, 1, 2, 3]
  np.testing.assert_allclose(list(found.values()), 0.05)


def test_a_gain_is_paired_by_example_and_points_the_claimed_way():
  base = {'seed': 0, 'map': 'gradient'}
  records = [
    {**base, 'lr': lr, 'batch_size': batch, 'examples': {'topk': values}}
    for lr, batch, values in [
      (0.1, 16, [0.5, 0.7, np.nan]), (0.3, 16, [0.6, np.nan, 0.2]),
      (0.1, 64, [0.1, 0.2, 0.3]), (0.3, 64, [0.4, 0.1, 0.3]),
    ]
  ]  # fmt: skip
  up = verdicts.gains(records, 'lr', 'topk')[0]
  np.testing.assert_allclose(up, [(0.1 + 0.3) / 2, -0.1, 0.0])
  down = verdicts.gains(records, 'batch_size', 'topk')[0]
  np.testing.assert_allclose(down, [(0.4 + 0.2) / 2, 0.5, -0.1])


def test_what_stands_beside_a_gain_is_another_gain(monkeypatch):
  monkeypatch.setattr(verdicts, 'BESIDE', ('accuracy', 'deletion_auc'))
  records = tree(np.random.default_rng(0), 0.3)
  for record in records:
    record['accuracy'] = 0.9 + 0.05 * (record['lr'] == LRS[-1])
  cells = claims.judge_one(claims.CLAIMS['C1'], records).cells
  found = next(c for c in cells if c.fields['factor'] == 'lr').beside
  np.testing.assert_allclose(found['accuracy'][:3], 0.05, rtol=1e-9)
  assert 'deletion_auc' not in found


@pytest.mark.parametrize(
  ('test', 'interval', 'verdict'),
  [
    ('gain', (0.05, 0.01, 0.09), 'supported'),
    ('gain', (0.05, -0.01, 0.11), 'undecided'),
    ('gain', (0.02, 0.01, 0.04), 'undecided'),
    ('gain', (0.0, -0.02, 0.02), 'no effect of interest'),
    ('gain', (0.015, 0.01, 0.02), 'no effect of interest'),
    ('gain', (-0.1, -0.2, 0.02), 'undecided'),
    ('gain', (-0.1, -0.2, -0.02), 'reversed'),
    ('gain', (0.01, -0.002, 0.024), 'no effect of interest'),
    ('no_loss', (-0.01, -0.02, 0.0), 'supported'),
    ('no_loss', (-0.01, -0.04, 0.02), 'undecided'),
    ('no_loss', (-0.1, -0.12, -0.05), 'reversed'),
    ('no_loss', (-0.1, -0.12, -0.01), 'reversed'),
  ],
)
def test_decision_rules(test, interval, verdict):
  estimate = claims.Estimate(*interval, 3)
  assert verdicts.decide(test, estimate, 0.03) == verdict


def test_an_interval_over_seeds_is_that_of_a_t_test():
  values = np.array([0.1, 0.3, 0.25, 0.6])
  found = claims.paired_mean(values[:, None])
  tested = stats.ttest_1samp(values, 0)
  wanted = tested.confidence_interval(0.95)
  np.testing.assert_allclose(found.p, tested.pvalue)
  np.testing.assert_allclose(found.value, values.mean())
  np.testing.assert_allclose(found[1:3], wanted)


def test_an_interval_over_examples_is_that_of_scipy():
  values = np.random.default_rng(0).standard_normal(60)
  found = claims.paired_mean(np.stack([values] * 200))
  half = stats.t.ppf(0.975, 199) * stats.sem(values)
  np.testing.assert_allclose(found.high - found.value, half, rtol=1e-6)


def test_examples_that_do_not_count_are_left_out():
  matrix = np.array([[1.0, np.nan], [1.0, 3.0], [np.nan, np.nan]])
  found = claims.paired_mean(matrix)
  np.testing.assert_allclose(found.value, 5 / 3)
  assert found.n == 2
  assert claims.paired_mean(matrix[2:]).n == 0
  assert claims.paired_mean(matrix[:1])[1:3] == (-np.inf, np.inf)


@pytest.mark.parametrize(
  'fun', [claims.partial_spearman, claims.partial_correlation]
)
def test_a_partial_correlation_is_that_of_the_inverse_correlation(fun):
  rng = np.random.default_rng(0)
  given = rng.standard_normal((40, 2))
  a = given @ [1.0, -1.0] + rng.standard_normal(40)
  b = given @ [1.0, 0.5] + 0.5 * a + rng.standard_normal(40)
  found = fun(a, b, given)
  table = np.column_stack([a, b, given])
  if fun is claims.partial_spearman:
    table = stats.rankdata(table, axis=0)
  inverse = np.linalg.inv(np.corrcoef(table.T))
  wanted = -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])
  np.testing.assert_allclose(found.value, wanted)
  assert found.low < wanted < found.high and found.n == 40
  plain = fun(a, b, np.ones((40, 1)))
  whole = np.corrcoef(*table.T[:2])[0, 1]
  np.testing.assert_allclose(plain.value, whole)


@pytest.mark.parametrize(
  'fun', [claims.partial_spearman, claims.partial_correlation]
)
@pytest.mark.parametrize('n', [9, 20])
def test_a_partial_correlation_covers_zero_as_often_as_it_says(fun, n):
  rng = np.random.default_rng(1)
  covered = 0
  for _ in range(400):
    given = rng.standard_normal((n, 1))
    a, b = given[:, 0] + rng.standard_normal((2, n))
    low, high = fun(a, b, given)[1:3]
    covered += low < 0 < high
  assert covered >= 0.92 * 400


def test_nothing_to_correlate_gives_no_number():
  for fun in (claims.partial_spearman, claims.partial_correlation):
    few = fun([1, 2, 3], [1, 2, 3], np.zeros((3, 0)))
    constant = fun(np.ones(9), range(9), np.zeros((9, 0)))
    zero = fun(range(9), np.zeros(9), np.zeros((9, 0)))
    given = fun(range(9), np.arange(9) % 4, np.arange(9.0)[:, None])
    for found in (few, constant, zero, given):
      assert math.isnan(found.value) and found[1:3] == (-1.0, 1.0)


def test_claims_are_complete_data():
  assert list(claims.CLAIMS) == ['C1', 'C2', 'C3', 'C4', 'C5', 'C6']
  for claim in claims.CLAIMS.values():
    assert claim.hypothesis and claim.smallest > 0
    assert f'{claim.smallest:.2g}' in claim.decision
    assert (claim.test == 'chain') == bool(claim.links)
  assert registry.FACTORS == {'lr': 1, 'batch_size': -1}


def test_a_record_without_a_seed_is_refused():
  records = tree(np.random.default_rng(0), 0.1)
  del records[3]['seed']
  with pytest.raises(InputError, match=r"records.*'seed'.*\[3\]"):
    claims.judge(records)


@pytest.mark.parametrize(
  ('name', 'features', 'normalized', 'is_kernel'),
  [
    ('', '', False, False),
    ('softmax', 'softmax', True, False),
    ('linear', 'elu1', True, True),
    ('elu1_none', 'elu1', False, True),
    ('relu2_rms', 'relu2', False, True),
    ('sigmoid_pointwise', 'sigmoid_pointwise', False, True),
    ('linear_none', 'elu1', False, True),
    ('hedgehog', 'hedgehog', True, True),
    ('taylor2', 'taylor2', True, True),
    ('favor', 'favor', True, True),
    ('cosformer', 'cosformer', True, True),
    ('favor_rms', 'favor', False, True),
    ('of_another_version', 'of_another_version', None, True),
  ],
)
def test_names_of_kernels(name, features, normalized, is_kernel):
  assert kernel(name) == {
    'kernel': is_kernel, 'features': features, 'normalized': normalized
  }  # fmt: skip


@pytest.mark.parametrize('name', models.KERNELS)
def test_a_kernel_is_normalized_if_its_rows_sum_to_one(name):
  q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 4, 1, 3))
  grid = (2, 2) if name.startswith('cosformer') else None
  _, a = attention.attend(name, q, k, v, grid=grid, return_weights=True)
  one = bool(jnp.allclose(a.sum(-1), 1, atol=1e-3))
  assert kernel(name)['normalized'] == one


def test_kernels_of_one_feature_map_are_pairs_under_any_name():
  """C6 compares without the row sum and with it, for the same features."""
  effects = {'linear': 0.0, 'linear_none': 0.3, 'hedgehog': 0.0}
  records = softmax_and_kernels(
    np.random.default_rng(0), effects | {'hedgehog_none': 0.3}
  )
  cells = claims.judge_one(claims.CLAIMS['C6'], records).cells
  assert {c.fields['features'] for c in cells} == {'elu1', 'hedgehog'}
  assert {c.verdict for c in cells} == {'supported'}


def write_run(folder, lr, seed, shift):
  """A run directory as training and evaluation leave it."""
  (folder / 'evaluation').mkdir(parents=True)
  config = {
    'seed': seed,
    'model': {'name': 'vit', 'activation': 'gelu', 'attention': 'linear'},
    'data': {'name': 'digits', 'batch_size': 64, 'label_noise': 0.2},
    'optim': {'lr': lr, 'momentum': 0.9, 'weight_decay': 0.0},
    'loss': {'name': 'cross_entropy'},
  }
  (folder / 'config.json').write_text(json.dumps({'config': config}))
  lines = [
    {'step': 0, 'param/lambda_max': 9.0, 'input/lambda_max': 1.0},
    {'step': 50, 'param/lambda_max': 4.0, 'time/steps_per_s': 10.0},
    {'step': 100, 'param/lambda_max': 1.0, 'input_loss/lambda_max': 3.0},
  ]
  text = '\n'.join(map(json.dumps, lines)) + '\n{"step": 110, "par'
  (folder / 'metrics.jsonl').write_text(text)
  mean = lambda value: {'mean': value, 'low': 0, 'high': 1, 'n': 3}
  rows = [
    {
      'attribution': name, 'attack': attack, 'n': 3, 'n_kept': 3, 'eps': 0.03,
      'metrics': {'topk': mean(value + shift)},
      'faithfulness': {'deletion_auc': mean(0.2)},
    }
    for name in ('gradient', 'rollout')
    for attack, value in (('topk', 0.5), ('random_sign', 0.9))
  ]  # fmt: skip
  value = {
    'checkpoint': 'last', 'step': 60, 'clean': {'accuracy': 0.95},
    'rows': rows, 'settings': {'target': 'logit'},
  }  # fmt: skip
  (folder / 'evaluation' / 'last.json').write_text(json.dumps(value))
  scores = np.array([0.4, 0.5, 0.6, 0.0], np.float32) + shift
  arrays = {'correct/gradient': np.array([True, True, True, False])}
  arrays['score/gradient/topk/topk'] = scores
  np.savez_compressed(folder / 'evaluation' / 'last.npz', **arrays)


def test_a_tree_of_run_directories_is_read_and_judged(tmp_path):
  for seed in range(3):
    for lr in (0.1, 0.3):
      write_run(tmp_path / f'{lr}' / f'{seed}', lr, seed, 0.1 * (lr == 0.3))
  broken, empty = tmp_path / 'broken', tmp_path / 'empty'
  for folder, text in ((broken, '{"conf'), (empty, '{"config": {}}')):
    folder.mkdir()
    (folder / 'config.json').write_text(text)
  records, problems = claims.read(tmp_path)
  assert len(records) == 12
  assert problems == {
    str(broken): 'is left out: config.json is there, but cannot be read',
    str(empty): 'is left out: config.json holds no config',
  }
  found = next(
    r for r in records
    if (r['lr'], r['seed'], r['map']) == (0.3, 2, 'gradient')
  )  # fmt: skip
  wanted = {
    'rule': 'last', 'target': 'logit', 'family': 'gradient', 'attack': 'topk',
    'attention': 'linear', 'features': 'elu1', 'normalized': True,
    'label_noise': 0.2, 'momentum': 0.9, 'accuracy': 0.95, 'topk': 0.6,
    'random_topk': 1.0, 'deletion_auc': 0.2, 'lambda_max': 4.0,
    'input_lambda': 1.0, 'objective': 'none',
  }  # fmt: skip
  assert {key: found[key] for key in wanted} == wanted
  np.testing.assert_allclose(found['speed'], -math.log(6))
  np.testing.assert_allclose(
    found['examples']['topk'], [0.5, 0.6, 0.7, np.nan], rtol=1e-6
  )
  families = {r['map']: r['family'] for r in records}
  assert families == {'gradient': 'gradient', 'rollout': 'attention'}
  verdict = claims.judge_one(claims.CLAIMS['C1'], records)
  (cell,) = verdict.cells
  assert cell.verdict == 'supported' and cell.seeds == 3 and not cell.primary
  assert verdict.verdict == 'not enough runs'
  assert 'no two arms have the primary endpoint, log2_eps50' in verdict.reason
  assert 'secondary, deciding nothing: of 1 cells 1 supp' in verdict.reason
  np.testing.assert_allclose(cell.estimate.value, 0.1, rtol=1e-6)


def test_a_folder_that_is_none_is_refused(tmp_path):
  with pytest.raises(InputError, match='must be a folder of runs'):
    claims.read(tmp_path / 'nowhere')


def test_a_claim_of_your_own_is_judged_as_the_docs_show():
  page = pathlib.Path(__file__).parent.parent / 'docs' / 'theory.md'
  code = page.read_text().split('## Adding a claim')[1].split('```python')[1]
  claim = eval(code.split('```')[0], {'Claim': claims.Claim})
  records = tree(np.random.default_rng(0), 0.3, momentum=0.9)
  records += tree(np.random.default_rng(0), -0.3, momentum=0.0)
  for record in records:
    record['topk'] = record['log2_eps50']
  found = claims.judge_one(claim, records)
  assert found.verdict == 'supported' and len(found.cells) == 2


def test_no_runs_at_all_have_no_correlation():
  found = claims.partial_spearman([], [], np.zeros((0, 1)))
  assert np.isnan(found.value) and (found.low, found.high, found.n) == (
    -1,
    1,
    0,
  )


SCATTERS = (0.05, 0.1, 0.3, 1.0)


def chain(rng, scatter, *, mediated, seeds=5, lrs=3, batches=3, uneven=0.0):
  """Runs in which rate and batch move both curvatures along curves; only if
  `mediated` does the input follow the parameters from seed to seed as well.
  The largest rate scatters by exp(uneven) times the least."""
  bends, found = rng.uniform(-2, 2, 2), []
  luck = 0.5 * scatter * rng.standard_normal((seeds, 2))
  for seed, i, j in itertools.product(range(seeds), range(lrs), range(batches)):
    a, b = i / (lrs - 1), j / (batches - 1)
    noise = scatter * math.exp(uneven * (a - 0.5)) * rng.standard_normal(3)
    bend = -3 * a + b + bends[0] * a**2 + luck[seed, 0] + noise[0]
    beside = -3 * a**2 + b + bends[1] * a + luck[seed, 1] + noise[1]
    inside = bend + noise[1] if mediated else beside
    found.append({
      'lr': 0.01 * 10**a, 'batch_size': 16 * 2**j, 'seed': seed,
      'map': 'gradient', 'family': 'gradient', 'objective': 'none',
      'rule': 'train_loss', 'train_lambda_max': math.exp(bend),
      'input_lambda': math.exp(inside),
      'normalized_curvature': math.exp(inside),
      'log2_eps50': -inside + noise[2],
    })  # fmt: skip
  return found


def chains_supported(scatter, trees, **options):
  rngs = [np.random.default_rng(i) for i in range(trees)]
  found = [
    claims.judge_one(claims.CLAIMS['C2'], chain(rng, scatter, **options))
    for rng in rngs
  ]
  return sum(f.verdict == 'supported' for f in found)


@pytest.mark.slow
@pytest.mark.parametrize('seeds', [3, 5])
@pytest.mark.parametrize('scatter', SCATTERS)
def test_curvatures_side_by_side_are_no_chain(scatter, seeds):
  made = chains_supported(scatter, TREES, mediated=False, seeds=seeds)
  assert made <= 5


@pytest.mark.slow
@pytest.mark.parametrize('seeds', [3, 4, 5])
def test_nor_are_they_where_some_settings_scatter_more(seeds):
  options = {'mediated': False, 'seeds': seeds, 'uneven': 1.5}
  assert chains_supported(0.1, TREES, **options) <= 5


@pytest.mark.slow
@pytest.mark.parametrize('seeds', [3, 4, 5])
@pytest.mark.parametrize('scatter', SCATTERS)
def test_a_mediated_chain_is_found(scatter, seeds):
  assert chains_supported(scatter, TREES, mediated=True, seeds=seeds) >= 80


@pytest.mark.parametrize('scatter', SCATTERS[::3])
def test_a_chain_can_fail_and_can_hold(scatter):
  assert chains_supported(scatter, 10, mediated=False) <= 1
  assert chains_supported(scatter, 10, mediated=True) >= 7


def test_a_chain_reads_the_whole_training_set_only_where_all_runs_have_it():
  records = chain(np.random.default_rng(0), 0.3, mediated=True)
  (cell,) = claims.judge_one(claims.CLAIMS['C2'], records).cells
  assert 'lr → train_lambda_max' in cell.beside
  for record in records:
    record['lambda_max'] = record['train_lambda_max']
  del records[0]['train_lambda_max']
  (cell,) = claims.judge_one(claims.CLAIMS['C2'], records).cells
  assert 'lr → lambda_max' in cell.beside


@pytest.mark.parametrize('seeds', [3, 5])
@pytest.mark.parametrize('sizes', [(1, 0, 1), (0, 1, 1), (0.3, 0.3, 1)])
def test_an_interval_covers_as_often_as_it_says(seeds, sizes):
  """Scatter of seeds, of examples and of both; 2,000 tables each."""
  rng, covered = np.random.default_rng(0), 0
  of_seed, of_example, of_both = sizes
  for _ in range(2000):
    table = of_seed * rng.standard_normal((seeds, 1))
    table = table + of_example * rng.standard_normal((1, 24))
    table = table + of_both * rng.standard_normal((seeds, 24))
    found = claims.paired_mean(table)
    covered += found.low < 0 < found.high
  assert covered >= 0.93 * 2000


@pytest.mark.slow
@pytest.mark.parametrize('seeds', [3, 5])
def test_48_null_cells_hold_a_discovery_in_at_most_5_of_100_trees(seeds):
  maps = tuple(f'map_{i}' for i in range(24))
  held = 0
  for i in range(TREES):
    records = tree(np.random.default_rng(i), 0.0, seeds=seeds, maps=maps)
    cells = claims.judge_one(claims.CLAIMS['C1'], records).cells
    assert len(cells) == 48
    held += any(c.verdict in ('supported', 'reversed') for c in cells)
  assert held <= 5


@pytest.mark.slow
@pytest.mark.parametrize(('seeds', 'effect'), [(3, 0.24), (5, 0.12)])
def test_planted_effects_are_found_with_few_seeds(seeds, effect):
  make = lambda rng: tree(rng, effect, seeds=seeds)
  assert share('C1', make, 'supported') >= 95


def test_a_cell_whose_ends_lost_unequal_numbers_is_undecided():
  records = tree(np.random.default_rng(0), 0.3)
  top = [r for r in records if r['lr'] == LRS[-1] and r['seed'] == 3]
  for record in top:
    records.append(record | {'seed': 4, 'absent': 'diverged', 'map': None})
  cells = claims.judge_one(claims.CLAIMS['C1'], records).cells
  (cell,) = [c for c in cells if c.fields['factor'] == 'lr']
  assert cell.verdict == 'undecided' and cell.lost == (0, 2)
  assert 'unbalanced: 0 runs lost at one end, 2 at the other' in cell.reason
  (cell,) = [c for c in cells if c.fields['factor'] == 'batch_size']
  assert cell.verdict == 'supported' and cell.lost == (1, 1)


def test_a_floor_is_said_and_is_not_called_no_effect():
  records = tree(np.random.default_rng(0), 0.0)
  for record in records:
    record['examples'] = {}
    record['log2_eps50'] = -8 + 1e-3 * record['seed'] * record['lr']
    record['censored_below'] = 0.95
  cells = claims.judge_one(claims.CLAIMS['C1'], records).cells
  assert {c.verdict for c in cells} == {'undecided'}
  assert all('over 90 % of images below all radii' in c.reason for c in cells)
  for record in records:
    record['censored_below'] = 0.5
  cells = claims.judge_one(claims.CLAIMS['C1'], records).cells
  assert {c.verdict for c in cells} == {'no effect of interest'}


def test_runs_that_end_without_their_rule_have_a_record_that_says_so(tmp_path):
  write_run(tmp_path / 'a', 0.1, 0, 0.0)
  write_run(tmp_path / 'b', 0.3, 0, 0.0)
  for name, status in (('a', 'finished'), ('b', 'diverged')):
    file = tmp_path / name / 'config.json'
    value = json.loads(file.read_text())
    value['config']['train'] = {'milestones': {'train_loss': 0.01}}
    file.write_text(json.dumps(value))
    file = tmp_path / name / 'status.json'
    file.write_text(json.dumps({'status': status, 'step': 9, 'message': ''}))
  records, _ = claims.read(tmp_path)
  found = {
    (r['lr'], r['rule'], r['absent']) for r in records if r.get('absent')
  }
  assert found == {
    (0.1, 'train_loss', 'never reached'), (0.3, 'train_loss', 'diverged'),
    (0.3, 'last', 'diverged'),
  }  # fmt: skip
