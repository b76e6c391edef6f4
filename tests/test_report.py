"""Does a run directory become a page that is right and needs nothing else?"""

import base64
import html
import html.parser
import json
import re
import shutil

import numpy as np
import pytest

from implicit_attr import errors, report
from implicit_attr.report import (
  canvas,
  curvature_scatter,
  curves,
  maps,
  summary,
)
from implicit_attr.runs import records

MEAN = 0.41234
FILES = ('config.json', 'metrics.jsonl', 'evaluation/last.json')


def estimate(mean):
  return {'mean': mean, 'low': mean - 0.0213, 'high': mean + 0.0187}


def make_run(path):
  """A finished run of two maps and two checkpoints, small and made up."""
  noise = np.random.default_rng(0)
  (path / 'evaluation').mkdir(parents=True)
  config = {
    'seed': 3,
    'model': {'name': 'cnn', 'activation': 'softplus', 'note': '<b>&</b>'},
    'data': {'name': 'digits', 'batch_size': 32, 'label_noise': 0.2},
    'optim': {'name': 'sgd', 'lr': 0.1, 'momentum': 0.0},
    'loss': {'name': 'cross_entropy'},
    'train': {'duration': '4 epochs'},
  }
  about = {
    'argv': ['main.py', '--config=c.py'],
    'versions': {'python': '3.11.7', 'jax': '0.10.2'},
    'git': {'commit': 'abc123', 'dirty': False},
    'device': {'platform': 'cpu', 'kind': 'cpu', 'count': 1},
  }
  (path / 'config.json').write_text(json.dumps({'config': config, **about}))
  lines = []
  for step in range(0, 50, 10):
    line = {'step': step, 'train/loss': 2.0 / (1 + step), 'time/wall_s': step}
    line |= {
      key: float(noise.uniform(1, 2))
      for key in (
        'eval/loss', 'eval/accuracy', 'param/lambda_max', 'param/trace',
        'param/lambda_max_residual', 'param/trace_se', 'param/edge',
        'param/batch_sharpness', 'param/batch_sharpness_se', 'logit/scale',
        'param/w1_norm', 'align/w1_sq_lambda', 'logit/margin',
        'align/mean_input_lambda',
        *(
          f'{prefix}/{name}'
          for prefix in ('input', 'input_loss')
          for name in ('grad_norm', 'lambda_max', 'normalized_curvature')
        ),
      )
    }  # fmt: skip
    line['train/accuracy'] = None if step == 20 else 0.5  # a NaN, as on disk
    lines.append(line)
  lines.append({'step': 30, 'event': 'milestone', 'message': 'loss <= 0.1'})
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (path / 'metrics.jsonl').write_text(text)
  images = noise.uniform(size=(2, 8, 8, 1))
  for name, shift in (('last', 0.0), ('train_loss', 0.1)):
    rows, arrays = [], {'images': images, 'labels': [3, 4]}
    for number, method in enumerate(('gradient', 'integrated_gradients')):
      arrays[f'map/{method}/clean'] = noise.normal(size=images.shape)
      arrays[f'curve/{method}/topk'] = np.linspace(1, 0.5, 6)
      for attack in ('topk', 'random_sign'):
        mean = MEAN + shift + 0.05 * number + 0.3 * (attack != 'topk')
        rows.append({
          'attribution': method, 'attack': attack, 'eps': 0.03,
          'n': 256, 'n_kept': 251,
          'metrics': {'topk': estimate(mean), 'kendall': estimate(-mean)},
          'faithfulness': {'deletion_auc': estimate(0.2)},
        })  # fmt: skip
        arrays[f'adv/{method}/{attack}'] = images + 0.03
        arrays[f'map/{method}/{attack}'] = noise.normal(size=images.shape)
        arrays[f'score/{method}/{attack}/topk'] = np.full(256, mean)
    found = {
      'checkpoint': name,
      'step': 40,
      'clean': {'accuracy': 0.9777, 'n': 360, 'loss': 0.08},
      'settings': {'eps': 0.03, 'steps': 6, 'k': 6, 'target': 'logit'},
      'rows': rows,
    }
    (path / f'evaluation/{name}.json').write_text(json.dumps(found))
    np.savez(path / f'evaluation/{name}.npz', **arrays)
  return path


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run with its report, drawn in full; tests do not change it."""
  path = make_run(tmp_path_factory.mktemp('a') / 'run')
  report.write(path)
  return path


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A run of which the report is written without rendering any figure."""

  def save(target, folder, name, alt):
    path = folder / f'{name}.png'
    records.write_file(path, lambda file: file.write(b'not drawn'))
    return canvas.Image(path, alt, 3.5)

  monkeypatch.setattr(canvas, 'save', save)
  return make_run(tmp_path / 'run')


def text_of(path):
  """The page without its tags."""
  page = re.sub(
    r'<(style|title|script)>.*?</\1>', ' ', path.read_text(), flags=re.S
  )
  page = re.sub(r'</?(sub|b|span)[^>]*>', '', page)
  return ' '.join(html.unescape(re.sub(r'<[^>]*>', ' ', page)).split())


def test_page_and_every_figure_are_written(finished):
  figures = sorted(path.stem for path in (finished / 'figures').glob('*.png'))
  for name in (
    'loss', 'accuracy', 'sharpness', 'trace', 'input_lambda_max', 'logit_scale',
    'input_loss_normalized_curvature', 'first_layer', 'margin', 'strength',
    'relation_logit', 'robustness_topk', 'maps_gradient',
  ):  # fmt: skip
    assert name in figures
  for name in figures:
    data = (finished / 'figures' / f'{name}.png').read_bytes()
    assert data.startswith(b'\x89PNG') and len(data) > 5000
    vector = (finished / 'figures' / f'{name}.svg').read_bytes()
    assert b'<svg' in vector and len(vector) > 5000
  page = (finished / 'report.html').read_text()
  assert page.startswith('<!doctype html>')
  assert page.count('<img ') == len(figures)


def test_page_needs_nothing_else_and_its_one_script_loads_nothing(finished):
  page = (finished / 'report.html').read_text()
  assert 'http' not in page and 'url(' not in page and '@import' not in page
  assert 'fetch(' not in page and 'innerHTML' not in page
  seen, scripts = [], []

  class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
      assert tag not in ('link', 'iframe', 'object')
      if tag == 'script':
        scripts.append(attributes)
      for name, value in attributes:
        assert name != 'href' and not name.startswith('on')
        if name == 'src':
          seen.append(value)
          assert value.startswith(
            ('data:image/svg+xml;base64,', 'data:image/png;base64,')
          )

  Reader().feed(page)
  assert seen and scripts == [[]]
  for source in seen:  # an image in a page may not load another one either
    if 'png' in source[:20]:
      continue
    vector = base64.b64decode(source.partition(',')[2]).decode()
    links = re.findall(r'(?:href="|url\()([^")]*)', vector)
    assert all(link.startswith(('#', 'data:')) for link in links)
    assert '<script' not in vector


def test_same_files_give_the_same_figures(finished, tmp_path):
  found = report.load(finished)
  with canvas.drawing():
    images = (
      *curvature_scatter.draw(found, tmp_path).images,
      *maps.draw(found.evaluations['last'], tmp_path).images,
    )
  assert len(images) == 5
  for image in images:
    for path in (image.path, image.path.with_suffix('.svg')):
      before = finished / 'figures' / path.name
      assert path.read_bytes() == before.read_bytes()


def test_same_files_give_the_same_page(run):
  page = report.write(run).read_bytes()
  assert report.write(run).read_bytes() == page


def test_tables_hold_the_numbers_of_the_json(finished):
  text = text_of(finished / 'report.html')
  for name in ('last', 'train_loss'):
    found = json.loads((finished / f'evaluation/{name}.json').read_text())
    for row in found['rows']:
      for value in (
        *row['metrics'].values(),
        row['faithfulness']['deletion_auc'],
      ):
        mean, low, high = (
          f'{value[part]:.3f}'.replace('-', '\u2212')
          for part in ('mean', 'low', 'high')
        )
        assert f'{mean} [{low}, {high}]' in text
  assert 'clean accuracy 97.8 % (n = 360)' in text
  assert '256 251' in text


def test_reader_learns_what_was_trained_on_what(finished):
  text = text_of(finished / 'report.html')
  for part in (
    'A CNN with softplus activations was trained on digits',
    '20.0 % of the training labels drawn at random',
    'SGD, learning rate 0.1, batches of 32, for 4 epochs; seed 3',
    'jax 0.10.2', 'abc123', 'loss <= 0.1', 'random signs: 0.712',
  ):  # fmt: skip
    assert part in text


def test_reader_learns_at_which_milestone_a_run_ended(finished):
  run = report.load(finished)
  assert 'milestone' not in summary.story(run)[1]
  run.config['train']['stop_at'] = 'train_loss'
  said = 'for 4 epochs or until its milestone of the train loss; seed 3'
  assert said in summary.story(run)[1]


def test_config_values_are_escaped(finished):
  page = (finished / 'report.html').read_text()
  assert '<b>&</b>' not in page
  assert html.escape('<b>&</b>') in page


@pytest.mark.parametrize(
  'name', [*FILES, 'evaluation/last.npz', 'evaluation/train_loss.json']
)
@pytest.mark.parametrize('how', ['missing', 'cut'])
def test_report_without_a_file_says_so(run, name, how):
  path = run / name
  data = path.read_bytes()
  path.unlink()
  if how == 'cut' and name != 'metrics.jsonl':
    path.write_bytes(data[: len(data) // 2])
    assert f'{name} is there, but cannot be read' in text_of(report.write(run))
  elif how == 'cut':
    path.write_bytes(data[:-7])
    assert name not in report.load(run).problems
    report.write(run)
  else:
    assert f'{name} is not there' in text_of(report.write(run))


def test_report_of_a_run_that_was_killed_at_once_is_a_page(tmp_path):
  (tmp_path / 'metrics.jsonl').touch()
  text = text_of(report.write(tmp_path))
  assert 'config.json is not there' in text
  assert 'no curve to show' in text and 'no robustness to show' in text


def test_an_empty_folder_has_no_report(tmp_path):
  with pytest.raises(errors.InputError, match='a run, or a folder of runs'):
    report.write(tmp_path)
  assert not list(tmp_path.iterdir())


def test_half_a_line_of_metrics_is_not_read(run):
  with (run / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 990, "train/lo')
  steps, _ = report.load(run).series('train/loss')
  assert steps.tolist() == [0, 10, 20, 30, 40]


def test_null_becomes_nan_and_keeps_its_step(run):
  steps, values = report.load(run).series('train/accuracy')
  assert steps.tolist() == [0, 10, 20, 30, 40]
  assert np.flatnonzero(np.isnan(values)).tolist() == [2]
  assert report.load(run).last('train/accuracy') == (40, 0.5)


def test_unfinished_and_diverged_runs_say_so_first(run):
  assert 'interrupted' not in text_of(report.write(run))
  (run / 'evaluation/last.json').unlink()
  assert 'interrupted or is still running' in text_of(report.write(run))
  with (run / 'metrics.jsonl').open('a') as file:
    event = {'step': 41, 'event': 'diverged', 'message': 'loss is not finite.'}
    file.write(json.dumps(event) + '\n')
  text = text_of(report.write(run))
  assert 'diverged at update 41: loss is not finite. What follows' in text
  assert 'interrupted' not in text


def test_whatever_was_logged_or_kept_is_shown_without_a_list_to_edit(run):
  """A probe of one's own: a scalar, a number an example, a number a head."""
  before = len(re.findall('<img ', report.write(run).read_text()))
  text = (run / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  for line in lines:
    line |= {'mine/scalar': 1.5, 'input/mine': 0.5, 'mine/word': 'no number'}
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (run / 'metrics.jsonl').write_text(text)
  (run / 'probes').mkdir()
  for step in (0, 40):
    np.savez(
      run / 'probes' / f'{step:08d}.npz', index=np.arange(9),
      **{'input/mine': np.arange(9.0), 'mine/heads': np.ones((2, 4))},
    )  # fmt: skip
  page = report.write(run).read_text()
  assert len(re.findall('<img ', page)) == before + 3
  for key in ('mine/scalar', 'input/mine', 'mine/heads'):
    assert f'alt="{key}: {key}, over the updates"' in page
  assert 'mine/word' not in page and '="index:' not in page


def test_quartiles_are_those_of_the_finite_numbers_of_a_step():
  values = np.array([[4.0, 1.0], [np.nan, 2.0], [3.0, 0.0]])
  words = np.array(['a', 'b'])
  found = curves.quartiles({10: {'a/b': values, 'c': words}, 5: {}})
  assert list(found) == ['a/b']
  wanted = [10, *np.quantile([0, 1, 2, 3, 4], (0.25, 0.75))]
  assert found['a/b'].ravel().tolist() == wanted


def test_milestones_are_events(run):
  with (run / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 45, "milestone/train_loss": 45}\n')
  page = report.write(run)
  assert '45 milestone equal training loss' in text_of(page)
  assert 'milestone/' not in page.read_text()


@pytest.mark.parametrize('line', ['', '5', '{"step": "1"}', '{"ste'])
def test_a_damaged_line_is_named_first_and_the_rest_is_drawn(run, line):
  whole = (run / 'metrics.jsonl').read_text()
  figures = len(re.findall('<img ', report.write(run).read_text()))
  (run / 'metrics.jsonl').write_text(f'{line}\n{whole}')
  page = report.write(run)
  text = text_of(page)
  said = 'metrics.jsonl cannot be read in line 1'
  assert text.count(said) == 2 and text.index(said) < text.index('Training')
  assert len(re.findall('<img ', page.read_text())) == figures


def test_bad_folders_end_in_one_line(run, tmp_path):
  with pytest.raises(errors.InputError, match=r"--workdir='.*nowhere'"):
    report.write(tmp_path / 'nowhere')
  shutil.rmtree(run / 'figures', ignore_errors=True)
  (run / 'figures').write_text('a file where a folder should be')
  with pytest.raises(errors.InputError, match='can be written'):
    report.write(run)


def test_momentum_raises_the_edge(run):
  config = json.loads((run / 'config.json').read_text())
  assert '2/η' in text_of(report.write(run))
  config['config']['optim']['momentum'] = 0.9
  (run / 'config.json').write_text(json.dumps(config))
  text = text_of(report.write(run))
  assert '2(1+β)/η' in text and 'against 2/η' not in text
