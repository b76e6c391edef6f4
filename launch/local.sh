#!/usr/bin/env bash
# Runs the program here: makes the environment on the first call, then runs.
#   launch/local.sh [--dry_run] --config configs/digits_cnn.py
#   launch/local.sh [--dry_run] --setup      the environment alone
# PYTHON: which Python to begin with (python3). JAX: which JAX to install, as
# 'jax[cuda12]' for NVIDIA GPUs or 'jax[tpu]' (jax, for CPUs).
set -euo pipefail
cd "$(dirname "$0")/.."
dry=
if [ "${1:-}" = --dry_run ]; then dry=1 && shift; fi
do_() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [ -n "$dry" ] || "$@"
}
made=".venv/has-${JAX:-jax}" # not there if pip was stopped, or for another JAX
if [ ! -e "$made" ]; then
  [ -x .venv/bin/python ] || do_ "${PYTHON:-python3}" -m venv .venv
  do_ .venv/bin/pip install --quiet --editable . "${JAX:-jax}"
  do_ touch "$made"
fi
if [ "${1:-}" = --setup ]; then exit; fi
do_ exec .venv/bin/python -m implicit_attr.main "$@"
