"""Is a lane its single run, whatever its neighbours do?"""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from implicit_attr import errors, models, run
from implicit_attr.configs import digits_cnn, digits_mlp, digits_vit
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints, fingerprint
from implicit_attr.runs.metrics import read_metrics
from implicit_attr.runtime import programs
from implicit_attr.train import experiment, lanes, loop, run_folder, spans

STEPS = 6


@pytest.fixture(autouse=True)
def quick():
  """As in :smoke, and back: these are runs of a few steps."""
  programs.set_effort('quick')
  yield
  programs.set_effort('full')


def tiny(module=digits_mlp, **changes) -> dict:
  """A run of seconds; `changes` are fields with '__' for '.'."""
  config = module.get_config('smoke')
  if module is digits_mlp:
    config.model.widths = (8,)
  elif module is digits_cnn:
    config.model.update({'width': 4, 'depth': 1, 'hidden': 0})
  config.train.update({'duration': f'{STEPS} steps', 'log_every': '2 steps'})
  config.train.eval_every = '3 steps'
  config.track.update({'every': '6 steps', 'examples': 4})
  config.track.update({'order': 3, 'input_order': 2})
  config.evaluation.update({'steps': 2, 'examples': 6, 'batch_size': 4})
  config.checkpoint.every = '2 steps'
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return config.to_dict()


def plain(module=digits_mlp, **changes) -> dict:
  """Training alone: nothing is measured but the scores."""
  return tiny(module, **{'track__every': 'never', **changes})


def single(config: dict, workdir: pathlib.Path) -> None:
  run.train(run.build([config]), [workdir])


def alone(config: dict, workdir: pathlib.Path) -> run_folder.RunFolder:
  built = experiment.build(config)
  return loop.train(lanes.Lanes.of([built]), [workdir])[0]


def folders(root: pathlib.Path, count: int) -> list[pathlib.Path]:
  return [root / str(i) for i in range(count)]


def train(configs: list[dict], workdirs: list[pathlib.Path]) -> list[int]:
  over = lanes.Lanes.of([experiment.build(c) for c in configs])
  runs = loop.train(over, workdirs)
  return [i for i, one in enumerate(runs) if not one.diverged]


def lines(workdir: pathlib.Path) -> list[dict]:
  """metrics.jsonl without what a clock wrote."""
  return [
    {k: v for k, v in line.items() if not k.startswith('time/')}
    for line in read_metrics(workdir)
  ]


def checkpoint(config: dict, workdir: pathlib.Path, name: str):
  like = experiment.build(config).like()
  content = {'state': like}
  if name == 'rolling':
    content['memory'] = like.params
  kept = Checkpoints(workdir / 'checkpoints' / name)
  try:
    return kept.newest(content)
  finally:
    kept.close()


def close(a, b, rtol=1e-5) -> None:
  """Two values of JSON, or trees of arrays, equal to `rtol`."""
  if isinstance(a, dict):
    assert a.keys() == b.keys()
    for key in a:
      close(a[key], b[key], rtol)
  elif isinstance(a, list):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
      close(x, y, rtol)
  elif isinstance(a, int | float | np.ndarray | np.generic):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())
  else:
    assert a == b


def same_run(config, lane: pathlib.Path, alone: pathlib.Path, rtol=1e-5):
  """Every file of two run directories says the same."""
  names = lambda root: {
    str(path.relative_to(root))
    for path in root.rglob('*')
    if path.is_file() and 'checkpoints' not in path.parts
  }
  assert names(lane) == names(alone)
  for name in names(lane) - {'metrics.jsonl', 'config.json'}:
    if name.endswith('.json'):
      read = lambda root, name=name: json.loads((root / name).read_text())
    else:
      read = lambda root, name=name: dict(np.load(root / name))
    close(read(lane), read(alone), rtol)
  close(lines(lane), lines(alone), rtol)
  assert records.read_config(lane)['config'] == json.loads(json.dumps(config))
  kept = lambda root: {p.name for p in (root / 'checkpoints').glob('*/*')}
  assert kept(lane) == kept(alone)
  for name in ('rolling', 'last', 'train_loss', 'test_accuracy'):
    found, other = (checkpoint(config, w, name) for w in (lane, alone))
    if found is None:
      assert other is None
      continue
    assert found[0] == other[0]
    for a, b in zip(*map(jax.tree.leaves, (found[1], other[1])), strict=True):
      close(np.asarray(a), np.asarray(b), rtol)


EVERY_FIELD = (
  {'optim__lr': 0.3, 'seed': 3, 'optim__momentum': 0.9,
   'optim__weight_decay': 1e-3, 'loss__label_smoothing': 0.0,
   'objective__weight': 0.2, 'model__beta': 4.0},
  {'optim__lr': 0.05, 'seed': 7, 'optim__momentum': 0.5,
   'optim__weight_decay': 1e-2, 'loss__label_smoothing': 0.1,
   'objective__weight': 0.4, 'model__beta': 8.0},
)  # fmt: skip


def test_a_lane_is_its_single_run_in_every_traced_field(tmp_path):
  common = {
    'objective__name': 'gradient_penalty', 'data__label_noise': 0.2,
    'optim__schedule': 'cosine', 'optim__average': 0.9,
    # Reached by the first lane alone, between measurements.
    'train__milestones__train_loss': 2.3,
    'evaluation__checkpoints': ('last', 'train_loss'),
  }  # fmt: skip
  configs = [tiny(**common, **fields) for fields in EVERY_FIELD]
  assert lanes.groups(configs, 8) == [[0, 1]]
  run.train(run.build(configs), folders(tmp_path / 'grid', 2))
  met = [checkpoint(c, tmp_path / 'grid' / str(i), 'train_loss') is not None
         for i, c in enumerate(configs)]  # fmt: skip
  assert met == [True, False]
  for i, config in enumerate(configs):
    alone = tmp_path / f'alone_{i}'
    single(config, alone)
    same_run(config, tmp_path / 'grid' / str(i), alone)


def test_lanes_of_a_convolutional_network_train_in_turns(tmp_path):
  configs = [plain(digits_cnn, seed=seed) for seed in (0, 1)]
  assert lanes.Lanes.of([experiment.build(c) for c in configs]).mapped
  train(configs, folders(tmp_path / 'grid', 2))
  alone(configs[1], tmp_path / 'alone')
  same_run(configs[1], tmp_path / 'grid' / '1', tmp_path / 'alone')


@pytest.mark.slow
@pytest.mark.parametrize('module', [digits_cnn, digits_vit])
def test_a_lane_of_every_network_is_its_single_run(module, tmp_path):
  configs = [tiny(module, seed=seed) for seed in (0, 1)]
  run.train(run.build(configs), folders(tmp_path / 'grid', 2))
  single(configs[1], tmp_path / 'alone')
  same_run(configs[1], tmp_path / 'grid' / '1', tmp_path / 'alone', 1e-4)


@pytest.mark.parametrize('module', [digits_mlp, digits_cnn])
def test_a_diverging_lane_changes_no_bit_of_its_neighbour(module, tmp_path):
  config = lambda lr: plain(module, optim__lr=lr, loss__name='squared_error')
  bad, good = config(1e19), config(0.1)
  assert train([bad, good], folders(tmp_path / 'bad', 2)) == [1]
  assert train([good, good], folders(tmp_path / 'good', 2)) == [0, 1]
  beside, alone = tmp_path / 'bad' / '1', tmp_path / 'good' / '1'
  assert lines(beside) == lines(alone)
  found = [checkpoint(good, w, 'last')[1] for w in (beside, alone)]
  assert fingerprint(found[0]) == fingerprint(found[1])

  # And the lane itself ends as a single run does, at the same step.
  with pytest.raises(run_folder.Diverged):
    single(bad, tmp_path / 'alone')
  status = records.read_status(tmp_path / 'bad' / '0')
  assert status['status'] == 'diverged'
  assert status == records.read_status(tmp_path / 'alone')
  close(lines(tmp_path / 'bad' / '0'), lines(tmp_path / 'alone'))
  last = checkpoint(bad, tmp_path / 'bad' / '0', 'rolling')
  assert last[0] == checkpoint(bad, tmp_path / 'alone', 'rolling')[0]
  assert not list((tmp_path / 'bad' / '0' / 'checkpoints' / 'last').glob('*'))


def test_a_grid_goes_on_from_a_kill_between_two_saves(tmp_path, monkeypatch):
  # With momentum and a log every third step, so that sums are pending.
  configs = [
    plain(seed=seed, optim__momentum=0.9, train__log_every='5 steps')
    for seed in (0, 1)
  ]
  whole, cut = (folders(tmp_path / name, 2) for name in ('whole', 'cut'))
  assert train(configs, whole) == [0, 1]

  class Killed(BaseException):
    pass

  save, seen = run_folder.RunFolder.save, []

  def dying(self, step, *args):
    seen.append(step)
    if seen.count(4) == 2:  # lane 0 has step 4, lane 1 has step 2
      raise Killed
    save(self, step, *args)

  monkeypatch.setattr(run_folder.RunFolder, 'save', dying)
  with pytest.raises(Killed):
    train(configs, cut)
  monkeypatch.undo()
  assert checkpoint(configs[0], cut[0], 'rolling')[0] == 4
  assert checkpoint(configs[1], cut[1], 'rolling')[0] == 2
  shutil.copytree(cut[0], tmp_path / 'single')

  assert train(configs, cut) == [0, 1]
  for config, a, b in zip(configs, whole, cut, strict=True):
    assert lines(a) == lines(b)
    ends = [checkpoint(config, w, 'last')[1] for w in (a, b)]
    assert fingerprint(ends[0]) == fingerprint(ends[1])

  # A single run can take over a lane, too.
  alone(configs[0], tmp_path / 'single')
  close(lines(tmp_path / 'single'), lines(whole[0]))


def test_a_signal_saves_every_lane_and_the_next_start_goes_on(
  tmp_path, monkeypatch
):
  configs, cut = [plain(seed=seed) for seed in (0, 1)], folders(tmp_path, 2)
  monkeypatch.setattr(spans.Stop, 'is_set', lambda self: True)
  with pytest.raises(spans.Interrupted):
    train(configs, cut)
  for config, workdir in zip(configs, cut, strict=True):
    assert checkpoint(config, workdir, 'rolling')[0] == 0
  monkeypatch.undo()
  assert train(configs, cut) == [0, 1]


def test_what_differs_in_anything_else_is_another_group():
  configs = [
    tiny(seed=0),
    tiny(seed=1, optim__lr=0.3, model__beta=2.0),
    tiny(data__batch_size=32),
    tiny(optim__momentum=0.9),
    tiny(optim__momentum=0.5, optim__weight_decay=0.0),
    tiny(seed=2),
    tiny(parallel='pmap'),
    tiny(optim__weight_decay=0.1, loss__label_smoothing=0.1),
    tiny(optim__weight_decay=0.2),
    tiny(objective__name='gradient_penalty', objective__weight=0.1),
    tiny(objective__name='gradient_penalty', objective__weight=0.2),
    tiny(objective__name='gradient_penalty', objective__weight=0.0),
    tiny(objective__name='gradient_penalty'),
  ]
  assert lanes.groups(configs, 100) == [
    [0, 1, 5], [2], [3, 4], [6], [7, 8], [9, 10], [11], [12],
  ]  # fmt: skip


@pytest.mark.parametrize(
  'count, most, sizes', [(7, 3, [3, 2, 2]), (25, 25, [25]), (26, 25, [13, 13])]
)
def test_a_large_group_is_cut_into_parts_of_nearly_one_size(count, most, sizes):
  configs = [tiny(seed=seed) for seed in range(count)]
  found = lanes.groups(configs, most)
  assert [len(part) for part in found] == sizes
  assert [i for part in found for i in part] == list(range(count))


def test_only_what_differs_is_traced():
  built = [experiment.build(tiny(seed=s, optim__lr=lr)) for s in (4, 2)
           for lr in (0.1, 0.2)]  # fmt: skip
  over = lanes.Lanes.of(built)
  assert set(over.values) == {'seed', 'source'}
  assert over.values['seed'].tolist() == [4, 4, 2, 2]
  # Two seeds are read, whatever the number of lanes.
  found = over.of_seeds(lambda e: e.train_set.batch_at(3))
  assert found['image'].shape[:2] == (2, 16)
  for i, one in enumerate(built):
    mine = over.pick(found, {'source': over.values['source'][i]})
    np.testing.assert_array_equal(
      mine['index'], one.train_set.batch_at(3)['index']
    )


@pytest.mark.parametrize('mapped', [False, True])
def test_spread_gives_an_axis_to_what_is_not_shared(mapped, monkeypatch):
  over = lanes.Lanes.of([experiment.build(tiny(seed=s)) for s in range(3)])
  monkeypatch.setattr(lanes.Lanes, 'mapped', mapped)
  a, b = np.arange(6.0).reshape(3, 2), np.array([1.0, 10.0])
  fun = lambda own, shared, more: {'x': (own['y'] * shared).sum() + more}
  found = over.spread(fun, shared=(1,))({'y': a}, b, np.arange(3.0))
  np.testing.assert_allclose(found['x'], a @ b + np.arange(3))


def test_a_grid_is_refused_on_several_devices(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 2)
  with pytest.raises(errors.InputError, match='--lanes'):
    run.train(run.build([tiny(), tiny(seed=1)]), folders(tmp_path, 2))
  assert not list(tmp_path.iterdir())


class Attends(nn.Module):
  """A network of one's own, with attention and a convolution of flax's."""

  num_classes: int = 10
  mean: float = 0.0
  std: float = 1.0
  readout: str = 'mean'

  @nn.compact
  def __call__(self, x, train=False, beta=None):
    x = nn.Conv(4, (2, 2), (4, 4), name='first')(x)
    tokens = x.reshape(len(x), -1, 1, 4)
    weights = jax.nn.softmax(jnp.einsum('blhd,bmhd->bhlm', tokens, tokens))
    out = jnp.einsum('bhlm,bmhd->bld', weights, tokens)
    logits = nn.Dense(self.num_classes)(out.mean(1))
    scores = jnp.einsum('blhd,bmhd->bhlm', tokens, tokens)
    return logits, {'attention': (weights,), 'scores': (scores,)}


def test_a_network_of_ones_own_is_known_by_what_it_does(monkeypatch, tmp_path):
  monkeypatch.setitem(models.MODELS, 'attends', Attends)
  config = tiny(evaluation__attributions=('raw',))
  config['model'] = {'name': 'attends'}
  over = run.build([config])
  assert over.template.attends and over.mapped
  run.train(over, [tmp_path])
  assert 'attention/entropy' in lines(tmp_path)[0]
  evaluation = json.loads((tmp_path / 'evaluation' / 'last.json').read_text())
  assert {row['attribution'] for row in evaluation['rows']} == {'raw'}


def test_convolutions_are_known_in_every_network_that_has_them():
  for name, convolves in (('madry', True), ('resnet8', True), ('mlp', False)):
    config = tiny()
    config['model'] = {'name': name}
    built = experiment.build(config)
    assert lanes.Lanes.of([built]).mapped == convolves, name
