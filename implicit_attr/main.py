"""Trains, tracks, evaluates and reports, as one config says.

python -m implicit_attr.main --config configs/digits_cnn.py
implicit_attr --config digits_cnn
"""

import contextlib
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import ml_collections
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

import implicit_attr
from implicit_attr import errors

STOPPED = 143
CONFIGS = pathlib.Path(__file__).parent / 'configs'
"""Configs that come with the package: `--config digits_cnn` names one."""
MODES = ('train', 'evaluate', 'report', 'sweep', 'theory', 'pack')
CACHE = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache')

_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='a config file, or the name of one that comes with '
  'the package, and after a colon its argument',
)  # fmt: skip
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'folder of the run; runs/<config>[-argument] if not given'
)
_MODE = flags.DEFINE_string('mode', 'train', f'one of {", ".join(MODES)}')
_SHARD = flags.DEFINE_string(
  'shard', '0/1', "which arms of a sweep: 'i/n', the i-th of n shares"
)
_LANES = flags.DEFINE_integer(
  'lanes', 1, 'how many arms of a sweep train at once, as one program'
)
_BUDGET = flags.DEFINE_float(
  'budget', None, 'seconds for a sweep: seed by seed, while arms end in time'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'one process of several: one per host of a pod, or GPU'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of process 0; found out on TPU and by SLURM'
)
_PROCESSES = flags.DEFINE_integer('processes', None, 'how many there are')
_PROCESS = flags.DEFINE_integer('process', None, 'which this is, from 0')
_PATIENCE = flags.DEFINE_integer(
  'patience', 60, 'seconds to wait for the other processes', lower_bound=1
)
_COMPILED = flags.DEFINE_string(
  'compilation_cache', str(CACHE.expanduser() / 'implicit_attr' / 'xla'),
  "where compiled programs are kept between starts; '' turns it off",
)  # fmt: skip


FLAGS_OF = {
  'shard': ('sweep',),
  'lanes': ('sweep',),
  'budget': ('sweep',),
  'distributed': ('train', 'evaluate'),
}
"""Modes in which a flag means anything; elsewhere it is refused."""


def main(_) -> int:
  """Returns the exit status: 0, 3 (diverged) or 143 (stopped by a signal)."""
  import jax

  from implicit_attr import report, run
  from implicit_attr.evaluation import theory_on_run
  from implicit_attr.runs import lock, pack, records
  from implicit_attr.runs.metrics import read_metrics
  from implicit_attr.runtime import dist, programs
  from implicit_attr.sweeps import sweep

  mode = _MODE.value
  if mode == 'theory':
    print(theory_on_run.check(_workdir() if _WORKDIR.value else None))
    return 0
  workdir = _workdir()
  programs.keep_memory()
  if _DISTRIBUTED.value:
    dist.initialize(
      _COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _PATIENCE.value
    )
  if _COMPILED.value:
    jax.config.update('jax_compilation_cache_dir', _COMPILED.value)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
  if mode in ('pack', 'report'):
    write = pack.pack if mode == 'pack' else report.write
    print(write(pack.unpacked(workdir)))
    return 0
  if mode == 'sweep':
    arms = sweep.share(sweep.arms(_CONFIG.value), _SHARD.value)
    job = lambda configs, folders: run.train(run.build(configs), folders)
    limit = _LANES.value, _BUDGET.value
    status = _ended(lambda: sweep.run(arms, workdir, job, *limit))
    with lock.lock(workdir) as ours:  # another launcher may be at it
      # Whoever sends a signal will not wait for a page of hundreds of runs.
      if ours and arms and status != STOPPED:
        print(report.write(workdir))
    return status
  first = not _DISTRIBUTED.value or jax.process_index() == 0
  if not first:
    records.silence()
    logging.getLogger('implicit_attr').setLevel(logging.WARNING)
  config = _CONFIG.value.to_dict() if _CONFIG.value else None
  if mode == 'evaluate':
    config = records.continued(workdir, config)
  assert config is not None  # `parse` asks for one to train
  lanes = run.build([config])  # before there is a folder
  job = run.train if mode == 'train' else run.evaluate
  with lock.lock(workdir) if first else contextlib.nullcontext(True) as ours:
    errors.require(
      '--workdir', str(workdir), ours, 'a folder that no other process is in'
    )
    status = _ended(lambda: job(lanes, [workdir]))
  if first and (status != STOPPED or read_metrics(workdir)):
    print(report.write(workdir))
  return status


def _ended(run: Callable[[], int | None]) -> int:
  """The exit status of `run`, its early ends included."""
  from implicit_attr.train.run_folder import Diverged
  from implicit_attr.train.spans import Interrupted

  try:
    return run() or 0
  except (Diverged, Interrupted) as e:
    print(e, file=sys.stderr)
    return 3 if isinstance(e, Diverged) else STOPPED


def _workdir() -> pathlib.Path:
  if _WORKDIR.value:
    return pathlib.Path(_WORKDIR.value).expanduser().absolute()
  if _CONFIG.value is None:
    raise errors.InputError('--workdir or --config must be given')
  name = config_flags.get_config_filename(flags.FLAGS['config'])
  name = pathlib.Path(name).name.replace('.py', '').replace(':', '-')
  return pathlib.Path('runs', name).absolute()


def located(name: str) -> str:
  """The file that `--config=name` means, with its argument after the colon.

  A file that exists is itself, with or without '.py'; else it is a config of
  the package: 'digits_cnn', 'sweeps/lr_batch:small', with 'configs/' or
  'implicit_attr/configs/' before it if one likes.

  Raises:
    InputError: neither is there.
  """
  path, colon, argument = name.partition(':')
  inside = re.sub(r'^(implicit_attr/)?configs/', '', path)
  tried = [pathlib.Path(path), pathlib.Path(f'{path}.py')]
  tried += [CONFIGS / inside, CONFIGS / f'{inside}.py']
  for file in tried:
    if file.is_file():
      return f'{file}{colon}{argument}'
  files = {f.relative_to(CONFIGS) for f in CONFIGS.rglob('*.py')}
  known = {f.with_suffix('').as_posix() for f in files} - {'common'}
  errors.choose('--config', path, {*known, 'or a file that exists'})
  raise errors.InputError(f'--config={path!r} is not there')


def parse(argv: list[str]) -> list[str]:
  """Parses the flags and looks at what does not depend on a config's values.

  `--config.a.b=None` sets a field to None, which flags of numbers cannot.

  Raises:
    InputError: a flag, or a file of --config, that cannot be used.
  """
  form = re.compile(r'--config\.([\w.]+)=None')
  empty = [m[1] for arg in argv if (m := form.fullmatch(arg))]
  given, sys.argv = sys.argv, [arg for arg in argv if not form.fullmatch(arg)]
  try:
    for i, arg in enumerate(sys.argv):
      if match := re.fullmatch(r'(--?config=)(.+)', arg):
        sys.argv[i] = match[1] + located(match[2])
      elif i and re.fullmatch(r'--?config', sys.argv[i - 1]):
        sys.argv[i] = located(arg)
    rest = flags.FLAGS(sys.argv)
    flag = flags.FLAGS['config']
    name = config_flags.get_config_filename(flag) if flag.present else ''
    config = _CONFIG.value
    if name:
      errors.require(
        '--config', name, isinstance(config, ml_collections.ConfigDict),
        'a file whose get_config() returns a ConfigDict',
      )  # fmt: skip
      for field in empty:
        config.update_from_flattened_dict({field: None})
  except errors.InputError:
    raise
  except (Exception, SystemExit) as e:  # whatever a config file does
    raise errors.InputError(_reason(e)) from e
  finally:
    sys.argv = given
  errors.require('arguments', rest[1:], not rest[1:], 'flags: --name=value')
  mode = _MODE.value
  errors.choose('--mode', mode, MODES)
  if not name and mode in ('train', 'sweep'):
    raise errors.InputError('--config must name a config file')
  for flag, modes in FLAGS_OF.items():
    errors.require(
      f'--{flag}', flags.FLAGS[flag].value,
      not flags.FLAGS[flag].present or mode in modes,
      f'left out unless --mode is {" or ".join(modes)}',
    )  # fmt: skip
  for flag in ('coordinator', 'processes', 'process', 'patience'):
    errors.require(
      f'--{flag}', flags.FLAGS[flag].value,
      not flags.FLAGS[flag].present or _DISTRIBUTED.value,
      'left out without --distributed',
    )  # fmt: skip
  errors.number('--lanes', _LANES.value, 1, 10_000, integer=True)
  return rest


def _flags(argv: list[str]) -> list[str]:
  try:
    return parse(argv)
  except errors.InputError as e:
    _refuse(e)


def _reason(error: BaseException) -> str:
  """One line of what went wrong while flags and a config file were read."""
  text = str(error).strip()
  if isinstance(error, SystemExit):
    text = f'--config must not leave the program (exit {text})'
  elif isinstance(error, KeyError | AttributeError):
    text = f'--config has no key {text}'
  if 'Traceback' in text:  # ml_collections wraps what a config file raised
    text = f'--config: {text.splitlines()[-1]}'
  return ' '.join(text.split()) or f'--config: {type(error).__name__}'


def _refuse(error: Exception) -> NoReturn:
  """One line and exit status 2."""
  print('error:', ' '.join(str(error).split()), file=sys.stderr, flush=True)
  # Not sys.exit: reader threads of a failed restore would add tracebacks.
  os._exit(2)


def _talk() -> None:
  """Our own lines with the time of day; of other libraries only warnings."""
  for stream in (sys.stdout, sys.stderr):  # λ where only ASCII can be shown
    stream.reconfigure(errors='backslashreplace')  # pyright: ignore[reportAttributeAccessIssue]
  absl_logging.set_verbosity(absl_logging.WARNING)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  log = logging.getLogger('implicit_attr')
  log.addHandler(handler)
  log.setLevel(logging.INFO)
  log.propagate = False


def _unraisable(info: Any) -> None:
  """What a read of a damaged checkpoint leaves behind is no news."""
  if 'Event loop is closed' not in str(info.exc_value):
    sys.__unraisablehook__(info)


def _guarded(argv: list[str]) -> int:
  try:
    status = main(argv)
  except (errors.InputError, OSError) as e:  # OSError: a full disk
    _refuse(e)
  if status == STOPPED and not _DISTRIBUTED.value:
    sys.stdout.flush()
    os._exit(status)  # else Python waits for programs that still compile
  return status


def start() -> None:
  """The program from its first line to its exit status."""
  if '--version' in sys.argv[1:]:
    print(f'implicit_attr {implicit_attr.__version__}')
    return
  if os.getcwd() not in sys.path:  # as with python -m
    sys.path.insert(0, os.getcwd())
  sys.unraisablehook = _unraisable
  _talk()
  app.run(_guarded, flags_parser=_flags)


if __name__ == '__main__':
  start()
