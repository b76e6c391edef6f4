"""Does a folder of runs become a page that is right and needs nothing else?"""

import html
import html.parser
import itertools
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from implicit_attr import claims, errors, report
from implicit_attr.report import (
  arms,
  canvas,
  correlations,
  example_maps,
  heat,
  overview,
  sweep,
  sweep_runs,
  trajectories,
  verdicts,
)
from implicit_attr.report.colours import Shades, of_runs
from implicit_attr.runs import records

RATES, BATCHES = (0.1, 0.3), (16, 64)
LOSSES = ('cross_entropy', 'squared_error')
EVIL = '<script>alert(1)</script>'


def write_run(folder, rng, *, lr=0.1, batch=16, seed=0, loss=LOSSES[0],
              gain=0.0, maps=('gradient',), rules=('last', 'train_loss'),
              attention='', examples=12, points=3, **model):  # fmt: skip
  """One run whose top-k is 0.6 + gain, its files as training leaves them."""
  (folder / 'evaluation').mkdir(parents=True)
  config = {
    'seed': seed,
    'model': {'name': 'mlp', 'attention': attention, **model},
    'data': {'name': 'digits', 'batch_size': batch},
    'optim': {'name': 'sgd', 'lr': lr, 'momentum': 0.0},
    'loss': {'name': loss},
    'objective': {'name': 'none', 'weight': None},
  }
  (folder / 'config.json').write_text(json.dumps({'config': config}))
  bend = float(np.exp(-3 * gain + 0.1 * rng.standard_normal()))
  lines = [
    {
      'step': 10 * i, 'param/lambda_max': (i + 1) * bend, 'param/trace': 2.0,
      'param/edge': 2 / lr, 'input/lambda_max': bend, 'time/steps_per_s': 5.0,
      'input_loss/lambda_max': 0.1 * bend, 'eval/accuracy': 0.9 + 0.1 * gain,
      'input/normalized_curvature': bend, 'align/w1_sq_lambda': 9 * bend,
      'align/mean_input_lambda': bend,
      **({'attention/entropy_ratio': 0.5 + gain} if attention else {}),
    }
    for i in range(points)
  ]  # fmt: skip
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)
  status = {'status': 'finished', 'step': 10 * (points - 1), 'message': ''}
  (folder / 'status.json').write_text(json.dumps(status))
  for rule in rules:
    rows, arrays = [], {'images': np.zeros((2, 4, 4, 1))}
    for name, attack in itertools.product(maps, ('topk', 'random_sign')):
      noise = attack == 'random_sign'
      values = 0.6 + gain + 0.3 * noise + 0.02 * rng.standard_normal(examples)
      estimate = {'mean': float(values.mean()), 'low': 0.0, 'high': 1.0}
      rows.append({
        'attribution': name, 'attack': attack, 'eps': 0.03,
        'n': examples, 'n_kept': examples,
        'metrics': {
          'topk': estimate,
          'log2_eps50': {k: 5 * v for k, v in estimate.items()},
        },
      })  # fmt: skip
      arrays[f'score/{name}/{attack}/topk'] = values
      arrays[f'score/{name}/{attack}/log2_eps50'] = 5 * values
      arrays[f'correct/{name}'] = np.ones(examples, bool)
      arrays[f'map/{name}/clean'] = np.ones((2, 4, 4, 1))
      arrays[f'map/{name}/{attack}'] = np.ones((2, 4, 4, 1))
    value = {
      'checkpoint': rule, 'step': 10, 'clean': {'accuracy': 0.9}, 'rows': rows,
      'settings': {'target': 'logit', 'k': 0.1},
    }  # fmt: skip
    (folder / f'evaluation/{rule}.json').write_text(json.dumps(value))
    np.savez(folder / f'evaluation/{rule}.npz', **arrays)


def make_tree(root, *, seeds=3, effect=0.2, rates=RATES, batches=BATCHES,
              losses=LOSSES, **options):  # fmt: skip
  """A grid: towards large rates and small batches top-k rises by `effect`
  under the first loss and falls under the second."""
  rng = np.random.default_rng(0)
  for loss, lr, batch, seed in itertools.product(
    losses, rates, batches, range(seeds)
  ):
    sign = 1 if loss == LOSSES[0] else -1
    step = rates.index(lr) / (len(rates) - 1)
    down = batches.index(batch) / max(len(batches) - 1, 1)
    write_run(
      root / loss / f'lr={lr},batch={batch}' / f'seed_{seed}', rng,
      lr=lr, batch=batch, seed=seed, loss=loss,
      gain=sign * effect * (step - down) / 2, **options,
    )  # fmt: skip
  return root


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
  """A tree with its page, drawn in full; tests do not change it."""
  root = make_tree(tmp_path_factory.mktemp('a') / 'sweep', attention='softmax',
                   maps=('gradient', 'rollout'))  # fmt: skip
  report.write(root)
  return root


@pytest.fixture
def quick(monkeypatch):
  """No figure is rendered and verdicts are cheap."""

  def save(target, folder, name, alt):
    path = folder / f'{name}.png'
    records.write_file(path, lambda file: file.write(b'not drawn'))
    return canvas.Image(path, alt, 3.5)

  monkeypatch.setattr(canvas, 'save', save)


@pytest.fixture
def small(tmp_path, quick):
  """A tree of four arms and three seeds under one loss."""
  return make_tree(tmp_path / 'sweep', losses=LOSSES[:1], rules=('last',))


def text_of(path):
  """The page without its tags."""
  page = path.read_text()
  page = re.sub(r'<(style|title|script)>.*?</\1>', ' ', page, flags=re.S)
  page = re.sub(r'</?(sub|b|span)[^>]*>', '', page)
  return ' '.join(html.unescape(re.sub(r'<[^>]*>', ' ', page)).split())


def test_page_and_every_figure_are_written(drawn):
  figures = sorted((drawn / 'figures').glob('*.png'))
  names = {path.stem for path in figures}
  assert names >= {
    'heat_accuracy_0', 'heat_lambda_max_1', 'heat_input_curvature_0',
    'heat_topk_gradient_0', 'heat_topk_attention_0', 'trajectory_edge_0',
    'trajectory_lambda_max_0', 'trajectory_input_1', 'link_curvature_0',
    'link_bound_0', 'link_robustness_0', 'link_entropy_0', 'arms_last_0',
    'arms_train_loss_1', 'cost_0', 'effect_C1_lr', 'effect_C1_batch_size',
    'ends_start_0', 'ends_goal_0',
  }  # fmt: skip
  for path in figures:
    assert path.read_bytes().startswith(b'\x89PNG')
  assert (drawn / 'report.html').read_text().count('<img ') == len(figures)


def test_page_needs_nothing_else_and_its_one_script_loads_nothing(drawn):
  page = (drawn / 'report.html').read_text()
  assert page.startswith('<!doctype html>')
  assert 'http' not in page and 'url(' not in page and '@import' not in page
  scripts = []

  class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
      assert tag not in ('link', 'iframe', 'object')
      if tag == 'script':
        scripts.append(attributes)
      for name, value in attributes:
        assert name != 'href' and not name.startswith('on')
        assert name != 'src' or value.startswith(
          ('data:image/svg+xml;base64,', 'data:image/png;base64,')
        )

  Reader().feed(page)
  assert scripts == [[]]
  assert 'fetch(' not in page and 'innerHTML' not in page


def test_verdicts_of_the_page_are_those_of_claims(drawn):
  text = text_of(drawn / 'report.html')
  verdicts = claims.judge(claims.read(drawn)[0])
  assert verdicts[0].verdict == 'depends on loss'
  for verdict in verdicts:
    assert f'{verdict.claim.name} {verdict.verdict}' in text
    assert verdict.claim.hypothesis in text
  for cell in verdicts[0].cells:
    value, low, high = (f'{v:.3f}'.replace('-', '−') for v in cell.estimate[:3])
    sign = '+' if cell.estimate.value > 0 else ''
    assert f'{sign}{value} [{low}, {high}] {cell.verdict} 3' in text
  assert 'Cross entropy: 2 of 2 supported' in text


def test_same_files_give_the_same_page(small):
  page = report.write(small).read_bytes()
  assert report.write(small).read_bytes() == page


def test_a_tree_with_too_few_seeds_says_so_first(tmp_path, quick):
  root = make_tree(tmp_path / 'a', seeds=2, losses=LOSSES[:1])
  text = text_of(report.write(root))
  assert 'Too few seeds: no arm has more than 2, and 3 are needed' in text
  assert text.index('Too few seeds') < text.index('C1')
  assert 'C1 not enough runs' in text and '2 seeds at most' in text


def test_enough_seeds_are_not_called_too_few(small):
  assert 'Too few seeds' not in text_of(report.write(small))
  shutil.rmtree(small / LOSSES[0] / 'lr=0.1,batch=16' / 'seed_2')
  assert '1 of 4 arms have fewer than 3 seeds' in text_of(report.write(small))


def test_write_tells_a_sweep_from_a_run(small, tmp_path):
  one = small / LOSSES[0] / 'lr=0.1,batch=16' / 'seed_0'
  assert sweep_runs.holds_runs(small) and not sweep_runs.holds_runs(one)
  assert 'report of the run' in text_of(report.write(one))
  assert 'report of the sweep' in text_of(report.write(small))
  empty = tmp_path / 'empty'
  empty.mkdir()
  assert not sweep_runs.holds_runs(empty)
  (one / 'config.json').unlink()
  assert not sweep_runs.holds_runs(one)


def test_heat_maps_hold_the_means_of_the_files(small):
  found = sweep_runs.load(small)
  kept = heat.kept_of(found, 'gradient')
  grid = heat._Grid(found.trials, lambda trial: kept[trial.name])
  assert (grid.rates, grid.batches) == (list(RATES), list(BATCHES))
  for row, column in np.ndindex(2, 2):
    arm = f'lr={RATES[column]},batch={BATCHES[row]}'
    wanted = []
    for path in (small / LOSSES[0] / arm).glob('*/evaluation/last.json'):
      rows = json.loads(path.read_text())['rows']
      wanted += [
        r['metrics']['topk']['mean'] for r in rows if r['attack'] == 'topk'
      ]
    assert len(wanted) == 3
    np.testing.assert_allclose(grid.values[row, column], np.mean(wanted))


def test_table_of_runs_holds_attack_and_random_signs(small):
  head, rows = overview.runs(sweep_runs.load(small))
  assert len(rows) == 12
  columns = {name: i for i, name in enumerate(head)}
  for row in rows:
    path = small / row[0][0] / 'evaluation' / 'last.json'
    found = {r['attack']: r for r in json.loads(path.read_text())['rows']}
    for name, attack in (
      ('Top-k at fixed duration', 'topk'), ('Random signs', 'random_sign'),
    ):  # fmt: skip
      text, value = row[columns[name]]
      wanted = found[attack]['metrics']['topk']['mean']
      np.testing.assert_allclose(value, wanted)
      assert text == f'{wanted:.3f}'
    assert row[columns['Time [s]']][0] == '2.00'  # 10 updates, 5 a second
  assert not any('ε50' in name for name in head)  # not at equal loss


def test_table_of_runs_holds_the_radius_at_equal_loss(tmp_path):
  write_run(tmp_path / 'run', np.random.default_rng(0), gain=-0.9)
  head, (row,) = overview.runs(sweep_runs.load(tmp_path))
  found = json.loads((tmp_path / 'run/evaluation/train_loss.json').read_text())
  log2 = found['rows'][0]['metrics']['log2_eps50']['mean']
  value = row[head.index('ε50 [1/255] at equal training loss')][1]
  np.testing.assert_allclose(value, 255 * 2**log2)


def test_failed_and_diverged_runs_are_listed(small):
  arm = small / LOSSES[0] / 'lr=0.3,batch=16'
  for seed in range(3):
    shutil.rmtree(arm / f'seed_{seed}' / 'evaluation')
    status = {'status': 'diverged', 'step': 7, 'message': 'loss is not finite'}
    (arm / f'seed_{seed}' / 'status.json').write_text(json.dumps(status))
  failed = small / 'failed'
  failed.mkdir()
  status = {'status': 'failed', 'step': 0, 'message': EVIL}
  (failed / 'status.json').write_text(json.dumps(status))
  page = report.write(small)
  text = text_of(page)
  assert '4 of 13 runs did not finish: 9 finished, 3 diverged, 1 failed' in text
  assert 'seed_0 diverged 7 loss is not finite' in text
  assert EVIL in text and EVIL not in page.read_text()
  assert html.escape(EVIL) in page.read_text()
  found = sweep_runs.load(small)
  grid = heat._Grid(found.trials, lambda trial: 1.0)
  assert grid.diverged.tolist() == [[False, True], [False, False]]
  assert np.isnan(grid.values[0, 1])


def test_names_of_runs_and_settings_are_escaped(tmp_path, quick):
  rng = np.random.default_rng(0)
  for lr in RATES:
    write_run(tmp_path / '<i>x' / str(lr), rng, lr=lr, name=EVIL)
  page = report.write(tmp_path).read_text()
  assert '<i>' not in page and EVIL not in page
  assert html.escape(EVIL) in page


def test_what_is_not_in_the_tree_is_left_out_with_a_line(small):
  for folder in small.rglob('evaluation'):
    shutil.rmtree(folder)
  for path in small.rglob('metrics.jsonl'):
    path.write_text('{"step": 0, "train/loss": 1.0}\n')
  text = text_of(report.write(small))
  for part in (
    'What changes towards an end of the sweep: no two arms to compare',
    'Test accuracy [%]: no run measured it',
    'Parameter curvature over training: not logged at two points of any run',
    'Parameter curvature against input curvature: parameter and input',
    'The bound from parameter to input curvature: the two sides were not',
    'Curvature against robustness: no run has both',
    'fewer than four runs of a network have both',
    'compared at fixed duration: no evaluation is there',
    'Cost against robustness: no evaluated run logged its speed',
    'No network with attention is in this sweep',
    'no group of runs kept example maps at both ends',
  ):
    assert part in text, part
  assert not list((small / 'figures').glob('*.png'))


def test_whatever_was_logged_is_in_the_table_and_in_the_correlations(small):
  """A probe of one's own, that rises with the top-k kept."""
  kept = heat.kept_of(sweep_runs.load(small), 'gradient')
  for name, value in kept.items():
    with (small / name / 'metrics.jsonl').open('a') as file:
      file.write(json.dumps({'step': 30, 'my/probe': value**3}) + '\n')
  found = sweep_runs.load(small)
  head, rows = overview.runs(found)
  column = head.index('my/probe')
  assert {row[0][0]: row[column][1] for row in rows} == {
    name: value**3 for name, value in kept.items()
  }
  table = correlations.correlations(found)
  (row,) = [row for row, _ in table.rows if row[1] == ('my/probe',)]
  assert row[2][0] == '1.000'
  names = [row[1][0] for row, _ in table.rows]
  assert names[0] == 'λ_max' and 'my/probe' in text_of(report.write(small))


def test_damaged_files_are_named_and_the_rest_of_their_runs_is_shown(small):
  arm = f'{LOSSES[0]}/lr=0.1,batch=16/seed_0'
  path = small / arm / 'metrics.jsonl'
  before = sweep_runs.load(small).trials[0].ends
  path.write_text('[5]\n' + path.read_text())
  found = sweep_runs.load(small)
  assert found.trials[0].ends == before
  text = text_of(report.write(small))
  assert 'Damaged files: 1, listed at the end' in text
  assert f'{arm}/metrics.jsonl cannot be read in line 1.' in text


def test_a_sweep_of_one_arm_has_no_heat_map(tmp_path, quick):
  write_run(tmp_path / 'a' / 'run', np.random.default_rng(0))
  text = text_of(report.write(tmp_path / 'a'))
  assert 'no group of runs varies learning rate or batch size' in text
  assert '1 run of a' in text


@pytest.mark.parametrize('name', [
  'config.json', 'status.json', 'metrics.jsonl', 'evaluation/last.json',
  'evaluation/last.npz',
])  # fmt: skip
@pytest.mark.parametrize('how', ['missing', 'cut', 'nonsense'])
def test_a_run_that_is_cut_short_does_not_stop_the_page(
  tmp_path, quick, name, how
):
  root = make_tree(tmp_path / 'a', seeds=1, losses=LOSSES[:1], rules=('last',))
  path = root / LOSSES[0] / 'lr=0.1,batch=16' / 'seed_0' / name
  data = path.read_bytes()
  path.unlink()
  if how == 'cut':
    path.write_bytes(data[: len(data) // 2])
  elif how == 'nonsense':
    path.write_text('[1, "x"]\n')
  text = text_of(report.write(root))
  assert '4 runs of a' in text


def test_bad_folders_end_in_one_line(small, tmp_path):
  with pytest.raises(errors.InputError, match='a folder with runs in it'):
    sweep.write_sweep(tmp_path / 'nowhere')
  (small / 'figures').write_text('a file where a folder should be')
  with pytest.raises(errors.InputError, match='can be written'):
    report.write(small)


def test_groups_are_named_by_what_tells_them_apart(tmp_path):
  rng = np.random.default_rng(0)
  for i, (width, depth) in enumerate([(8, 1), (8, 1), (16, 2)]):
    write_run(tmp_path / str(i), rng, seed=i, width=width, depth=depth)
  write_run(tmp_path / 'other', rng, loss=LOSSES[1], width=8, depth=1)
  groups = sweep_runs.load(tmp_path).groups
  assert {name: len(runs) for name, runs in groups.items()} == {
    'MLP, digits, cross entropy, width 8': 2,
    'MLP, digits, cross entropy, width 16': 1,
    'MLP, digits, squared error': 1,
  }


def test_arms_of_other_widths_are_not_compared(tmp_path):
  """The wide run has the larger rate: no pair, so no gain."""
  rng = np.random.default_rng(0)
  for seed, (lr, width) in itertools.product(range(3), [(0.1, 8), (0.3, 16)]):
    write_run(tmp_path / f'{lr}{seed}', rng, lr=lr, seed=seed, width=width)
  records, _ = claims.read(tmp_path)
  assert claims.verdicts.gains(records, 'lr', 'topk') == {}
  for record in records:
    record['other'] = ''
  assert sorted(claims.verdicts.gains(records, 'lr', 'topk')) == [0, 1, 2]


def test_arms_of_one_grid_are_compared_both_ways(tmp_path):
  make_tree(tmp_path, losses=LOSSES[:1], rules=('last',))
  records, _ = claims.read(tmp_path)
  for factor in ('lr', 'batch_size'):
    found = claims.verdicts.gains(records, factor, 'topk')
    np.testing.assert_allclose(
      [found[s].mean() for s in range(3)], 0.1, atol=0.02
    )


def test_two_attacks_on_a_run_are_not_two_runs_of_a_chain(tmp_path):
  make_tree(tmp_path, losses=LOSSES[:1], rules=('last',))
  records, _ = claims.read(tmp_path)
  both = records + [record | {'attack': 'mass_center'} for record in records]
  cells = claims.judge_one(claims.CLAIMS['C2'], both).cells
  cells = [cell for cell in cells if cell.fields['measure'] == 'topk']
  assert [cell.fields['attack'] for cell in cells] == ['topk', 'mass_center']
  assert {link.n for cell in cells for link in cell.beside.values()} == {12}


def test_the_course_is_divided_by_the_edge_of_its_own_step(tmp_path):
  make_tree(tmp_path, seeds=1, losses=LOSSES[:1])
  trial = sweep_runs.load(tmp_path).trials[0]
  steps, found = trajectories.edge(trial)
  wanted = trial.curves['param/lambda_max'][1] * trial.lr / 2
  assert steps.tolist() == [0, 10, 20]
  np.testing.assert_allclose(found, wanted)


def test_correlations_are_those_of_scipy(small):
  found = sweep_runs.load(small)
  table = correlations.correlations(found)
  kept = heat.kept_of(found, 'gradient')
  x = [trial.ends['input/normalized_curvature'] for trial in found.trials]
  wanted = stats.spearmanr(x, [kept[t.name] for t in found.trials]).statistic
  row = next(
    r for r, _ in table.rows if r[1] == (correlations.NORMALISED.name,)
  )
  assert row[2][0] == f'{wanted:.3f}'.replace('-', '−')
  assert row[4] == ('12',)


def test_frontier_is_what_nothing_cheaper_equals():
  points = [
    (3, 0.5),
    (1, 0.1),
    (1, 0.2),
    (2, 0.6),
    (2, 0.1),
    (4, 0.6),
    (5, 0.9),
  ]
  beaten = lambda p: any(
    q[0] <= p[0] and q[1] >= p[1] and q != p for q in points
  )
  wanted = sorted(p for p in points if not beaten(p))
  assert arms.frontier(points) == wanted


def test_colours_are_in_order_of_the_rate_and_marks_tell_names_apart(tmp_path):
  make_tree(tmp_path, seeds=1, losses=LOSSES[:1])
  shades, _, what = of_runs(sweep_runs.load(tmp_path))
  assert what == 'learning rate' and shades.values == [0.1, 0.3]
  many = Shades([f'name {i}' for i in range(14)])
  looks = {(many.colour(v), many.mark(v)) for v in many.values}
  assert len(looks) == 14


def test_both_ends_are_those_of_the_claim(small):
  found = sweep_runs.load(small)
  start, goal = example_maps._pair(found.trials)
  assert (start.lr, start.batch) == (0.1, 64)
  assert (goal.lr, goal.batch) == (0.3, 16)
  assert example_maps._pair(found.trials[:1]) == []


def test_words_of_a_reason_are_those_of_the_page():
  found = verdicts._said('lr: 1 of 2 supported; batch_size: 0 of 2 supported')
  assert found == (
    'larger learning rate: 1 of 2 supported; smaller batches: 0 of 2 supported'
  )
  assert verdicts._said('train_loss: 1 of 1') == 'equal training loss: 1 of 1'
  assert verdicts._said('depends on factor') == 'depends on what is varied'


@pytest.mark.slow
def test_200_runs_take_less_than_a_minute_a_gigabyte_and_3_MB(tmp_path):
  make_tree(
    tmp_path, rates=(0.01, 0.03, 0.1, 0.3, 1.0), batches=(16, 64, 256, 1024),
    seeds=5, rules=('last', 'train_loss', 'test_accuracy'), points=60,
    maps=('gradient', 'smoothgrad', 'integrated_gradients', 'grad_cam'),
    examples=256,
  )  # fmt: skip
  code = f"""
import resource, time
from implicit_attr import report
report.write({str(tmp_path)!r})
print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  seconds, kilobytes = map(float, done.stdout.split())
  assert seconds < 60 and kilobytes < 1e6
  assert (tmp_path / 'report.html').stat().st_size < 3 << 20
