"""What did a folder of runs measure? One flat record a map, rule and run.

Files are parsed as data: nothing of a run is imported or executed, and a run
that is cut short gives the records that it has.
"""

import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from implicit_attr import attribution, errors

BASELINE = 'random_sign'
PROTOCOL = ('eps', 'norm', 'k', 'steps', 'restarts', 'examples', 'options')
"""Settings of an evaluation that two arms must share, beside duration."""

METRICS = ('topk', 'kendall', 'spearman', 'cosine')

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
    attention; the means of 'topk', 'kendall', 'spearman', 'cosine', those
    under random signs ('random_topk', …), 'deletion_auc', 'accuracy',
    'train_loss'; 'lambda_max', 'trace', 'w1_norm', 'input_lambda',
    'normalized_curvature' of the last measurement up to the checkpoint (of
    the loss for target 'loss', else of the logit); 'speed', minus the log of
    the seconds it took to get there; and 'examples', metric -> [n], NaN for
    wrongly classified ones. What is not known is NaN. Problems: path of a run
    -> why there is no record of it.

  Raises:
    InputError: `tree` is not a folder.
  """
  tree = pathlib.Path(tree)
  errors.require('--workdir', str(tree), tree.is_dir(), 'a folder of runs')
  records, problems = [], {}
  for path in sorted(tree.rglob('config.json')):
    try:
      found = _of_run(path.parent)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
      problems[str(path.parent)] = f'cannot be read ({type(e).__name__}: {e})'
      continue
    records += found
    if not found:
      problems[str(path.parent)] = 'has no evaluation'
  return records, problems


def _of_run(run: pathlib.Path) -> list[Record]:
  config = json.loads((run / 'config.json').read_text())['config']
  settings = _settings(config) | {'run': str(run)}
  lines, records = _lines(run / 'metrics.jsonl'), []
  for path in sorted((run / 'evaluation').glob('*.json')):
    found = json.loads(path.read_text())
    arrays = _arrays(path.with_suffix('.npz'))
    rows = found['rows']
    base = {
      row['attribution']: row for row in rows if row['attack'] == BASELINE
    }
    target = found['settings'].get('target', 'logit')
    protocol = {name: found['settings'].get(name) for name in PROTOCOL}
    protocol['duration'] = config.get('train', {}).get('duration')
    shared = settings | _measured(lines, found['step'], target)
    shared |= {
      'rule': path.stem,
      'target': target,
      'protocol': json.dumps(protocol, sort_keys=True),
      'accuracy': _number(found['clean'].get('accuracy')),
      'train_loss': _number(found['clean'].get('train_loss')),
    }
    for row in rows:
      if row['attack'] != BASELINE:
        records.append(shared | _of_row(row, base, arrays))
  return records


def _settings(config: dict[str, Any]) -> Record:
  data, model, optim = config['data'], config['model'], config['optim']
  attention = model.get('attention') or ''
  return {
    'data': data['name'],
    'model': model['name'],
    'activation': model.get('activation', ''),
    'attention': attention,
    'loss': config['loss']['name'],
    'objective': config.get('objective', {}).get('name', 'none'),
    'lr': float(optim['lr']),
    'batch_size': int(data['batch_size']),
    'momentum': float(optim.get('momentum') or 0),
    'weight_decay': float(optim.get('weight_decay') or 0),
    'label_noise': float(data.get('label_noise') or 0),
    'seed': int(config['seed']),
    'other': json.dumps(_other(config), sort_keys=True),
    **kernel(attention),
  }


def _other(config: dict[str, Any]) -> dict[str, dict]:
  """Widths, schedules, penalties, …: what arms must share to be compared."""
  factors = {'data': ('batch_size', 'data_dir'), 'optim': ('lr',)}
  return {
    name: {
      key: value
      for key, value in config.get(name, {}).items()
      if key not in factors.get(name, ())
    }
    for name in ('data', 'model', 'optim', 'loss', 'objective')
  }


def kernel(attention: str) -> Record:
  """What the name of an attention kernel says of it.

  'linear' is elu1 over its row sum; 'a_b' the features a and normaliser b, of
  which only 'sum' divides a row by its own sum; 'softmax' does, too.
  """
  name = 'elu1_sum' if attention == 'linear' else attention
  features, _, normalizer = name.rpartition('_')
  if normalizer == 'pointwise':  # no features: relu(q k), not relu(q) relu(k)
    features = name
  if name in ('', 'softmax'):
    features, normalizer = name, 'sum' if name else ''
  return {
    'kernel': bool(name) and name != 'softmax',
    'features': features,
    'normalized': normalizer == 'sum',
  }


def _of_row(
  row: dict[str, Any],
  base: dict[str, dict],
  arrays: dict[str, np.ndarray],
) -> Record:
  name, attack = row['attribution'], row['attack']
  mean = lambda row, part, key: _number(
    row.get(part, {}).get(key, {}).get('mean')
  )
  right = arrays.get(f'correct/{name}')
  examples = {}
  for metric in METRICS:
    values = arrays.get(f'score/{name}/{attack}/{metric}')
    if values is not None and right is not None:
      examples[metric] = np.where(right, values.astype(float), np.nan)
  attention = name in attribution.ATTENTION_METHODS
  return {
    'map': name,
    'family': 'attention' if attention else 'gradient',
    'attack': attack,
    'examples': examples,
    'deletion_auc': mean(row, 'faithfulness', 'deletion_auc'),
    **{m: mean(row, 'metrics', m) for m in METRICS},
    **{
      f'random_{m}': mean(base.get(name, {}), 'metrics', m) for m in METRICS
    },
  }  # fmt: skip


def _measured(lines: list[dict], step: int, target: str) -> Record:
  """Curvature and time as they stood at `step`."""
  prefix = 'input_loss' if target == 'loss' else 'input'
  keys = {
    'lambda_max': 'param/lambda_max', 'trace': 'param/trace',
    'w1_norm': 'param/w1_norm', 'input_lambda': f'{prefix}/lambda_max',
    'normalized_curvature': f'{prefix}/normalized_curvature',
  }  # fmt: skip
  found = dict.fromkeys(keys, float('nan'))
  # Rates, not the clock: a run may have been resumed.
  rates = [_number(line.get('time/steps_per_s')) for line in lines]
  for line in lines:
    if line['step'] > step:
      continue
    for name, key in keys.items():
      if line.get(key) is not None:
        found[name] = _number(line[key])
  rates = [rate for rate in rates if rate > 0]
  seconds = step / rates[-1] if rates else float('nan')
  found['speed'] = -float(np.log(seconds)) if seconds > 0 else float('nan')
  return found


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Whole lines, in order of step; what a kill cut short ends the reading."""
  lines = []
  for raw in path.read_text().splitlines() if path.exists() else ():
    try:
      line = json.loads(raw)
    except ValueError:
      break
    if isinstance(line, dict) and isinstance(line.get('step'), int):
      lines.append(line)
  return sorted(lines, key=lambda line: line['step'])


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The scores of single examples under attacks; empty without any."""
  try:
    with path.open('rb') as file:
      archive = np.load(file, allow_pickle=False)
      wanted = ('score/', 'correct/')
      return {
        k: archive[k]
        for k in archive.files
        if k.startswith(wanted) and BASELINE not in k
      }
  except (OSError, ValueError, EOFError, zipfile.BadZipFile):
    return {}


def _number(value: Any) -> float:
  fits = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if fits else float('nan')
