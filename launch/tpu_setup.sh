#!/usr/bin/env bash
# Makes one worker of a TPU pod ready; `tpu_pod.sh push` runs it on each.
#   launch/tpu_setup.sh [--dry_run]
# BUCKET: a Cloud Storage bucket to mount at runs/, which all workers share.
set -euo pipefail
cd "$(dirname "$0")/.."
dry=
if [ "${1:-}" = --dry_run ]; then dry=1 && shift; fi
do_() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [ -n "$dry" ] || "$@"
}
if [ -n "${BUCKET:-}" ] && ! mountpoint -q runs; then
  do_ mkdir -p runs
  do_ gcsfuse --implicit-dirs --rename-dir-limit=100000 "$BUCKET" runs
fi
JAX='jax[tpu]' launch/local.sh ${dry:+--dry_run} --setup
