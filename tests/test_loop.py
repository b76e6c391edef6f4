"""Does the loop compile once, keep the first of its kind, and stop in time?"""

import dataclasses
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from implicit_attr import data, train
from implicit_attr.configs import cifar_resnet8, digits_mlp, digits_vit
from implicit_attr.runs import records
from implicit_attr.runs.checkpoint import Checkpoints, fingerprint
from implicit_attr.runs.metrics import read_metrics
from implicit_attr.runtime import cadence
from implicit_attr.train import advance, experiment, loop, run_folder, spans
from implicit_attr.train.feed import Feed
from implicit_attr.train.lanes import Lanes
from implicit_attr.train.tracking import Tracker


def build(module=digits_mlp, **changes):
  config = module.get_config('smoke')
  config.track.every = 'never'
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return experiment.build(config.to_dict())


@pytest.fixture(scope='module')
def built():
  return build(optim__momentum=0.9, optim__schedule='cosine')


def advanced(built, lengths):
  """The state after spans of these lengths, and the sums of each update."""
  lanes = Lanes.of([built])
  program, feed = advance.make_program(lanes), Feed(lanes, max(lengths))
  state, step, sums = built.mesh.replicate(built.init()), 0, []
  for n in lengths:
    rates = np.resize(lanes.rates[step : step + n], max(lengths))
    state, new = program(
      lanes.values, True, state, rates, feed(step, n), np.int32(n), feed.table
    )
    sums += [{k: float(a[i]) for k, a in new.items()} for i in range(n)]
    step += n
  return state, sums


@pytest.mark.parametrize(
  'module, limit',
  [(digits_mlp, 2 << 30), (cifar_resnet8, 2 << 30), (cifar_resnet8, 0),
   (digits_vit, 2 << 30)],
  ids=['mlp', 'batch norm, crops, flips', 'streamed', 'vit'],
)  # fmt: skip
def test_spans_of_any_length_have_the_same_bits_and_are_single_steps(
  module, limit
):
  """Beside an update a call, on batches of the host: to rounding, for a loop's
  body is another program."""
  built = build(module, train__resident_bytes=limit)
  assert Feed(Lanes.of([built]), 4).resident == (limit > 0)
  step = jax.jit(advance.make_train_step(built))
  state, sums = built.mesh.replicate(built.init()), []
  for i in range(7):
    batch = built.mesh.join(built.train_set.batch_at(i))
    rate = built.learning_rates[i]
    state, new = step(state, batch, rate, np.uint32(0))
    sums.append({name: float(v) for name, v in new.items()})
  whole, each = advanced(built, [7])
  for one, wanted in zip(each, sums, strict=True):
    assert one == pytest.approx(wanted, rel=1e-5)
  for a, b in zip(*map(jax.tree.leaves, (whole, state)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  cut, again = advanced(built, [1, 4, 2])
  assert again == each
  assert fingerprint(cut) == fingerprint(whole)


def test_a_run_compiles_its_updates_once_whatever_the_length_of_a_span(built):
  traces = []
  make = built.make_loss_fn

  def counted(apply_fn):
    traces.append(1)
    return make(apply_fn)

  state, _ = advanced(
    dataclasses.replace(built, make_loss_fn=counted), [1, 2, 3, 1]
  )
  assert int(state.step) == 7
  assert len(traces) == 2  # for its shapes, and as the body of the loop


def test_n_steps_and_then_m_are_n_and_m():
  step = lambda state, one: (0.5 * state + one['a'], {'x': state})
  each = {'a': jnp.arange(6.0)}
  move = jax.jit(train.make_advance(step))
  whole, outputs = move(1.0, each, 6)
  first, _ = move(1.0, each, 4)
  rest = jax.tree.map(lambda a: jnp.roll(a, -4), each)
  second, tail = move(first, rest, 2)
  assert second == whole
  np.testing.assert_array_equal(tail['x'][:2], outputs['x'][4:])
  np.testing.assert_array_equal(tail['x'][2:], 0)


def test_spans_end_at_every_event_and_cover_the_run_once():
  every = {'log': 7, 'eval': 0, 'track': 10, 'checkpoint': 25}
  events = spans.events(60, every, [0, 12])
  due = {
    step for step in range(61) for e in every.values()
    if cadence.due(step, e, 60)
  }  # fmt: skip
  assert events == sorted(due | {0, 12, 60})
  cut = spans.Spans(events, 8, timed=False)
  done = list(cut.of(4))
  assert done[-1] == (60, 0)
  step = 4
  for start, n in done:
    assert start == step and n <= 8
    assert not set(range(start + 1, start + n)) & set(events)
    step += n
  assert step == 60


def test_spans_grow_to_what_fits_and_shrink_when_steps_get_slow(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(spans.time, 'perf_counter', lambda: now[0])
  cut, lengths, step_seconds = spans.Spans([10_000], 512, timed=True), [], 0.01
  for _, n in cut.of(0):
    lengths.append(n)
    now[0] += step_seconds * (lengths[-2] if len(lengths) > 1 else 0)
    cut.ended()
    if len(lengths) == 20:
      step_seconds = 0.1
    if len(lengths) == 60:
      break
  assert lengths[:5] == [1, 1, 2, 4, 8]
  assert 0.2 < lengths[19] * 0.01 <= spans.SECONDS
  assert lengths[-1] * 0.1 <= spans.SECONDS


@pytest.fixture
def folder(built, tmp_path):
  with_thresholds = built.settings.train
  settings = dataclasses.replace(
    built.settings,
    train=dataclasses.replace(
      with_thresholds, milestones={'train_loss': 0.5, 'test_accuracy': 0.9}
    ),
  )
  run = run_folder.RunFolder(
    dataclasses.replace(built, settings=settings), tmp_path, Tracker.memory
  )
  yield run
  run.close()


def test_a_milestone_is_the_first_state_that_reached_it(built, folder):
  state = jax.device_get(built.init())
  record = lambda loss, accuracy: {
    'eval/train_loss': loss, 'eval/accuracy': accuracy,
  }  # fmt: skip

  def met(step, loss, accuracy):
    at = lambda: dataclasses.replace(state, step=np.int32(step))
    return folder.milestones(step, record(loss, accuracy), at)

  assert met(0, 2.0, 0.1) == {}
  assert met(5, 0.5, 0.8) == {'milestone/train_loss': 5}
  assert met(10, 0.9, 0.7) == {}
  assert met(15, 0.1, 0.95) == {'milestone/test_accuracy': 15}
  assert met(20, 0.0, 0.99) == {}
  # A run that goes on before a milestone it once met has yet to reach it.
  assert not folder.reached('test_accuracy', 14)
  assert folder.reached('test_accuracy', 15)
  folder.close()
  for name, step in (('train_loss', 5), ('test_accuracy', 15)):
    assert folder.states[name].step == step
    kept = Checkpoints(folder.workdir / 'checkpoints' / name)
    assert kept.steps() == [step]
    assert kept.restore(step, {'state': state})[0]['state'].step == step
    kept.close()


def test_a_run_ends_at_the_milestone_that_stop_at_names(tmp_path):
  """With what a longer run had there; started anew it has nothing to do."""

  def run(name, **changes):
    lanes = Lanes.of([build(seed=3, **changes)])
    (ended,) = loop.train(lanes, [tmp_path / name])
    assert ended.last == read_metrics(tmp_path / name)[-1]['step']
    lines = read_metrics(tmp_path / name)
    timeless = lambda line: {k: v for k, v in line.items() if 'time/' not in k}
    return [timeless(line) for line in lines]

  whole = run('whole')
  losses = {
    line['step']: line['eval/train_loss']
    for line in whole
    if 'eval/train_loss' in line
  }
  assert losses[10] < losses[0]
  changes = {
    'train__stop_at': 'train_loss', 'train__milestones__train_loss': losses[10]
  }  # fmt: skip
  short = run('short', **changes)
  assert [line['step'] for line in short] == [0, 5, 10]
  assert short[-1]['eval/train_loss'] == losses[10]
  kept = Checkpoints(tmp_path / 'short' / 'checkpoints' / 'last')
  assert kept.steps() == [10]
  kept.close()
  assert run('short', **changes) == short


def test_divergence_is_found_at_the_update_that_diverged(folder):
  sums = [{'loss': v, 'correct': 1.0, 'n': 2.0} for v in (4.0, 2.0, np.inf)]
  means = run_folder.means(7, sums[:2], np.ones(10, np.float32))
  assert means['train/loss'] == 1.5 and means['train/accuracy'] == 0.5
  with pytest.raises(run_folder.Diverged, match='diverged at step 6'):
    run_folder.means(7, sums, np.ones(10, np.float32))
  folder.write(3, {'param/trace': float('nan'), 'eval/loss': 1.0}, [], {})
  assert 'param/trace' in str(folder.diverged)
  assert not folder.live(4)
  status = records.read_status(folder.workdir)
  assert status['status'] == 'diverged' and status['step'] == 3


def test_a_state_that_is_not_finite_is_never_saved(built, folder):
  state = built.init()
  bad = jax.tree.map(lambda p: p * np.nan, state.params)
  bad = dataclasses.replace(state, params=bad)
  folder.save(3, bad, state.params, [])
  assert 'a weight' in str(folder.diverged)
  rolling = folder.workdir / 'checkpoints' / 'rolling'
  assert not [p for p in rolling.iterdir() if p.name.isdigit()]


def test_a_run_that_goes_on_says_which_lines_were_lost(built, tmp_path, caplog):
  state, log = jax.device_get(built.init()), built.every['log']
  begin = lambda: run_folder.RunFolder(built, tmp_path, Tracker.memory)
  run = begin()
  for step in range(2 * log + 1):
    run.write(step, {}, [], {})
  run.save(2 * log + 1, state, state.params, [])
  run.close()
  begin().close()
  assert not caplog.records
  file = tmp_path / 'metrics.jsonl'
  lines = file.read_text().splitlines(keepends=True)
  file.write_text(''.join(lines[:log] + lines[log + 1 :]))
  run = begin()
  run.close()
  assert run.first == 2 * log + 1
  (said,) = [r.getMessage() for r in caplog.records]
  assert said.endswith(f'no line is there for step {log}')


def test_a_folder_that_was_ahead_counts_its_own_updates_only(built, tmp_path):
  lanes = Lanes.of([built, dataclasses.replace(built)])
  runs = [
    run_folder.RunFolder(e, tmp_path / str(i), Tracker.memory)
    for i, e in enumerate(lanes.experiments)
  ]
  runs[1].first = 4
  training = loop.Training.__new__(loop.Training)
  training._lanes, training._runs = lanes, runs
  sums = lambda a: {name: np.array(a) for name in advance.REPORTED}
  pending = [(2, 2, sums([[0.0, 1, 9], [2, 3, 9]])), (4, 1, sums([[4], [5]]))]
  losses = lambda i: [one['loss'] for one in training._sums(pending, i)]
  assert (losses(0), losses(1)) == ([0.0, 1.0, 4.0], [5.0])
  for run in runs:
    run.close()


def test_a_signal_raises_at_once_until_there_is_something_to_save():
  with spans.Stop(True) as stop:
    with pytest.raises(spans.Interrupted):
      signal.raise_signal(signal.SIGTERM)
      time.sleep(1)
    stop.after_a_save()
    signal.raise_signal(signal.SIGTERM)
    assert stop.is_set()
  handler = signal.getsignal(signal.SIGTERM)
  assert not isinstance(getattr(handler, '__self__', None), spans.Stop)


def test_a_signal_is_heeded_at_the_next_span_and_the_state_is_saved(
  built, tmp_path, monkeypatch
):
  asked = []
  stopped = lambda self: asked.append(1) or len(asked) > 3
  monkeypatch.setattr(spans.Stop, 'is_set', stopped)
  with pytest.raises(spans.Interrupted) as e:
    loop.train(Lanes.of([built]), [tmp_path])
  kept = Checkpoints(tmp_path / 'checkpoints' / 'rolling')
  assert kept.steps()[-1] == e.value.step > 0
  kept.close()


def test_a_batch_of_the_device_is_the_batch_of_the_host_with_lanes():
  built = [build(cifar_resnet8, seed=seed) for seed in (0, 1)]
  lanes = Lanes.of(built)
  feed = Feed(lanes, 3)
  draws = feed(5, 3)
  for i, one in enumerate(built):
    values = lanes.take(lanes.values, i)
    mine = lanes.pick(draws, values)
    table = lanes.pick_images(feed.table, values)
    draw = jax.tree.map(lambda a: a[2], mine)
    batch = jax.jit(data.assemble)(table, draw)
    for name, value in one.train_set.batch_at(7).items():
      np.testing.assert_array_equal(batch[name], value)


def test_scores_and_milestones_are_of_the_average_weights(tmp_path):
  """Training goes on from the last ones; both are in the checkpoint."""
  built = build(optim__average=0.9, optim__lr=0.3)
  (run,) = loop.train(Lanes.of([built]), [tmp_path])
  state, test = run.states['last'], built.test_set.examples(np.arange(360))

  def loss(params):
    logits, _ = built.module.apply({'params': params}, test['image'])
    chosen = np.take_along_axis(
      np.asarray(jax.nn.log_softmax(logits)), test['label'][:, None], 1
    )
    return -float(chosen.mean())

  *_, last = read_metrics(tmp_path)
  assert last['eval/loss'] == pytest.approx(
    loss(state.averaged.params), rel=1e-4
  )
  assert abs(loss(state.params) / last['eval/loss'] - 1) > 1e-3
