"""Summary of a run: what was trained on what, how it ended, what came out."""

import dataclasses
from collections.abc import Callable
from typing import Any

from implicit_attr.report import tables
from implicit_attr.runs.reading import Evaluation, Run


@dataclasses.dataclass(frozen=True)
class Tile:
  """A headline number: its name, its value, and what to compare it with."""

  name: str
  value: str
  note: str


_PROPER = {
  'cnn': 'CNN', 'mlp': 'MLP', 'vit': 'ViT', 'sgd': 'SGD', 'adamw': 'AdamW',
}  # fmt: skip


def title(run: Run) -> str:
  """'cnn on digits', as far as the config says."""
  model = proper(run.setting('model.name', 'Network'))
  return f'{model} on {run.setting("data.name", "unknown data")}'


def story(run: Run) -> list[str]:
  """A few sentences: what was trained, on what, how, for how long."""
  if not run.config:
    return ['What was trained is not known: config.json is missing.']

  def clause(path: str, text: str, form: Callable[[Any], str] = str) -> str:
    value = run.setting(path)
    return text.format(form(value)) if value else ''

  plain = lambda value: tables.plain(str(value))
  model = proper(run.setting('model.name', 'network'))
  first = (
    f'{"An" if model[:1] in "aeiouM" else "A"} {model}'
    + clause('model.activation', ' with {} activations')
    + clause('model.attention', ' and {} attention')
    + f' was trained on {run.setting("data.name", "unknown data")}'
    + clause('data.subset', ' ({} examples)')
    + clause(
      'data.label_noise',
      ', with {} of the training labels drawn at random',
      tables.percent,
    )
  )
  how = f'It minimised {plain(run.setting("loss.name", "its loss"))}'
  if run.setting('objective.weight'):
    how += clause('objective.weight', ' plus {} times ')
    how += plain(run.setting('objective.name', 'a penalty'))
  how += f' by {proper(run.setting("optim.name", "descent"))}'
  for name in ('lr', 'momentum', 'weight_decay'):
    what = 'learning rate' if name == 'lr' else tables.plain(name)
    how += clause(f'optim.{name}', f', {what} {{}}')
  if run.setting('optim.schedule') != 'constant':
    how += clause('optim.schedule', ' ({} schedule)', plain)
  how += clause('data.batch_size', ', batches of {}')
  how += clause('train.duration', ', for {}')
  if run.setting('train.stop_at', 'never') != 'never':
    how += clause('train.stop_at', ' or until its milestone of the {}', plain)
  if run.setting('seed') is not None:
    how += f'; seed {run.setting("seed")}'
  return [f'{first}.', f'{how}.']


def banners(run: Run) -> list[tuple[str, str]]:
  """(kind, sentence) for what a reader must know before any number."""
  told = []
  ends = [event for event in run.events if event['event'] == 'diverged']
  if not ends and run.status.get('status') == 'diverged':
    ends = [run.status]
  for end in ends:
    message = str(end.get('message') or '').strip().rstrip('.')
    text = f'This run diverged at update {end.get("step", "–")}'
    text += f'{": " if message else ""}{message}. '
    told.append(('bad', f'{text}What follows describes it up to that point.'))
  if not told and 'last' not in run.evaluations:
    told.append(('note', _UNFINISHED))
  if run.damages:
    what = '; '.join(f'{file} {why}' for file, why in run.damages.items())
    told.append(('note', f'Of damaged files only the rest is shown: {what}.'))
  if run.about['git'].get('dirty'):
    told.append(('note', _DIRTY))
  return told


_UNFINISHED = (
  'This run was interrupted or is still running: its last checkpoint has not '
  'been evaluated. What is there is shown.'
)
_DIRTY = (
  'The code had uncommitted changes when this run started, so the commit below '
  'does not describe it fully.'
)


def tiles(run: Run) -> list[Tile]:
  """The headline numbers that this run has."""
  last = run.evaluations.get('last')
  all_tiles = (
    _accuracy(run, last), _radius(last), _robustness(last),
    _sharpness(run), _input_curvature(run), _time(run),
  )  # fmt: skip
  return [tile for tile in all_tiles if tile]


def _accuracy(run: Run, evaluation: Evaluation | None) -> Tile | None:
  clean = evaluation.clean if evaluation else {}
  value, note = clean.get('accuracy'), f'of {clean.get("n", "all")} images'
  if value is None and (last := run.last('eval/accuracy')):
    value, note = last[1], f'at update {last[0]:.0f}'
  if value is None:
    return None
  return Tile('Test accuracy', tables.percent(value), note)


def _robustness(evaluation: Evaluation | None) -> Tile | None:
  """Top-k of the first map, under its first attack and random signs."""
  rows = evaluation.rows if evaluation else []
  attacks = [row for row in rows if row['attack'] != tables.BASELINE]
  if not attacks or 'topk' not in attacks[0]['metrics']:
    return None
  row = attacks[0]
  mean, *interval = tables.similarity(row, 'topk')
  note = ''.join(interval).strip('[]').replace(', ', ' to ')
  note = f'95 %: {note or "no interval"}'
  for other in rows:
    same = other['attribution'] == row['attribution']
    if same and other['attack'] == tables.BASELINE:
      random = tables.estimate(other['metrics'].get('topk'))[0]
      note += f'; random signs: {random}'
      break
  return Tile(
    f'Top-k of the {tables.plain(row["attribution"])} map kept under attack, '
    f'ε\u00a0=\u00a0{tables.short(row.get("eps"))}',
    mean,
    note,
  )


def _radius(evaluation: Evaluation | None) -> Tile | None:
  """ε50 of the first map under its first attack."""
  rows = evaluation.rows if evaluation else []
  for row in rows:
    if row['attack'] != tables.BASELINE and row['metrics'].get('log2_eps50'):
      (mean, *interval), (censored,), _ = tables.radii(row)
      note = ''.join(interval).strip('[]').replace(', ', ' to ')
      return Tile(
        'Radius that leaves half of the strongest pixels of the '
        f'{tables.plain(row["attribution"])} map (ε50)',
        f'{mean} / 255',
        f'95 %: {note or "no interval"}; censored: {censored}',
      )
  return None


def _sharpness(run: Run) -> Tile | None:
  last, edge = run.last('param/lambda_max'), run.last('param/edge')
  if not last:
    return None
  note = f'at update {last[0]:.0f}'
  if edge and edge[1] > 0:
    share = f'{last[1] / edge[1]:.2f}'
    note = f'{share} of {edge_name(run)} = {tables.short(edge[1])}'
  return Tile('λ_max of the loss Hessian', tables.short(last[1]), note)


def _input_curvature(run: Run) -> Tile | None:
  last = run.last('input/normalized_curvature')
  if not last:
    return None
  steps, values = run.series('input/normalized_curvature')
  return Tile(
    'Normalised input curvature ‖H‖ / ‖g‖',
    f'{tables.short(last[1])} / pixel',
    f'before training: {tables.short(values[0])}' if steps[0] == 0 else '',
  )


def _time(run: Run) -> Tile | None:
  if not run.lines:
    return None
  parts = []
  if 'time/wall_s' in run.ends:
    parts.append(f'{run.ends["time/wall_s"]:.0f} s')
  if 'time/steps_per_s' in run.ends:
    parts.append(f'{tables.short(run.ends["time/steps_per_s"])} updates/s')
  return Tile('Updates', f'{run.lines[-1]["step"]:.0f}', ', '.join(parts))


def edge_name(run: Run) -> str:
  """The stability threshold as a formula: with momentum it is higher."""
  return '2(1+β)/η' if run.setting('optim.momentum', 0) else '2/η'


def proper(name: Any) -> str:
  """'cnn' -> 'CNN', as far as it is known."""
  return _PROPER.get(str(name), tables.plain(str(name)))
