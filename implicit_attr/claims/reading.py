"""Records of runs for `judge`: one flat dict a map, rule of comparison and run.

Files are parsed as data: nothing of a run is imported or executed, and a run
that is cut short or damaged gives the records that it has.
"""

import json
import pathlib
from typing import Any

import numpy as np

from implicit_attr import attribution, errors, models
from implicit_attr.runs import reading
from implicit_attr.runs.reading import Evaluation, Run
from implicit_attr.runs.records import leaves

BASELINE = 'random_sign'
PROTOCOL = ('eps', 'norm', 'k', 'steps', 'restarts', 'examples', 'options')
"""Settings of an evaluation that two arms must share, beside duration."""

METRICS = ('topk', 'kendall', 'spearman', 'cosine', 'log2_eps50')

Record = dict[str, Any]


def read(
  tree: str | pathlib.Path,
) -> tuple[list[Record], dict[str, str]]:
  """Every run directory under `tree`, however deep.

  Returns:
    (records, problems). A record has the settings 'data', 'model',
    'activation', 'attention' ('' without attention), 'loss', 'objective',
    'lr', 'batch_size', 'momentum', 'weight_decay', 'label_noise', 'seed', and
    as one text 'other', whatever else was set of these sections; 'protocol',
    how long they trained and how they were attacked, as another;
    'run', 'rule' (the checkpoint), 'target', 'attack', 'map', its 'family'
    ('gradient' or 'attention'), 'kernel', 'features' and 'normalized' of the
    attention; the means of 'topk', 'kendall', 'spearman', 'cosine' and
    'log2_eps50', with the shares 'censored_below' and '…_above', those
    under random signs ('random_topk', …), 'deletion_auc', 'accuracy',
    'train_loss'; 'lambda_max' (of the tracked examples),
    'train_lambda_max' (of the whole training set), 'trace', 'w1_norm',
    'input_lambda',
    'normalized_curvature' of the last measurement up to the checkpoint (of
    the loss for target 'loss', else of the logit); 'speed', minus the log of
    the seconds it took to get there; and 'examples', metric -> [n], NaN for
    wrongly classified ones. What is not known is NaN. A run that has ended
    without coming to a rule of comparison has a record of its settings, this
    'rule', and 'absent', why: 'diverged' or 'never reached'. Problems: path of
    a run -> why there is no record of it.

  Raises:
    InputError: `tree` is not a folder.
  """
  tree = pathlib.Path(tree)
  errors.require('--workdir', str(tree), tree.is_dir(), 'a folder of runs')
  records, problems = [], {}
  for folder in reading.folders(tree):
    mine, problem = of_run(reading.load(folder, arrays=wanted))
    records += mine
    if problem:
      problems[str(folder)] = problem
  return records, problems


def wanted(name: str) -> bool:
  """Is the array of this name in an .npz one that records are made of?"""
  return name.startswith(('score/', 'correct/')) and BASELINE not in name


def of_run(run: Run) -> tuple[list[Record], str]:
  """(the records of one run, why there is none or '')."""
  lacking = [n for n in _TEXTS if not isinstance(run.setting(n), str)]
  lacking += [n for n in _NUMBERS if not reading.finite(run.setting(n))]
  if lacking:
    why = run.problems.get('config.json', f'does not say {", ".join(lacking)}')
    return [], f'is left out: config.json {why}'
  settings = _settings(run) | {'run': str(run.path)}
  records = [
    settings | record
    for evaluation in run.evaluations.values()
    for record in _of_evaluation(run, evaluation)
  ]
  problem = '' if records else 'has no evaluation'
  return records + [settings | lost for lost in _absent(run)], problem


def _absent(run: Run) -> list[Record]:
  """The rules that a run which has ended did not come to, and why.

  A run that was stopped, or that nobody has evaluated yet, says nothing of the
  kind. A state from which training diverged is no end of it.
  """
  status = run.status.get('status')
  if status == 'diverged':
    why = {'last': 'diverged'}
  elif status == 'finished' and run.evaluations:
    why = {}
  else:
    return []
  milestones = run.setting('train.milestones', {})
  for rule in milestones if isinstance(milestones, dict) else ():
    reached = any(f'milestone/{rule}' in line for line in run.lines)
    if rule not in run.evaluations and not reached:
      why[rule] = 'diverged' if status == 'diverged' else 'never reached'
  nothing = dict.fromkeys(('map', 'family', 'attack', 'target'))
  nothing |= dict.fromkeys((*METRICS, 'speed'), float('nan'))
  return [nothing | {'rule': r, 'absent': w} for r, w in why.items()]


_TEXTS = ('data.name', 'model.name', 'loss.name')
_NUMBERS = ('optim.lr', 'data.batch_size', 'seed')


def _of_evaluation(run: Run, evaluation: Evaluation) -> list[Record]:
  settings, clean = evaluation.settings, evaluation.clean
  target = str(settings.get('target', 'logit'))
  protocol = {name: settings.get(name) for name in PROTOCOL}
  protocol['duration'] = run.setting('train.duration')
  shared = _measured(run, evaluation.step, target) | {
    'rule': evaluation.checkpoint,
    'target': target,
    'protocol': json.dumps(protocol, sort_keys=True),
    'accuracy': reading.number(clean.get('accuracy')),
    'train_loss': reading.number(clean.get('train_loss')),
  }
  key = 'param/train_lambda_max'
  if reading.finite(clean.get(key)):
    shared['train_lambda_max'] = float(clean[key])
  base = {
    row['attribution']: row
    for row in evaluation.rows
    if row['attack'] == BASELINE
  }
  return [
    shared | _of_row(row, base.get(row['attribution']), evaluation.examples)
    for row in evaluation.rows
    if row['attack'] != BASELINE
  ]


def _settings(run: Run) -> Record:
  text = lambda path, default='': str(run.setting(path, default))
  amount = lambda path: reading.number(run.setting(path, 0))
  other = {
    path: value
    for section in ('data', 'model', 'optim', 'loss', 'objective')
    for path, value in leaves(run.setting(section, {}), section)
    if path not in ('data.batch_size', 'data.data_dir', 'optim.lr')
  }
  return {
    'data': text('data.name'),
    'model': text('model.name'),
    'activation': text('model.activation'),
    'attention': text('model.attention'),
    'loss': text('loss.name'),
    'objective': text('objective.name', 'none'),
    'lr': amount('optim.lr'),
    'batch_size': int(amount('data.batch_size')),
    'momentum': amount('optim.momentum'),
    'weight_decay': amount('optim.weight_decay'),
    'label_noise': amount('data.label_noise'),
    'seed': int(amount('seed')),
    # Widths, schedules, penalties, …: what arms must share to be compared.
    'other': json.dumps(other, sort_keys=True),
    **kernel(text('model.attention')),
  }


def kernel(attention: str) -> Record:
  """What `models.KERNELS` knows of an attention.

  'features' is the feature map or, where there is none, the name itself;
  'normalized' says whether a row is divided by its own sum, as softmax does
  too: None for a name that is not there.
  """
  if attention and attention not in models.KERNELS:
    return {'kernel': True, 'features': attention, 'normalized': None}
  kind, features, divisor = models.KERNELS.get(attention, ('', '', ''))
  return {
    'kernel': kind not in ('', 'softmax'),
    'features': features or attention,
    'normalized': kind == 'softmax' or divisor == 'sum',
  }


def _of_row(
  row: dict[str, Any], base: dict[str, Any] | None, arrays: dict
) -> Record:
  name, attack = row['attribution'], row['attack']
  mean = lambda part, key: part.get(key, {}).get('mean', float('nan'))
  random = base['metrics'] if base else {}
  right = arrays.get(f'correct/{name}')
  examples = {}
  for metric in METRICS:
    values = arrays.get(f'score/{name}/{attack}/{metric}')
    if values is None or right is None:
      continue
    if np.shape(values) == np.shape(right) != ():
      examples[metric] = np.where(right, values.astype(float), np.nan)
  attention = name in attribution.ATTENTION_METHODS
  censored = row.get('censored')
  censored = censored if isinstance(censored, dict) else {}
  return {
    'map': name,
    'family': 'attention' if attention else 'gradient',
    'attack': attack,
    'examples': examples,
    'deletion_auc': mean(row['faithfulness'], 'deletion_auc'),
    **{
      f'censored_{end}': reading.number(censored.get(end))
      for end in ('below', 'above')
    },
    **{m: mean(row['metrics'], m) for m in METRICS},
    **{f'random_{m}': mean(random, m) for m in METRICS},
  }  # fmt: skip


def _measured(run: Run, step: int | None, target: str) -> Record:
  """Curvature and time as they stood at `step`."""
  prefix = 'input_loss' if target == 'loss' else 'input'
  keys = {
    'lambda_max': 'param/lambda_max',
    'train_lambda_max': 'param/train_lambda_max', 'trace': 'param/trace',
    'w1_norm': 'param/w1_norm', 'input_lambda': f'{prefix}/lambda_max',
    'normalized_curvature': f'{prefix}/normalized_curvature',
  }  # fmt: skip
  at = float('nan') if step is None else step
  measured = {}
  for name, key in keys.items():
    steps, values = run.series(key)
    values = values[(steps <= at) & np.isfinite(values)]
    measured[name] = float(values[-1]) if values.size else float('nan')
  # Rates, not the clock: a run may have been resumed.
  rates = run.series('time/steps_per_s')[1]
  rates = rates[rates > 0]
  seconds = at / rates[-1] if rates.size else float('nan')
  speed = -float(np.log(seconds)) if seconds > 0 else float('nan')
  return measured | {'speed': speed}
