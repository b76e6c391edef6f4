"""Sweeps: hundreds of runs, by several launchers, through any kill.

A sweep is a list of arms, and each arm is a run directory under one root. What
is done is read from those directories and nowhere else, so a launcher has no
state that could be lost: the same command goes on.
"""

import contextlib
import logging
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from implicit_attr import errors
from implicit_attr.runs import lock, records
from implicit_attr.runtime.progress import Progress
from implicit_attr.sweeps.budget import DONE, Arm, Budget
from implicit_attr.sweeps.summary import write_summary
from implicit_attr.train.run_folder import Diverged

LOG = logging.getLogger(__name__)

Train = Callable[[list[dict[str, Any]], list[pathlib.Path]], None]
_FIELDS = ('name', 'base', 'overrides')
RESERVED = {
  '.lock', 'checkpoints', 'config.json', 'evaluation', 'figures',
  'metrics.jsonl', 'mirrors.json', 'probes', 'report.html', 'spectrum',
  'status.json', 'summary.csv', 'summary.json', 'tensorboard', 'wandb',
}  # fmt: skip
"""Names that a run or a sweep gives to its own files."""

_NAME = re.compile(r'[a-zA-Z0-9_.=+,-]+(/[a-zA-Z0-9_.=+,-]+)*')


def arms(sweep: Any) -> list[Arm]:
  """The arms of what a file of configs/sweeps returns.

  Args:
    sweep: has `arms`, a list of dicts: 'name', a relative path that says what
      is particular to the arm; 'base', a ConfigDict; 'overrides', {'a.b':
      value} on top of it.

  Raises:
    InputError: no arms, a name that is no plain path, is there twice, is that
      of a file or lies inside another, an override of a key that the base has
      not, or of another type.
  """
  errors.require(
    '--config', '…', 'arms' in sweep, 'a sweep, with arms, for --mode=sweep'
  )
  given = sweep['arms']
  errors.require(
    'arms', given, isinstance(given, list | tuple) and len(given) > 0,
    'a list of one arm or more, with arms {name, base, overrides}',
  )  # fmt: skip
  arms: dict[str, Arm] = {}
  for arm in given:
    ok = isinstance(arm, Mapping | ConfigDict) and set(arm) == set(_FIELDS)
    errors.require('arm', arm, ok, f'a mapping of {", ".join(_FIELDS)}')
    name, base, overrides = (arm[field] for field in _FIELDS)
    _check_name(name, arms)
    errors.require(
      f'base of arm {name!r}', type(base).__name__,
      isinstance(base, ConfigDict), 'a ConfigDict',
    )  # fmt: skip
    errors.require(
      f'overrides of arm {name!r}', overrides,
      isinstance(overrides, Mapping | ConfigDict)
      and all(isinstance(field, str) for field in overrides)
      # Options of an objective are a mapping; a section is not replaced.
      and not any(
        isinstance(value, Mapping | ConfigDict) and '.' not in field
        for field, value in overrides.items()
      ),
      "{'section.field': value}",
    )  # fmt: skip
    config = base.copy_and_resolve_references().lock()
    try:
      config.update_from_flattened_dict(dict(overrides))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
      reason = ' '.join(str(e.args[0] if e.args else e).split())
      raise errors.InputError(
        f'arm {name!r} has a bad override: {reason}'
      ) from e
    arms[name] = Arm(name, config.to_dict())
  return list(arms.values())


def _check_name(name: Any, others: Iterable[str]) -> None:
  """Raises InputError unless `name` can be a folder of its own."""
  plain = isinstance(name, str) and _NAME.fullmatch(name) is not None
  parts = name.split('/') if plain else []
  errors.require(
    'arm', name,
    plain and not {'.', '..'} & set(parts) and max(map(len, parts)) <= 255,
    'a path of letters, digits and any of . = + , - _, 255 in a part',
  )  # fmt: skip
  errors.require(
    'arm', name, not RESERVED & set(parts),
    f'free of the names of files: {", ".join(sorted(RESERVED))}',
  )  # fmt: skip
  for other in others:
    errors.require('arm', name, name != other, 'a name of only one arm')
    inside = f'{name}/'.startswith(f'{other}/') or other.startswith(f'{name}/')
    errors.require(
      'arm', name, not inside, f'a folder outside that of arm {other!r}'
    )


def share(arms: Sequence[Arm], shard: str) -> list[Arm]:
  """The i-th of n shares of `arms`, for `shard` 'i/n' with 0 <= i < n.

  Raises:
    InputError: `shard` is not of that form.
  """
  form = re.fullmatch(r'([0-9]+)/([0-9]+)', shard)
  ok = form is not None and int(form[1]) < int(form[2])
  errors.require('--shard', shard, ok, "'i/n' with 0 <= i < n")
  assert form is not None
  return list(arms[int(form[1]) :: int(form[2])])


def run(
  arms: Sequence[Arm],
  root: pathlib.Path,
  train: Train,
  lanes: int = 1,
  budget: float | None = None,
) -> int:
  """Runs, in order, the arms that are not done; 2 if one failed, else 0.

  `train(configs, workdirs)` is expected to leave a status.json in each folder
  and to go on where an earlier call was cut off. An arm that is being run by
  someone else is left to them. One that raises Diverged is done. An InputError,
  or an error of the device (no memory), is recorded as 'failed', the other arms
  go on, and the next start tries again. Everything else ends the sweep.

  With `lanes` above 1, arms that can share a program (`lanes.groups`) go to
  `train` together, up to that many at once, in the place of the first of them.
  What it could not do, for one of the errors above, is then done arm by arm,
  and so are arms that have nothing to share.

  With a `budget` in seconds arms go seed by seed, so that what is done is
  balanced whenever it ends, and what would not end in time is not begun: arms
  are taken to need what those with the same config save the seed have needed,
  else what the slowest did. The first arm of all is begun in any case.

  Guarantees: an arm is never run twice at once on one file system, nor again
  once it is done; summary.csv and summary.json name every run under `root`
  after each arm or group.

  Raises:
    InputError: `lanes` below 1, a budget that is not positive.
  """
  errors.number('--lanes', lanes, 1, integer=True)
  if budget is not None:
    errors.number('--budget', budget, 0, open_low=True)
    arms = sorted(arms, key=lambda arm: arm.config['seed'])
  errors.require(
    '--workdir', str(root), not (root / 'config.json').exists(),
    'a folder of its own: this one is that of a run',
  )  # fmt: skip
  failed: list[str] = []
  count = lambda: sum(_status(root, arm) in DONE for arm in arms)
  progress = Progress('arm', count(), len(arms), every=0)
  LOG.info('%d arms, %d of them done', len(arms), count())
  due = []
  for arm in arms:
    if _status(root, arm) in DONE:
      _compare(root, arm, failed)
    else:
      due.append(arm)
  clock = Budget(budget, root, arms)
  for group in clock.groups(due, lanes):
    if not clock.allows(group):
      break
    with contextlib.ExitStack() as locks:
      ours = [arm for arm in group if _take(root, arm, locks)]
      with clock.timed(ours):
        if len(ours) > 1:
          _share(root, ours, train)
        for arm in ours:
          if _status(root, arm) not in DONE:
            _alone(root, arm, train, failed)
    write_summary(root)
    progress.say(count())
  write_summary(root)
  if failed:
    more = f' and {len(failed) - 3} more' if len(failed) > 3 else ''
    LOG.warning('%d arms failed: %s', len(failed), ', '.join(failed[:3]) + more)
  return 2 if failed else 0


def _take(root: pathlib.Path, arm: Arm, locks: contextlib.ExitStack) -> bool:
  """Whether `arm` is ours to run; if so, nobody else's until `locks` close."""
  if not locks.enter_context(lock.lock(root / arm.name)):
    LOG.info('%s is being run by someone else', arm.name)
    return False
  return _status(root, arm) not in DONE  # maybe finished since the first look


def _alone(
  root: pathlib.Path, arm: Arm, train: Train, failed: list[str]
) -> None:
  LOG.info('%s', arm.name)
  try:
    train([arm.config], [root / arm.name])
  except Diverged as e:  # recorded in its folder
    LOG.info('%s %s', arm.name, e)
  except (errors.InputError, jax.errors.JaxRuntimeError) as e:
    _fail(root, arm, e, failed)


def _share(root: pathlib.Path, arms: list[Arm], train: Train) -> None:
  LOG.info('%d arms as one program, %s first', len(arms), arms[0].name)
  try:
    train([a.config for a in arms], [root / a.name for a in arms])
  except (errors.InputError, jax.errors.JaxRuntimeError) as e:
    LOG.warning('%d arms go on one by one: %s', len(arms), _reason(e))


def _status(root: pathlib.Path, arm: Arm) -> str | None:
  return records.read_status(root / arm.name).get('status')


def _compare(root: pathlib.Path, arm: Arm, failed: list[str]) -> None:
  """Where what is done is another arm, this one counts as failed."""
  try:
    records.claim(root / arm.name, arm.config)
  except errors.InputError as e:
    LOG.warning('%s: %s', arm.name, e)
    failed.append(arm.name)


def _fail(
  root: pathlib.Path, arm: Arm, error: Exception, failed: list[str]
) -> None:
  reason = _reason(error)
  LOG.warning('%s failed: %s', arm.name, reason)
  failed.append(arm.name)
  # Where even this cannot be written, the warning has to do.
  with contextlib.suppress(errors.InputError, OSError):
    records.write_status(root / arm.name, 'failed', 0, reason)


def _reason(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0]
