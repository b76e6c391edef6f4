"""Do the launchers run the commands they should, and say which?

What needs a machine that is not here (a TPU pod, SLURM, a container engine) is
replaced by a small program of its name that writes down how it was called; the
parts that run on such a machine's workers are run for real, in a shell here.
"""

import os
import pathlib
import shutil
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(path.name for path in LAUNCH.glob('*.sh'))


def call(script, *args, home=ROOT, **env):
  return subprocess.run(
    [home / 'launch' / script, *args],
    cwd=home, capture_output=True, text=True, env={**os.environ, **env},
  )  # fmt: skip


def plan(script, *args, **env):
  """The commands that --dry_run prints."""
  done = call(script, '--dry_run', *args, **env)
  assert done.returncode == 0, done.stderr
  lines = (done.stderr + done.stdout).splitlines()
  assert all(line.startswith('+ ') for line in lines), lines
  return [line[2:] for line in lines]


def program(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'#!/usr/bin/env bash\n{text}\n')
  path.chmod(0o755)


@pytest.fixture
def copy(tmp_path):
  """A copy of launch/ whose .venv/bin/python says what it was asked to do."""
  shutil.copytree(LAUNCH, tmp_path / 'repo' / 'launch')
  program(
    tmp_path / 'repo' / '.venv' / 'bin' / 'python',
    'echo "python $*"; exit "${STATUS:-0}"',
  )
  (tmp_path / 'repo' / '.venv' / 'has-jax').touch()
  return tmp_path / 'repo'


@pytest.mark.parametrize('name', SCRIPTS)
def test_scripts_are_clean(name):
  text = (LAUNCH / name).read_text()
  assert 'set -euo pipefail' in text
  if checker := shutil.which('shellcheck'):
    command = [checker, LAUNCH / name]
  else:
    command = ['bash', '-n', LAUNCH / name]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert os.access(LAUNCH / name, os.X_OK)


def test_local_makes_its_environment_once(copy):
  shutil.rmtree(copy / '.venv')
  done = call('local.sh', '--dry_run', '--config', 'a b.py', home=copy)
  assert done.stderr.splitlines() == [
    '+ python3 -m venv .venv',
    '+ .venv/bin/pip install --quiet --editable . jax',
    '+ touch .venv/has-jax',
    '+ exec .venv/bin/python -m implicit_attr.main --config a\\ b.py',
  ]
  assert not (copy / '.venv').exists()


def test_local_runs_the_program_and_returns_its_status(copy):
  done = call('local.sh', '--config', 'a b.py', home=copy, STATUS='3')
  assert done.returncode == 3
  assert done.stdout == 'python -m implicit_attr.main --config a b.py\n'
  assert call('local.sh', '--setup', home=copy).stdout == ''


def test_a_pod_is_made_filled_watched_and_deleted_by_name():
  env = {'POD': 'p', 'ZONE': 'z', 'TYPE': 'v4-32', 'BUCKET': 'b'}
  tpu = 'gcloud compute tpus tpu-vm'
  assert plan('tpu_pod.sh', 'create', **env) == [
    f'{tpu} create p --zone=z --accelerator-type=v4-32'
    ' --version=tpu-ubuntu2204-base'
  ]
  assert plan('tpu_pod.sh', 'create', SPOT='1', **env)[0].endswith('--spot')
  archive, scp, unpack = plan('tpu_pod.sh', 'push', **env)
  assert archive.startswith('git archive')
  assert scp == f'{tpu} scp /tmp/p.tar.gz p: --zone=z --worker=all'
  assert 'tpu_setup.sh' in unpack and 'BUCKET=b' in unpack
  assert plan('tpu_pod.sh', 'delete', **env) == [
    f'{tpu} delete p --zone=z --quiet'
  ]
  (logs,) = plan('tpu_pod.sh', 'logs', **env)
  assert '--worker=0' in logs and 'tail' in logs
  stop, start = plan('tpu_pod.sh', 'run', '--config', 'c.py', **env)
  assert [stop] == plan('tpu_pod.sh', 'kill', **env)
  assert '--distributed' in start and '--worker=all' in start


def test_a_pod_needs_a_name_and_a_verb():
  done = call('tpu_pod.sh', '--dry_run', 'create', POD='')
  assert done.returncode != 0 and 'POD' in done.stderr
  done = call('tpu_pod.sh', '--dry_run', 'start', POD='p')
  assert done.returncode == 2 and 'create, push' in done.stderr


def test_a_worker_starts_the_program_once_and_can_stop_it(copy, tmp_path):
  # gcloud … ssh … --command=X runs X here, as a worker would.
  program(
    tmp_path / 'bin' / 'gcloud',
    'for a; do case $a in --command=*) cd "$WORKER"; '
    'exec bash -c "${a#--command=}" ;; esac; done',
  )
  worker = tmp_path / 'worker'
  shutil.copytree(copy, worker / 'implicit_attr')
  program(
    worker / 'implicit_attr' / '.venv' / 'bin' / 'python',
    'echo "python $*"; trap "echo saved; exit 143" TERM\n'
    'for i in $(seq 600); do sleep 0.1; done',
  )
  env = {
    'POD': 'p', 'WORKER': str(worker),
    'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}',
  }  # fmt: skip
  log, pid = (worker / 'implicit_attr' / name for name in ('log', 'pid'))

  def running():
    return subprocess.run(['kill', '-0', pid.read_text().strip()]).returncode

  def wait_for(text):
    limit = time.monotonic() + 20
    while text not in (log.read_text() if log.exists() else ''):
      assert time.monotonic() < limit
      time.sleep(0.02)

  done = call('tpu_pod.sh', 'run', '--config', 'a b.py', home=copy, **env)
  assert done.returncode == 0, done.stderr
  wait_for('python -m implicit_attr.main --distributed --config a b.py')
  first = pid.read_text()
  call('tpu_pod.sh', 'run', '--config', 'c.py', home=copy, **env)
  wait_for('--config c.py')
  assert pid.read_text() != first and running() == 0
  done = call('tpu_pod.sh', 'kill', home=copy, **env)
  assert done.returncode == 0, done.stderr
  wait_for('saved')
  assert not pid.exists()
  again = call('tpu_pod.sh', 'kill', home=copy, **env)
  assert again.returncode == 0, again.stderr


def test_a_worker_mounts_the_bucket():
  commands = plan('tpu_setup.sh', BUCKET='b')
  # orbax commits a checkpoint by renaming its folder.
  flags = '--implicit-dirs --rename-dir-limit=100000'
  assert f'gcsfuse {flags} b runs' in commands
  assert all('gcsfuse' not in line for line in plan('tpu_setup.sh', BUCKET=''))


def test_slurm_submits_one_job_or_an_array():
  *_, job = plan('slurm.sh', '--nodes=2', '--', '--config', 'c.py')
  assert job == (
    'sbatch --job-name=implicit_attr --requeue --signal=TERM@120 '
    f'--chdir={ROOT} --open-mode=append --nodes=2 '
    'launch/slurm.sh --inside --config c.py'
  )
  *_, job = plan('slurm.sh', '--array=8', '--', '--mode', 'sweep')
  assert '--array=0-7' in job
  done = call('slurm.sh', '--dry_run', '--config', 'c.py')
  assert done.returncode == 2 and 'must follow --' in done.stderr


@pytest.mark.parametrize(
  'variables, status, ran, requeued',
  [
    ({}, '0', 'python -m implicit_attr.main --a b', None),
    (
      {'SLURM_NTASKS': '2'}, '0',
      'python -m implicit_attr.main --distributed --a b', None,
    ),
    (
      {'SLURM_ARRAY_TASK_ID': '3', 'SLURM_ARRAY_TASK_COUNT': '8'}, '0',
      'python -m implicit_attr.main --a b --shard=3/8', None,
    ),
    ({}, '3', 'python -m implicit_attr.main --a b', None),
    ({}, '143', 'python -m implicit_attr.main --a b', 'requeue 7'),
    (
      {
        'SLURM_ARRAY_TASK_ID': '3', 'SLURM_ARRAY_TASK_COUNT': '8',
        'SLURM_ARRAY_JOB_ID': '6',
      },
      '143', 'python -m implicit_attr.main --a b --shard=3/8', 'requeue 6_3',
    ),
  ],
)  # fmt: skip
def test_a_slurm_job_runs_its_share_and_goes_on_after_a_stop(
  variables, status, ran, requeued, copy, tmp_path
):
  program(tmp_path / 'bin' / 'srun', 'shift; exec "$@"')
  program(tmp_path / 'bin' / 'scontrol', 'echo "$*"')
  done = call(
    'slurm.sh', '--inside', '--a', 'b', home=copy, STATUS=status,
    SLURM_JOB_ID='7', **variables,
    PATH=f'{tmp_path / "bin"}:{os.environ["PATH"]}',
  )  # fmt: skip
  assert done.returncode == int(status)
  assert done.stdout.splitlines() == [ran, *([requeued] if requeued else [])]


def test_a_container_is_built_and_sees_the_runs():
  (build,) = plan('container.sh', 'build', JAX='jax[cuda12]', ENGINE='podman')
  assert build == (
    'podman build --file launch/Containerfile '
    '--build-arg JAX=jax\\[cuda12\\] --tag implicit_attr .'
  )
  _, run = plan('container.sh', 'run', '--config', 'c.py', GPUS='all')
  assert run == (
    'docker run --rm --init --gpus all '
    f'--volume {ROOT}/runs:/runs implicit_attr --config c.py'
  )


def test_the_container_copies_only_what_is_there():
  for line in (LAUNCH / 'Containerfile').read_text().splitlines():
    if line.startswith('COPY'):
      for name in line.split()[1:-1]:
        assert (ROOT / name).exists(), name
