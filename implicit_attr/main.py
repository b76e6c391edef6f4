"""Trains, tracks, evaluates and reports, as one config says.

  python -m implicit_attr.main --config configs/digits_cnn.py

Kept short on purpose: everything it calls can be imported and tested, or used
from a notebook.
"""

import logging
import os
import pathlib
import sys
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from implicit_attr import errors

MODES = ('train', 'evaluate', 'report')
CACHE = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache')

_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='a config file, and after a colon its argument'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'folder of the run; runs/<config>[-argument] if not given'
)
_MODE = flags.DEFINE_string('mode', 'train', f'one of {", ".join(MODES)}')
_COMPILED = flags.DEFINE_string(
  'compilation_cache', str(CACHE.expanduser() / 'implicit_attr' / 'xla'),
  "where compiled programs are kept between starts; '' turns it off",
)  # fmt: skip


def main(_) -> int:
  """Returns the exit status: 0, 3 (diverged) or 143 (stopped by a signal)."""
  import jax

  from implicit_attr import (
    evaluation,
    experiment,
    loop,
    programs,
    records,
    report,
  )

  if _COMPILED.value:
    jax.config.update('jax_compilation_cache_dir', _COMPILED.value)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
  mode, workdir = _MODE.value, _workdir()
  errors.choose('--mode', mode, MODES)
  if mode == 'report':
    print(report.write(workdir))
    return 0
  config = _CONFIG.value.to_dict() if _CONFIG.value else None
  if mode == 'evaluate':
    config = records.continued(workdir, config)
  programs.set_effort(config['compile'])
  programs.keep_memory()
  built = experiment.build(config)
  evaluation.check(config['evaluation'])
  status = 0
  try:
    if mode == 'train':
      loop.train(built, workdir)
    evaluation.evaluate(built, workdir)
    if mode == 'train':
      records.write_status(workdir, 'finished', built.total)
  except (loop.Diverged, loop.Interrupted) as e:
    print(e, file=sys.stderr)
    status = 3 if isinstance(e, loop.Diverged) else 143
  print(report.write(workdir))
  return status


def _workdir() -> pathlib.Path:
  if _WORKDIR.value:
    return pathlib.Path(_WORKDIR.value).absolute()
  if _CONFIG.value is None:
    raise errors.InputError('--workdir or --config must be given')
  name = config_flags.get_config_filename(flags.FLAGS['config'])
  name = pathlib.Path(name).name.replace('.py', '').replace(':', '-')
  return pathlib.Path('runs', name).absolute()


def _flags(argv: list[str]) -> list[str]:
  """Parses the flags; whatever is wrong with them is one line."""
  try:
    rest = flags.FLAGS(argv)
    flag = flags.FLAGS['config']
    name = config_flags.get_config_filename(flag) if flag.present else ''
    if name and not os.path.exists(name.partition(':')[0]):
      raise errors.InputError(f'--config={name!r} must be a file that exists')
    if not name and _MODE.value == 'train':
      raise errors.InputError('--config must name a config file')
    return rest
  except (flags.Error, KeyError, AttributeError, OSError, ValueError) as e:
    _refuse(e)


def _refuse(error: Exception) -> Any:
  """One line and exit status 2."""
  text = str(error).strip()
  if isinstance(error, KeyError | AttributeError):
    text = f'--config has no key {text}'
  if 'Traceback' in text:  # ml_collections wraps what a config file raised
    text = text.splitlines()[-1]
  print('error:', ' '.join(text.split()), file=sys.stderr, flush=True)
  # Not sys.exit: a restore that failed leaves reader threads behind, which
  # would add tracebacks of their own on the way out.
  os._exit(2)


def _talk() -> None:
  """Our own lines with the time of day; of other libraries only warnings."""
  absl_logging.set_verbosity(absl_logging.WARNING)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  log = logging.getLogger('implicit_attr')
  log.addHandler(handler)
  log.setLevel(logging.INFO)
  log.propagate = False


def _guarded(argv: list[str]) -> int:
  try:
    return main(argv)
  except errors.InputError as e:
    _refuse(e)


if __name__ == '__main__':
  _talk()
  app.run(_guarded, flags_parser=_flags)
