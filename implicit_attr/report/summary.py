"""Summary of a run: what was trained on what, how it ended, what came out."""

import dataclasses
from typing import Any

from implicit_attr.report import curves, tables
from implicit_attr.report.read import Evaluation, Run


@dataclasses.dataclass(frozen=True)
class Tile:
  """A headline number: its name, its value, and what to compare it with."""

  name: str
  value: str
  note: str


_PROPER = {
  'cnn': 'CNN',
  'mlp': 'MLP',
  'vit': 'ViT',
  'sgd': 'SGD',
  'adamw': 'AdamW',
}


def title(run: Run) -> str:
  """'cnn on digits', as far as the config says."""
  model = proper(run.setting('model.name', 'Network'))
  return f'{model} on {run.setting("data.name", "unknown data")}'


def story(run: Run) -> list[str]:
  """A few sentences: what was trained, on what, how, for how long."""
  if not run.config:
    return ['What was trained is not known: config.json is missing.']
  get = run.setting
  model = proper(get('model.name', 'network'))
  first = f'{"An" if model[0] in "aeiouM" else "A"} {model}'
  if get('model.activation'):
    first += f' with {get("model.activation")} activations'
  if get('model.attention'):
    first += f' and {get("model.attention")} attention'
  first += f' was trained on {get("data.name", "unknown data")}'
  if get('data.subset'):
    first += f' ({get("data.subset")} examples)'
  if get('data.label_noise', 0):
    noise = tables.percent(get('data.label_noise'))
    first += f', with {noise} of the training labels drawn at random'
  how = f'It minimised {tables.plain(str(get("loss.name", "its loss")))}'
  if get('objective.weight', 0):
    how += (
      f' plus {get("objective.weight")} times '
      f'{tables.plain(str(get("objective.name", "a penalty")))}'
    )
  how += f' by {proper(get("optim.name", "descent"))}'
  for key, name in (
    ('lr', 'learning rate'),
    ('momentum', 'momentum'),
    ('weight_decay', 'weight decay'),
  ):
    if get(f'optim.{key}', 0):
      how += f', {name} {get(f"optim.{key}")}'
  if get('optim.schedule', 'constant') != 'constant':
    how += f' ({tables.plain(str(_name(get("optim.schedule"))))} schedule)'
  if get('data.batch_size'):
    how += f', batches of {get("data.batch_size")}'
  if get('train.duration'):
    how += f', for {_name(get("train.duration"))}'
  if get('seed') is not None:
    how += f'; seed {get("seed")}'
  return [f'{first}.', f'{how}.']


def banners(run: Run) -> list[tuple[str, str]]:
  """(kind, sentence) for what a reader must know before any number."""
  found = []
  ends = [event for event in run.events if event['event'] == 'diverged']
  if not ends and run.status.get('status') in ('diverged', 'interrupted'):
    ends = [run.status]
  for end in ends:
    how = end.get('event') or end['status']
    message = str(end.get('message') or '').strip().rstrip('.')
    text = (
      f'This run {"diverged" if how == "diverged" else "was interrupted"} at '
      f'update {end.get("step", "–")}{": " if message else ""}{message}. '
      'What follows describes it up to that point.'
    )
    found.append(('bad' if how == 'diverged' else 'note', text))
  if not found and 'last' not in run.evaluations:
    found.append(
      (
        'note',
        'This run was interrupted or is still running: its last checkpoint '
        'has not been evaluated. What is there is shown.',
      )
    )
  if run.about.get('git', {}) and run.about['git'].get('dirty'):
    found.append(
      (
        'note',
        'The code had uncommitted changes when this run started, so the '
        'commit below does not describe it fully.',
      )
    )
  return found


def tiles(run: Run) -> list[Tile]:
  """The headline numbers that this run has."""
  found = [
    _accuracy(run),
    *_robustness(run.evaluations.get('last')),
    _sharpness(run),
    _input_curvature(run),
    _time(run),
  ]
  return [tile for tile in found if tile]


def _accuracy(run: Run) -> Tile | None:
  if 'last' in run.evaluations:
    clean = run.evaluations['last'].clean
    if clean.get('accuracy') is not None:
      return Tile(
        'Test accuracy',
        tables.percent(clean['accuracy']),
        f'of {clean["n"]} images' if 'n' in clean else '',
      )
  last = run.last('eval/accuracy')
  if not last:
    return None
  return Tile(
    'Test accuracy', tables.percent(last[1]), f'at update {last[0]:.0f}'
  )


def _robustness(evaluation: Evaluation | None) -> list[Tile]:
  """Top-k of the first map, under its first attack and random signs."""
  if not evaluation or not evaluation.rows:
    return []
  rows = tables.ordered(evaluation.rows)
  attacked = next(
    (row for row in rows if row.get('attack') != tables.BASELINE), None
  )
  if attacked is None:
    return []
  topk = (attacked.get('metrics') or {}).get('topk')
  if not isinstance(topk, dict):
    return []
  note = (
    f'95 %: {tables.number(topk.get("low"))} to '
    f'{tables.number(topk.get("high"))}'
  )
  same = [
    row
    for row in rows
    if row.get('attack') == tables.BASELINE
    and row.get('attribution') == attacked.get('attribution')
    and row.get('eps') == attacked.get('eps')
  ]
  if same:
    random = (same[0].get('metrics') or {}).get('topk') or {}
    note += f'; random signs: {tables.number(random.get("mean"))}'
  name = tables.plain(str(attacked.get('attribution', 'map')))
  return [
    Tile(
      f'Top-k of the {name} map kept under attack, '
      f'ε\u00a0=\u00a0{tables.short(attacked.get("eps"))}',
      tables.similarity(attacked, 'topk')[0],
      note,
    )
  ]


def _sharpness(run: Run) -> Tile | None:
  last = run.last('param/lambda_max')
  if not last:
    return None
  edge = run.last('param/edge')
  note = f'at update {last[0]:.0f}'
  if edge and edge[1] > 0:
    note = (
      f'{last[1] / edge[1]:.2f} of {curves.edge_name(run)} = '
      f'{tables.short(edge[1])}'
    )
  return Tile('λ_max of the loss Hessian', tables.short(last[1]), note)


def _input_curvature(run: Run) -> Tile | None:
  key = 'input/normalized_curvature'
  last = run.last(key)
  if not last:
    return None
  values = run.series(key)[1]
  first = tables.short(float(values[0]))
  return Tile(
    'Normalised input curvature ‖H‖ / ‖g‖',
    f'{tables.short(last[1])} / pixel',
    f'before training: {first}' if run.series(key)[0][0] == 0 else '',
  )


def _time(run: Run) -> Tile | None:
  steps = [line['step'] for line in run.lines]
  if not steps:
    return None
  wall, speed = run.last('time/wall_s'), run.last('time/steps_per_s')
  parts = []
  if wall:
    parts.append(f'{wall[1]:.0f} s')
  if speed:
    parts.append(f'{tables.short(speed[1])} updates/s')
  return Tile('Updates', f'{max(steps):.0f}', ', '.join(parts))


def _name(value: Any) -> str:
  """A schedule or a duration, whether given as a word or as a section."""
  if isinstance(value, dict):
    return ', '.join(
      f'{key} {part}' for key, part in value.items() if part is not None
    )
  return str(value)


def proper(name: Any) -> str:
  """'cnn' -> 'CNN', as far as it is known."""
  return _PROPER.get(name, tables.plain(str(name)))
