#!/usr/bin/env bash
# Submits the program to SLURM; it goes on by itself after a preemption or at
# the end of its time.
#   launch/slurm.sh [--dry_run] [--array=N] [sbatch options] -- flags
#   launch/slurm.sh --gpus-per-node=1 -- --config configs/digits_cnn.py \
#     --workdir /shared/runs/digits_cnn
#   launch/slurm.sh --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 -- …
#     one process per GPU. They find each other by SLURM's variables, and JAX
#     gives each the GPU of its SLURM_LOCALID: all must be visible to all, so
#     --gpus-per-node, not --gpus-per-task
#   launch/slurm.sh --array=8 --gpus-per-node=1 -- --mode sweep \
#     --config configs/sweeps/lr_batch.py --workdir /shared/runs/lr_batch
#     a sweep in 8 jobs, the i-th with --shard=i/8
set -euo pipefail
do_() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [ -n "${dry:-}" ] || "$@"
}

if [ "${1:-}" = --inside ]; then # the job itself, in the repository
  shift
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    set -- "$@" "--shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
  elif [ "${SLURM_NTASKS:-1}" -gt 1 ]; then
    set -- --distributed "$@"
  fi
  # srun no longer takes it from sbatch (Slurm 22.05).
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
  status=0
  do_ srun --kill-on-bad-exit=1 .venv/bin/python -m implicit_attr.main "$@" ||
    status=$?
  if [ "$status" = 143 ]; then # stopped by a signal, with its state saved
    job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
    do_ scontrol requeue "$job${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
  fi
  exit "$status"
fi

cd "$(dirname "$0")/.."
dry=
if [ "${1:-}" = --dry_run ]; then dry=1 && shift; fi
# SIGTERM two minutes before the end: time to save.
options=(--job-name=implicit_attr --requeue --signal=TERM@120 --chdir="$PWD"
  --open-mode=append)
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --array=*) options+=("--array=0-$((${1#--array=} - 1))") ;;
    *) options+=("$1") ;;
  esac
  shift
done
if [ "${1:-}" != -- ]; then
  echo "error: the program's flags must follow --" >&2
  exit 2
fi
shift
JAX=${JAX:-jax[cuda12]} launch/local.sh ${dry:+--dry_run} --setup
do_ sbatch "${options[@]}" launch/slurm.sh --inside "$@"
