"""Ours beside its peers on a GPU, in one command and four minutes at most.

  python -m benchmarks.gpu
  python -m benchmarks.gpu --parts step attention --out step.json
  python -m benchmarks.gpu --small     # the same at tiny sizes, on a CPU

Each part is a process of its own with a time limit: what it has by then is
printed, a table a part, and everything is written to one JSON file. JAX's rows
stand alone where PyTorch is not installed. No network and no data set is
needed. With --small parts run side by side, so that their times mean nothing:
it shows that everything runs.
"""

import argparse
import concurrent.futures
import contextlib
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.gpu import report

LIMITS = {
  'step': 65,
  'curvature': 90,
  'attacks': 25,
  'attention': 20,
  'loop': 35,
}
"""Seconds of each part; together four minutes less what processes cost."""
PATIENT = 120
"""Seconds of each part with --small, which is for busy machines too."""
ENVIRONMENT = {
  # JAX would else take three quarters of the memory, and PyTorch has to fit.
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
  # PyTorch's idle threads on a CPU spin, which costs the others their time.
  'OMP_WAIT_POLICY': 'PASSIVE',
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--parts', nargs='+', choices=LIMITS, default=list(LIMITS)
  )
  parser.add_argument('--small', action='store_true')
  parser.add_argument('--out', type=pathlib.Path, default='gpu.json')
  parser.add_argument('--rows', type=pathlib.Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.rows:  # a part in its own process
    return work(args.parts[0], args.small, args.rows)
  with concurrent.futures.ThreadPoolExecutor(
    len(args.parts) if args.small else 1
  ) as pool:
    results = pool.map(lambda part: supervise(part, args.small), args.parts)
    parts = {}
    for part, result in zip(args.parts, results, strict=True):
      parts[part] = result
      print(report.table(part, result), flush=True)
  goals = report.goals(parts)
  print(report.goals_table(goals, args.small))
  args.out.write_text(json.dumps({'parts': parts, 'goals': goals}, indent=1))
  print(f'written to {args.out}')
  return None


def supervise(part: str, small: bool) -> dict:
  """A part's 'seconds', 'ended' in one line, 'machine' and 'rows' so far."""
  with tempfile.TemporaryDirectory() as folder:
    rows, errors = pathlib.Path(folder, 'rows'), pathlib.Path(folder, 'errors')
    rows.touch()
    limit = PATIENT if small else LIMITS[part]
    command = [sys.executable, '-m', 'benchmarks.gpu', '--parts', part]
    command += ['--rows', str(rows)] + ['--small'] * small
    began = time.perf_counter()
    with errors.open('w') as said:
      process = subprocess.Popen(
        command, stdout=said, stderr=said, start_new_session=True,
        env=ENVIRONMENT | os.environ,
      )  # fmt: skip
    try:
      status = process.wait(limit)
      ended = 'all rows' if not status else _last_line(errors, status)
    except subprocess.TimeoutExpired:
      ended = f'out of time after {limit} s: the rest is missing'
    finally:
      with contextlib.suppress(ProcessLookupError):  # its compilers, too
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
    seconds = time.perf_counter() - began
    whole = [t for t in rows.read_text().splitlines(True) if t.endswith('\n')]
    machine, *found = [json.loads(text) for text in whole] or [{}]
  return {
    'seconds': seconds, 'ended': ended, 'machine': machine, 'rows': found,
  }  # fmt: skip


def _last_line(errors: pathlib.Path, status: int) -> str:
  lines = errors.read_text().strip().splitlines() or ['no word']
  return f'failed with status {status}: {lines[-1]}'


def work(part: str, small: bool, path: pathlib.Path) -> None:
  """Runs a part in this process and appends a line a row to `path`."""
  from implicit_attr.runtime import programs

  programs.keep_memory()
  if small:
    programs.set_effort('quick')
    with contextlib.suppress(ImportError):
      import torch

      torch.set_num_threads(1)  # parts run side by side
  with path.open('a') as file:
    print(json.dumps(machine()), file=file, flush=True)
    for group in importlib.import_module(f'benchmarks.gpu.{part}').rows(small):
      for row in group:
        print(json.dumps(row), file=file)
      file.flush()


def machine() -> dict[str, str]:
  """Device and versions, and what is missing."""
  import jax

  from benchmarks import curvature_jax
  from benchmarks.gpu import measure

  said = {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}
  device = measure.torch_device()
  if device:
    import torch

    said['torch'] = f'{torch.__version__} on {device}'
  else:
    said['torch'] = 'not installed for this device: its rows are missing'
  missing = ', '.join(curvature_jax.missing())
  return said | ({'not installed': missing} if missing else {})


if __name__ == '__main__':
  main()
